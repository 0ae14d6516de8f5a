"""What a teacher makes of a student's step."""

from __future__ import annotations

from collections.abc import Iterable
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


class Tried(Record):
    """What trying came to, over several corrections.

    Attributes:
        compared: Steps at which actions could be compared.
        effects: Those of them at which one was better than another.
        executed: Actions executed in the environment.
        kept: Corrections that may train.
        gain: What these gain together.
    """

    compared: int = 0
    effects: int = 0
    executed: int = 0
    kept: int = 0
    gain: float = 0.0

    @classmethod
    def over(cls, corrections: Iterable[Correction]) -> Tried | None:
        """Sums up corrections; None where nothing was tried for any of them."""
        total = dict.fromkeys(cls.model_fields, 0.0)
        for one in corrections:
            if (measured := one.measured) is not None:
                total["compared"] += measured.actions > 0
                total["effects"] += measured.spread > 0
                total["executed"] += measured.executed
                total["kept"] += one.kept
                total["gain"] += measured.gain * one.kept
        return cls.model_validate(total) if total["executed"] else None

    def __str__(self) -> str:
        share = f"{self.effects / self.compared:.1%}" if self.compared else "none"
        told = f"{share} of {self.compared} steps tried have an effect"
        if not self.kept:
            return f"{told}, {self.executed} actions executed"
        gain, executed = self.gain / self.kept, self.executed / self.kept
        return f"{told}; a correction gains {gain:.2f} and takes {executed:.1f} actions executed"
