"""What a teacher makes of a student's step."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property

from leap.core.record import Record, content_key


class Rejection(StrEnum):
    """Why a correction may not train."""

    NOT_ADMISSIBLE = "not_admissible"
    """The corrected action cannot be taken at that step."""
    EMPTY = "empty"
    """There is no action, or no reason where one is asked for."""
    LEAK = "leak"
    """The reason names what the student has not seen, and the recipe asks for such reasons to be dropped."""
    HOPELESS = "hopeless"
    """Nothing can succeed any more from this state, so no action is better than another."""
    WORSE = "worse"
    """A roll-in shows that the student's own action leaves more in reach, and the recipe asks for corrections to be verified."""
    DECLINED = "declined"
    """The teacher chose to say nothing about that step."""
    TEACHER_ERROR = "teacher_error"
    """The teacher gave no usable answer."""


class Measured(Record):
    """What came of trying the actions of a step, each in a session of its own with a roll-in behind it.

    Attributes:
        value: What is in reach after the correction's action: the mean score of its roll-ins, 0..1, less what is taken off for
            each action until then.
        gain: By how much that is more than after the student's own action; 0 where that is what was kept.
        spread: By how much the best action tried is better than the worst.
        actions: Different actions compared, the student's own among them; 0 where that could not be measured.
        executed: Actions executed in the environment for it, those that only led to the step included.
    """

    value: float
    gain: float
    spread: float
    actions: int
    executed: int


class Correction(Record):
    """For one step of one episode: what the teacher would have thought and done there (paper: r~_t, a~_t).

    Attributes:
        episode: Key of the student's episode.
        t: Index of the step in it.
        reason: Corrected reason.
        action: Corrected action.
        teacher: Name of the teacher.
        privilege: Privilege level, 0..100.
        rejected: None when kept; otherwise why it does not train.
        leaked: Entities that the reason names and the student's history does not.
        plan_length: Actions left on an optimal plan from this state; None where none is known, or nothing can succeed any
            more (which `rejected` or a replay tells).
        measured: What trying it came to, where the teacher tries things.
    """

    episode: str
    t: int
    reason: str
    action: str
    teacher: str
    privilege: int
    rejected: Rejection | None = None
    leaked: tuple[str, ...] = ()
    plan_length: int | None = None
    measured: Measured | None = None

    @property
    def kept(self) -> bool:
        """Whether the correction may train."""
        return self.rejected is None

    @cached_property
    def key(self) -> str:
        """Content key of the piece of work: which step, taught by whom, at which privilege."""
        return content_key("correction", self.episode, self.t, self.teacher, self.privilege)
