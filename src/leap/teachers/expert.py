"""The `expert` teacher: the environment's programmatic teacher at a privilege level, on every step of an episode."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from leap.core import Correction, Episode
from leap.envs.base import Environment
from leap.policies.base import scripts
from leap.sync import run_sync
from leap.teachers.base import OnEpisode, Verdict, plan_length


class ExpertTeacher:
    """Corrects by rule: replays the student's episode, and at each of the student's own states asks the environment's
    expert what it would think and do there, given the privileged state (paper, section 3).

    Args:
        environment: Where the episodes were played.
        privilege: 0..100.
        drop_leaks: Reject corrections whose reason names what the student has not seen.
    """

    name = "expert"
    dropped = 0

    def __init__(self, environment: Environment, privilege: int, *, drop_leaks: bool = False) -> None:
        self._environment = environment
        self.privilege = privilege
        self._verdict = Verdict(environment, self.name, privilege, drop_leaks=drop_leaks)

    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step of the episode, kept or rejected, each rejection with its reason."""
        corrections = []
        taught = await scripts(self._environment).correct_along(episode, self.privilege)
        for t, (history, privileged, decision) in enumerate(taught):
            left = plan_length(privileged)
            if decision is None:
                corrections.append(self._verdict.hopeless(episode, t, left))
            else:
                corrections.append(self._verdict.correction(episode, t, decision, left, history=history))
        return corrections

    async def correct_all(
        self, episodes: Iterable[Episode], on_episode: OnEpisode, *, done: Container[str] = frozenset()
    ) -> None:
        """Corrects episode after episode: there is nothing to wait for."""
        for episode in episodes:
            if episode.key not in done:
                on_episode(episode, await self.correct(episode))

    def corrections(self, episode: Episode) -> Iterator[Correction]:
        """Yields the same corrections, step by step, for code that is not asynchronous."""
        yield from run_sync(self.correct(episode))
