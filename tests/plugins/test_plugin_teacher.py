"""A third party's teachers, each in a few lines: plain functions of what a teacher may know of a step, and a class."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest

import leap
from leap.core import Rejection
from leap.errors import LeapError
from leap.teachers.base import TeacherContext
from leap.teachers.function import teacher_class
from leap.testing.play import expert_episodes
from tiny_world import TinyWorld, TinyWorldConfig

WORLD = TinyWorld(TinyWorldConfig(tasks=6))
EPISODES = [episode for episode in expert_episodes(WORLD) if len(episode.steps) > 3]


@leap.teacher("plan-follower")
async def follow(ask: leap.Ask) -> leap.Decision | None:
    """Follows the privileged plan; says nothing where the student did so itself."""
    plan = ask.privileged.plan or ()
    return None if ask.step.action in plan[:1] else leap.Decision(reason="I go straight for it.", action=plan[0])


@leap.teacher("copycat")
def copycat(ask: leap.Ask) -> leap.Decision:
    """A plain function: repeats the student, but writes its action carelessly, and at first takes a step that is impossible."""
    return leap.Decision(reason=f"At {ask.privilege}.\nSo be it.", action=ask.step.action.upper() + "." if ask.t else "fly")


@leap.teacher("patient")
class Patient(leap.Teacher):
    """A class with an option of its own: waits out the first steps, then tries the plan in a copy of the session."""

    class Config(leap.TeacherConfig):
        wait: int = 1

    async def correct(self, episode: leap.Episode) -> list[leap.Correction]:
        async with self.context.opened(episode.task) as session:
            await session.observe()
            plan = (await session.privileged()).plan or ()
        decision = leap.Decision(reason="I tried it.", action=plan[0])
        steps = range(len(episode.steps))
        return [
            await self.verdict.correction(episode, t, decision) if t >= self.config.wait else self.verdict.declined(episode, t)
            for t in steps
        ]


def correct(name: str, episode: leap.Episode, **options: Any) -> list[leap.Correction]:
    made = teacher_class(name)
    return asyncio.run(made(made.Config(**options), TeacherContext(WORLD)).correct(episode))


def test_functions_and_classes_teach_by_their_registered_names() -> None:
    for episode in EPISODES:
        states = correct("plan-follower", episode)
        assert {one.teacher for one in states} == {"plan-follower"} and any(one.kept for one in states)
        agreed = [one.rejected is Rejection.DECLINED for one in states]
        assert agreed[-1] and not all(agreed)  # at the end the student knows where the key is
        copied = correct("copycat", episode, privilege=30)
        assert copied[0].rejected is Rejection.NOT_ADMISSIBLE and all(one.kept for one in copied[1:])
        assert [one.action for one in copied[1:]] == [step.action for step in episode.steps[1:]]  # one verdict for all
        assert copied[1].reason == "At 30. So be it."
        waited = correct("patient", episode, wait=2)
        assert [one.rejected for one in waited[:2]] == [Rejection.DECLINED] * 2 and waited[2].reason == "I tried it."


def test_a_teachers_own_error_is_shown_with_task_and_step() -> None:
    leap.teacher("broken")(lambda ask: None if ask.t < 2 else 1 / 0)
    with pytest.raises(ZeroDivisionError) as raised:
        correct("broken", EPISODES[0])
    told = "".join(traceback.format_exception(raised.value))
    assert f"task {EPISODES[0].task.id}, step 2" in told and "1 / 0" in told


@pytest.mark.parametrize("raised", [SystemExit, StopIteration])
def test_a_teacher_that_ends_a_program_or_a_loop_ends_with_an_error(raised: type[BaseException]) -> None:
    """Neither as if all were well nor never."""

    def teacher(ask: leap.Ask) -> None:
        raise raised(0)

    async def asynchronous(ask: leap.Ask) -> None:
        raise raised(0)

    for function in (teacher, asynchronous):
        leap.teacher(f"ends-{function.__name__}-{raised.__name__}")(function)
        with pytest.raises((LeapError, RuntimeError), match=r"sys.exit\(\)|StopIteration"):
            correct(f"ends-{function.__name__}-{raised.__name__}", EPISODES[0])
