"""The `expert` teacher: the environment's programmatic teacher at a privilege level, on every step of an episode."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from leap.core import Correction, Decision, Episode, History, PrivilegedState, Rejection
from leap.envs.base import Environment
from leap.teachers.base import OnEpisode
from leap.teachers.leakage import leaked_entities


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
        self._drop_leaks = drop_leaks

    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step of the episode, kept or rejected, each rejection with its reason."""
        return list(self.corrections(episode))

    async def correct_all(
        self, episodes: Iterable[Episode], on_episode: OnEpisode, *, done: Container[str] = frozenset()
    ) -> None:
        """Corrects episode after episode: there is nothing to wait for."""
        for episode in episodes:
            if episode.key not in done:
                on_episode(episode, list(self.corrections(episode)))

    def corrections(self, episode: Episode) -> Iterator[Correction]:
        """The corrections, one by one."""
        along = self._environment.correct_along(episode, self.privilege)
        for t, (history, privileged, decision) in enumerate(along):
            yield self._judge(episode, t, history, privileged, decision)

    def _judge(
        self, episode: Episode, t: int, history: History, privileged: PrivilegedState, decision: Decision | None
    ) -> Correction:
        leaked = leaked_entities(self._environment, decision.reason, history) if decision else ()
        return Correction(
            episode=episode.key,
            t=t,
            reason=decision.reason if decision else "",
            action=decision.action if decision else "",
            teacher=self.name,
            privilege=self.privilege,
            rejected=self._rejection(decision, history, leaked),
            leaked=leaked,
            plan_length=len(privileged.plan) if privileged.plan is not None else None,
        )

    def _rejection(self, decision: Decision | None, history: History, leaked: tuple[str, ...]) -> Rejection | None:
        if decision is None:
            return Rejection.HOPELESS
        if not decision.action or not decision.reason:
            return Rejection.EMPTY
        if not self._environment.of(history.task).valid(decision.action, history.now):
            return Rejection.NOT_ADMISSIBLE
        if leaked and self._drop_leaks:
            return Rejection.LEAK
        return None
