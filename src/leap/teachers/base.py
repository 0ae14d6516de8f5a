"""What every teacher is, how a decision becomes a correction, and how many episodes are corrected at once."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import islice
from typing import Protocol

from leap.core import Correction, Decision, Episode, History, PrivilegedState, Rejection
from leap.envs.base import Environment
from leap.envs.grammar import Grammar
from leap.envs.tutor import roll_in
from leap.models.base import Model
from leap.models.providers import in_process
from leap.sync import run_sync, side_by_side
from leap.teachers.asking import Patience
from leap.teachers.leakage import leaked_entities

OnEpisode = Callable[[Episode, list[Correction]], None]
"""Called with each corrected episode, as soon as it is done."""


class Teacher(Protocol):
    """Maps an episode to corrections.

    Attributes:
        name: Who it is, for the record.
        privilege: 0..100.
        dropped: Steps left out of prompts so far, which would have been too long; over all answered calls.
    """

    name: str
    privilege: int
    dropped: int

    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step of the episode, kept or rejected, each rejection with its reason."""
        ...

    async def correct_all(
        self, episodes: Iterable[Episode], on_episode: OnEpisode, *, done: Container[str] = frozenset()
    ) -> None:
        """Corrects many episodes at once.

        Args:
            episodes: What to correct, in order.
            on_episode: Gets each episode's corrections.
            done: Keys of episodes on file already; they are not handed on again.
        """
        ...


_NOTHING = Decision(reason="", action="")


class Verdict:
    """Decides which corrections may train (invariant 3), by the same rules for every teacher.

    Args:
        environment: Says which actions are valid and what an entity is.
        name: Name of the teacher, for the record.
        privilege: Privilege level of the teacher, 0..100.
        drop_leaks: Reject corrections whose reason names what the student has not seen.
        verify: Reject corrections after which, by a roll-in, less is in reach than after the student's own action.
    """

    def __init__(
        self, environment: Environment, name: str, privilege: int, *, drop_leaks: bool, verify: bool = False
    ) -> None:
        self._environment = environment
        self._name = name
        self._privilege = privilege
        self._drop_leaks = drop_leaks
        self._verify = verify

    def correction(
        self, episode: Episode, t: int, decision: Decision, plan_length: int | None = None, *, history: History | None = None
    ) -> Correction:
        """Judges a teacher's decision for step t.

        The texts are those of the teacher but for spacing, and for the case and the full stop of an action that is
        admissible otherwise.

        Args:
            episode: The student's episode.
            t: Index of the step in it.
            decision: What the teacher would have thought and done there.
            plan_length: Actions left on an optimal plan from this state.
            history: h_t of the episode, where the caller has it already.
        """
        history = history or episode.history(t)
        decision = _tidy(decision, history, self._environment.grammar_of(episode.task))
        leaked = leaked_entities(self._environment, decision.reason, history)
        rejected = self._rejection(decision, history, leaked)
        if rejected is None and self._verify and self._worse(episode, t, decision.action):
            rejected = Rejection.WORSE
        return self._record(episode, t, decision, rejected, leaked, plan_length)

    def unanswered(self, episode: Episode, t: int, plan_length: int | None = None) -> Correction:
        """The record of a step for which the teacher gave no usable answer."""
        return self._record(episode, t, _NOTHING, Rejection.TEACHER_ERROR, (), plan_length)

    def hopeless(self, episode: Episode, t: int, plan_length: int | None = None) -> Correction:
        """The record of a step from which nothing can succeed any more, so that there is nothing to teach."""
        return self._record(episode, t, _NOTHING, Rejection.HOPELESS, (), plan_length)

    def _record(
        self,
        episode: Episode,
        t: int,
        decision: Decision,
        rejected: Rejection | None,
        leaked: tuple[str, ...],
        plan_length: int | None,
    ) -> Correction:
        return Correction(
            episode=episode.key,
            t=t,
            reason=decision.reason,
            action=decision.action,
            teacher=self._name,
            privilege=self._privilege,
            rejected=rejected,
            leaked=leaked,
            plan_length=plan_length,
        )

    def _worse(self, episode: Episode, t: int, action: str) -> bool:
        """Whether a correction of step t leaves less in reach than what the student did there."""
        own, history, left = episode.steps[t].action, episode.history(t), episode.horizon - t
        if action == own:
            return False
        value = run_sync(roll_in(self._environment, history, action, left))
        return value < 1.0 and value < run_sync(roll_in(self._environment, history, own, left))

    def _rejection(self, decision: Decision, history: History, leaked: tuple[str, ...]) -> Rejection | None:
        if not decision.action or not decision.reason:
            return Rejection.EMPTY
        environment = self._environment.of(history.task)
        if not environment.valid(decision.action, history.now):
            return Rejection.NOT_ADMISSIBLE
        if not environment.grammar.reads_back(decision, history.now):
            return Rejection.NOT_ADMISSIBLE  # a student that gave this answer would be understood to do something else
        if leaked and self._drop_leaks:
            return Rejection.LEAK
        return None


def _tidy(decision: Decision, history: History, grammar: Grammar) -> Decision:
    """The reason on one line, for a line break would end it; the action in its one spelling, and as the admissible one that it
    means, if it means one."""
    reason, action = " ".join(decision.reason.split()), grammar.canonical(decision.action)
    admissible = history.now.admissible
    if admissible is not None and action not in admissible:
        meant = [choice for choice in admissible if _folded(choice) == _folded(action)]
        action = meant[0] if len(meant) == 1 else action
    return Decision(reason=reason, action=action)


def _folded(action: str) -> str:
    return " ".join(action.lower().rstrip(" .").split())


def plan_length(state: PrivilegedState) -> int | None:
    """Actions left on an optimal plan; None where none is known."""
    return len(state.plan) if state.plan is not None else None


async def correct_all(
    teacher: Teacher, model: Model, episodes: Iterable[Episode], on_episode: OnEpisode, *, done: Container[str]
) -> None:
    """Corrects many episodes at once, as many as the model holds conversations.

    With a model at an endpoint the next episode starts when any is done. A model in this process answers all open
    conversations in one batch, and what it answers depends, in the last bits, on what else is in the batch; so there
    episodes go in waves, and a wave that was interrupted is done again whole, as in rollouts.

    Raises:
        LeapError: What ended the work: the budget, a world that is another, a teacher of which nothing can be used.
            Episodes under way at that moment are finished and handed on first.
    """
    keeper = _Keeper(on_episode, done, model.name)

    async def correct(episode: Episode) -> None:
        keeper.keep(episode, await teacher.correct(episode))

    if in_process(model.name):
        source = iter(episodes)
        while wave := list(islice(source, model.concurrency)):
            if any(episode.key not in done for episode in wave):
                await side_by_side(wave, correct, len(wave))
    else:
        await side_by_side((e for e in episodes if e.key not in done), correct, model.concurrency)
    keeper.close()


class _Keeper:
    """Hands corrections on, but holds back those of episodes without a usable answer until one has any: a teacher that
    never answers in the form asked for ends the stage early, and leaves nothing on file that hinders another try."""

    def __init__(self, on_episode: OnEpisode, done: Container[str], model: str) -> None:
        self._on_episode = on_episode
        self._done = done
        self._patience = Patience(model)
        self._held: list[tuple[Episode, list[Correction]]] = []

    def keep(self, episode: Episode, corrections: Sequence[Correction]) -> None:
        if corrections:
            self._patience.count(any(one.rejected is not Rejection.TEACHER_ERROR for one in corrections))
        if corrections and not self._patience.fruitful:
            self._held.append((episode, list(corrections)))
            return
        if self._patience.fruitful:
            self.close()
        self._hand_on(episode, list(corrections))

    def close(self) -> None:
        """Hands on what is still held back."""
        held, self._held = self._held, []
        for episode, corrections in held:
            self._hand_on(episode, corrections)

    def _hand_on(self, episode: Episode, corrections: list[Correction]) -> None:
        if episode.key not in self._done:
            self._on_episode(episode, corrections)
