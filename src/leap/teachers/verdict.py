"""Which corrections may train (invariant 3): one set of rules for every teacher."""

from __future__ import annotations

from leap.core import Correction, Decision, Episode, History, PrivilegedState, Rejection
from leap.envs.base import Environment
from leap.envs.tutor import roll_in
from leap.teachers.leakage import leaked_entities

_NOTHING = Decision(reason="", action="")


class Verdict:
    """Makes a teacher's corrections: of what it decided, or of its silence.

    Args:
        environment: Says which actions are valid, how they are written and what an entity is.
        name: Name of the teacher, for the record.
        privilege: Privilege level of the teacher, 0..100.
        drop_leaks: Reject corrections whose reason names what the student has not seen.
        verify: Reject corrections after which, by a roll-in, less is in reach than after the student's own action.
    """

    def __init__(
        self, environment: Environment, name: str, privilege: int, *, drop_leaks: bool = False, verify: bool = False
    ) -> None:
        self._environment = environment
        self._name = name
        self._privilege = privilege
        self._drop_leaks = drop_leaks
        self._verify = verify

    async def correction(
        self, episode: Episode, t: int, decision: Decision, state: PrivilegedState | None = None
    ) -> Correction:
        """Judges a teacher's decision for step t.

        The texts are those of the teacher but for spacing, and for the case and the full stop of an action that is
        admissible otherwise.

        Args:
            episode: The student's episode.
            t: Index of the step in it.
            decision: What the teacher would have thought and done there.
            state: The privileged state there, for the length of its plan; None where it is not known.
        """
        history = episode.history(t)
        decision = self._tidy(decision, history)
        leaked = leaked_entities(self._environment, decision.reason, history)
        rejected = self._rejection(decision, history, leaked)
        if rejected is None and self._verify and await self._worse(episode, t, decision.action):
            rejected = Rejection.WORSE
        return self._record(episode, t, state, rejected, decision, leaked)

    def unanswered(self, episode: Episode, t: int, state: PrivilegedState | None = None) -> Correction:
        """The record of a step for which the teacher gave no usable answer."""
        return self._record(episode, t, state, Rejection.TEACHER_ERROR)

    def hopeless(self, episode: Episode, t: int, state: PrivilegedState | None = None) -> Correction:
        """The record of a step from which nothing can succeed any more, so that there is nothing to teach."""
        return self._record(episode, t, state, Rejection.HOPELESS)

    def declined(self, episode: Episode, t: int, state: PrivilegedState | None = None) -> Correction:
        """The record of a step at which the teacher chose to say nothing."""
        known = state is not None and state.hopeless
        return self._record(episode, t, state, Rejection.HOPELESS if known else Rejection.DECLINED)

    def _record(
        self,
        episode: Episode,
        t: int,
        state: PrivilegedState | None,
        rejected: Rejection | None,
        decision: Decision = _NOTHING,
        leaked: tuple[str, ...] = (),
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
            plan_length=None if state is None or state.plan is None else len(state.plan),
        )

    async def _worse(self, episode: Episode, t: int, action: str) -> bool:
        """Whether a correction of step t leaves less in reach than what the student did there."""
        own, history, left = episode.steps[t].action, episode.history(t), episode.horizon - t
        if action == own:
            return False
        value = await roll_in(self._environment, history, action, left)
        return value < 1.0 and value < await roll_in(self._environment, history, own, left)

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

    def _tidy(self, decision: Decision, history: History) -> Decision:
        """The reason on one line, for a line break would end it; the action in its one spelling, and as
        the admissible one that it means, if it means one."""
        grammar = self._environment.grammar_of(history.task)
        reason, action = " ".join(decision.reason.split()), grammar.canonical(decision.action)
        admissible = history.now.admissible
        if admissible is not None and action not in admissible:
            meant = [choice for choice in admissible if _folded(choice) == _folded(action)]
            action = meant[0] if len(meant) == 1 else action
        return Decision(reason=reason, action=action)


def _folded(action: str) -> str:
    return " ".join(action.lower().rstrip(" .").split())
