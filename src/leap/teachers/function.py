"""A plain function as a teacher: it is asked about one step at a time and answers with a decision, or says nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

from leap import registry
from leap.core import Correction, Decision, Episode, History, PrivilegedState, Step
from leap.envs.live import called
from leap.errors import RecipeError
from leap.teachers.base import Teacher
from leap.teachers.config import TeacherConfig


@dataclass(frozen=True, slots=True)
class Ask:
    """What a teacher function is asked about: one step of a student's episode.

    Attributes:
        history: What the student had seen and done when it took the step.
        step: The student's own step: its reason, its action and what it saw.
        privileged: The privileged state at that moment.
        privilege: How far the privileged state may be used, 0..100.
        t: Index of the step in the episode.
        episode: The whole episode, for a teacher that looks at how it went on.
    """

    history: History
    step: Step
    privileged: PrivilegedState
    privilege: int
    t: int
    episode: Episode


TeacherFunction = Callable[[Ask], Decision | Awaitable[Decision | None] | None]
"""A teacher as a plain function, be it `async def` or not; None says that there is nothing to teach at the step."""


class FunctionTeacher(Teacher[TeacherConfig]):
    """A teacher made of a plain function.

    Steps of an episode are asked for in order, several episodes at once; a function that is not `async def` runs in a thread, so
    that one that waits for a server holds nobody up. What the function raises ends the run and is shown as its own error.
    """

    concurrency = 16
    function: ClassVar[TeacherFunction]

    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step, as the function decides it."""
        corrections = []
        for t, state in enumerate(await self.states(episode)):
            ask = Ask(episode.history(t), episode.steps[t], state, self.privilege, t, episode)
            try:
                decision = await called(self.function, ask, blocking=True)
            except (Exception, SystemExit) as error:
                error.add_note(f"(raised by teacher {self.name!r}, task {episode.task.id}, step {t})")
                if isinstance(error, SystemExit):  # it would end the process as if all were well
                    raise RecipeError(f"teacher {self.name!r} calls sys.exit(), task {episode.task.id}, step {t}.") from error
                raise
            if not isinstance(decision, Decision | None):
                raise RecipeError(f"teacher {self.name!r} must return a Decision or None, not {type(decision).__name__}.")
            corrections.append(await self.verdict.correction(episode, t, decision, state))
        return corrections


def teacher_class(teacher: str | type[Teacher[TeacherConfig]] | TeacherFunction) -> type[Teacher[TeacherConfig]]:
    """The class of a teacher, given by its registered name, as a class or as a plain function.

    Raises:
        RecipeError: There is no teacher of that name, or what is given is none.
        PrerequisiteError: It cannot be imported.
    """
    name, thing = (teacher, registry.teacher.get(teacher)) if isinstance(teacher, str) else (None, teacher)
    if isinstance(thing, type) and issubclass(thing, Teacher):
        return thing
    if isinstance(thing, type) or not callable(thing):
        raise RecipeError(f"{thing!r} is no teacher: give a subclass of leap.Teacher or a function of an Ask.")
    name = name or getattr(thing, "__name__", "function").strip("<>")
    return type(name, (FunctionTeacher,), {"name": name, "function": staticmethod(thing), "__module__": thing.__module__})
