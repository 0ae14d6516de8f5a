"""Which corrections may train (invariant 3): one set of rules for every teacher."""

from __future__ import annotations

from dataclasses import dataclass

from leap.core import Correction, Decision, Episode, History, PrivilegedState, Rejection
from leap.envs.answer import folded
from leap.envs.base import Environment
from leap.envs.tutor import roll_in


@dataclass(frozen=True, slots=True)
class Verdict:
    """Makes a teacher's corrections: of what it decided, or of its silence.

    Attributes:
        environment: Says which actions are valid, how they are written and what an entity is.
        name: Name of the teacher, for the record.
        privilege: Privilege level of the teacher, 0..100.
        drop_leaks: Reject corrections whose reason names what the student has not seen.
        verify: Reject corrections after which, by a roll-in, less is in reach than after the student's own action.
    """

    environment: Environment
    name: str
    privilege: int
    drop_leaks: bool = False
    verify: bool = False

    async def correction(
        self,
        episode: Episode,
        t: int,
        decision: Decision | None,
        state: PrivilegedState | None = None,
        *,
        otherwise: Rejection = Rejection.DECLINED,
    ) -> Correction:
        """Judges what a teacher would have thought and done at step t of the student's episode; where there is no decision,
        `otherwise` says why.

        The texts are those of the teacher but for spacing, and for the case and the full stop of an action that is
        admissible otherwise. The privileged state there, where it is known, tells the length of the plan.
        """
        if decision is None:
            return self.declined(episode, t, state, otherwise)
        history = episode.history(t)
        decision = self._tidy(decision, history)
        leaked = leaked_entities(self.environment, decision.reason, history)
        rejected = self._rejection(decision, history, leaked)
        if rejected is None and self.verify and await self._worse(episode, t, decision.action):
            rejected = Rejection.WORSE
        return self._record(episode, t, state, rejected, decision, leaked)

    def declined(
        self, episode: Episode, t: int, state: PrivilegedState | None = None, why: Rejection = Rejection.DECLINED
    ) -> Correction:
        """The record of a step for which there is no decision: the teacher chose to say nothing, or as `why` tells."""
        if why is Rejection.DECLINED and state is not None and state.hopeless:
            why = Rejection.HOPELESS
        return self._record(episode, t, state, why, Decision(reason="", action=""), ())

    def _record(
        self,
        episode: Episode,
        t: int,
        state: PrivilegedState | None,
        rejected: Rejection | None,
        decision: Decision,
        leaked: tuple[str, ...],
    ) -> Correction:
        return Correction(
            episode=episode.key,
            t=t,
            reason=decision.reason,
            action=decision.action,
            teacher=self.name,
            privilege=self.privilege,
            rejected=rejected,
            leaked=leaked,
            plan_length=None if state is None or state.plan is None else len(state.plan),
        )

    async def _worse(self, episode: Episode, t: int, action: str) -> bool:
        """Whether a correction of step t leaves less in reach than what the student did there."""
        own, history, left = episode.steps[t].action, episode.history(t), episode.horizon - t
        if action == own:
            return False
        value = await roll_in(self.environment, history, action, left)
        return value < 1.0 and value < await roll_in(self.environment, history, own, left)

    def _rejection(self, decision: Decision, history: History, leaked: tuple[str, ...]) -> Rejection | None:
        if not decision.action or not decision.reason:
            return Rejection.EMPTY
        environment, now = self.environment.of(history.task), history.now
        # What does not read back: a student that gave this answer would be understood to do something else.
        if not environment.valid(decision.action, now) or not environment.grammar.reads_back(decision, now):
            return Rejection.NOT_ADMISSIBLE
        return Rejection.LEAK if leaked and self.drop_leaks else None

    def _tidy(self, decision: Decision, history: History) -> Decision:
        """The reason on one line, for a line break would end it; the action in its one spelling, and as
        the admissible one that it means, if it means one."""
        grammar, admissible = self.environment.grammar_of(history.task), history.now.admissible
        reason, action = " ".join(decision.reason.split()), grammar.canonical(decision.action)
        if admissible is not None and action not in admissible:
            meant = [choice for choice in admissible if folded(choice) == folded(action)]
            action = meant[0] if len(meant) == 1 else action
        return Decision(reason=reason, action=action)


def leaked_entities(environment: Environment, reason: str, history: History) -> tuple[str, ...]:
    """Entities that a teacher's reason names and that appear nowhere in the student's history, so that it could not have known
    them; sorted."""
    named_in = environment.of(history.task).entities
    leaked = named_in(reason)
    if leaked:
        shown = (observation.text for observation in history.observations)
        for text in (history.task.instruction, *shown, *history.actions, *(history.now.admissible or ())):
            leaked = leaked - named_in(text)
    return tuple(sorted(leaked))
