"""The scripted teacher at a student's own states: what passes the tests from there, tried before it is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from leap.core import Actor, Episode, History, Observation, Step, StopReason, Task
from leap.envs.tutor import Taught
from leap_worlds.tasks.env import TasksEnvironment
from leap_worlds.tasks.tutor import action_of, only_reads

MakeTasks = Callable[..., TasksEnvironment]
Write = Callable[..., Path]
LOOK, ACT, SUBMIT = "find /depot -name a.txt", "mv /depot/x/a.txt /depot/y", "submit"
TEST = """
asked=1 rest=1
[ -e /depot/y/a.txt ] && [ ! -e /depot/x/a.txt ] || asked=0
[ -e /depot/x/b.txt ] || rest=0
[ $asked = 1 ] || echo "FAILED moved"
[ $rest = 1 ] || echo "FAILED untouched"
echo "{\\"asked\\": $asked, \\"rest\\": $rest, \\"reward\\": $((asked * rest))}" > /logs/verifier/reward.json
"""


@pytest.fixture
def world(boxes_here: MakeTasks, one_task: Write) -> TasksEnvironment:
    path = one_task(
        TEST,
        solution=f"# look where it is\n{LOOK}\n# move it\n{ACT}",
        **{
            "instruction.md": "Move a.txt, wherever it is in /depot, to /depot/y.\n",
            "environment/Dockerfile": "FROM debian:13\nRUN mkdir -p /depot/x /depot/y && touch /depot/x/a.txt /depot/x/b.txt\n",
        },
    )
    return boxes_here(path, actions="text", checks="never")


def taught(world: TasksEnvironment, *actions: str, privilege: int = 50) -> list[Taught]:
    """What is said along an episode of these actions, with what a terminal shows."""
    (task,) = world.tasks("all")
    session = world.start(task)
    shown, steps = session.observe(), []
    assert isinstance(shown, Observation)
    for action in actions:
        outcome = session.act(action)
        steps.append(Step(observation=shown, reason="mine", action=action))
        shown = outcome.observation  # pyright: ignore[reportAttributeAccessIssue]
    session.close()
    episode = Episode(
        task=task,
        actor=Actor(name="test"),
        horizon=9,
        steps=tuple(steps),
        final=shown,
        stop=StopReason.HORIZON,
        score=0,
        success=False,
    )
    return asyncio.run(world.tutor.correct_along(episode, privilege))


def actions(told: list[Taught]) -> list[str | None]:
    return [each.decision.action if each.decision else None for each in told]


def test_on_the_solution_s_way_the_next_command_is_said_with_its_comment(world: TasksEnvironment) -> None:
    told = taught(world, LOOK, ACT, SUBMIT)
    assert actions(told) == [LOOK, ACT, SUBMIT]
    reasons = [each.decision.reason for each in told if each.decision]
    assert reasons == ["Next I look where it is.", "Next I move it.", "All that the task asks for is done, so I hand it in."]
    assert [each.privileged.plan for each in told] == [(LOOK, ACT, SUBMIT), (ACT, SUBMIT), (SUBMIT,)]


def test_what_is_done_in_another_way_is_not_done_again(world: TasksEnvironment) -> None:
    own = "mv /depot/x/a.txt /depot/y/a.txt"
    assert actions(taught(world, LOOK, own, "ls /")) == [LOOK, own, SUBMIT]


def test_a_lucky_guess_is_no_lesson_and_what_lost_the_task_is_corrected(world: TasksEnvironment) -> None:
    assert actions(taught(world, ACT, "ls /")) == [LOOK, SUBMIT]  # /depot/x/a.txt was not told, nor seen
    told = taught(world, LOOK, "rm /depot/x/*.txt", "ls /")
    assert actions(told) == [LOOK, ACT, None]
    assert [each.privileged.hopeless for each in told] == [False, False, True]


def test_where_all_is_lost_what_passes_more_tests_is_said(world: TasksEnvironment) -> None:
    told = taught(world, "rm /depot/x/b.txt", SUBMIT)
    assert actions(told) == [LOOK, LOOK] and told[1].privileged.hopeless  # it is moved then, though b.txt is gone
    assert actions(taught(world, "rm /depot/x/b.txt", ACT, SUBMIT)) == [LOOK, None, None]  # as many as by the student itself


@pytest.mark.parametrize(
    ("command", "reads"),
    [
        ("ls -S /depot | head -n 1", True),
        ("grep -l 'a b' /depot/*/*", True),
        ("find / -name a.txt", True),
        ("find / -name a.txt -delete", False),
        ("find / -fprint /x", False),
        ("cat a > b", False),
        ("cat a; rm a", False),
        ("ls $(touch x)", False),
        ("ls | tee x", False),
        ("ls\nrm x", False),
        ("lsof", False),
    ],
)
def test_only_what_plainly_reads_is_left_out_of_what_is_tried(command: str, reads: bool) -> None:
    assert only_reads(command, "text") == only_reads(action_of(command, "tools"), "tools") == reads


def test_without_privilege_nothing_is_said(world: TasksEnvironment) -> None:
    assert actions(taught(world, LOOK, privilege=0)) == [None]


def test_a_roll_in_is_worth_what_is_in_reach_in_the_time_left(world: TasksEnvironment) -> None:
    (task,) = world.tasks("all")
    start = History(task=task, observations=(Observation(text=""),))

    def worth(action: str, left: int, history: History = start) -> float:
        return asyncio.run(world.tutor.roll_in(history, action, left))

    assert worth(LOOK, 3) == 1.0 and worth(ACT, 2) == 1.0
    assert worth(LOOK, 2) < 1.0 and worth(ACT, 1) == 0.0
    assert worth("rm /depot/x/b.txt", 9) == pytest.approx(1 / 3)
    assert worth(SUBMIT, 1) == pytest.approx(1 / 3) and worth("rm -r /depot", 9) == 0.0


def test_a_check_more_that_passes_counts_where_there_is_one_reward(boxes_here: MakeTasks, one_task: Write) -> None:
    test = "for x in x y; do [ -e /$x ] || echo FAILED $x; done; [ -e /x -a -e /y ]; echo $((1 - $?)) > /logs/verifier/reward.txt"
    environment = boxes_here(one_task(test, solution="touch /x\ntouch /y"), actions="text", checks="never")
    (task,) = environment.tasks("all")
    assert isinstance(task, Task)
    reached = [environment.reached(task.id, taken) for taken in [(), ("touch /x",), ("touch /x /y",)]]
    assert reached == [(0.0, -2), (0.0, -1), (1.0, 0)]
