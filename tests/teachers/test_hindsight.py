"""What a teacher in hindsight is told of an episode."""

from __future__ import annotations

import json

from leap.core import PrivilegedState, StopReason
from leap.envs.base import Environment
from leap.sync import run_sync
from leap.teachers.hindsight import account, hindsight, siblings
from leap.testing.corridor import EAST, STAY, WEST, Corridor, CorridorConfig, CorridorSession
from leap.testing.models import Scripted
from leap.testing.play import walked
from leap.testing.teachers import model_teacher

WORLD = Corridor(CorridorConfig(cliff=None))
FAILED = walked(WORLD, WORLD.task(), [EAST, STAY, WEST], horizon=3)
SOLVED = walked(WORLD, WORLD.task(), [STAY, EAST, EAST, EAST])
SHORT = walked(WORLD, WORLD.task(), [EAST, EAST, EAST])
WAY = "0. go east -> You are at place 1.\n1. go east -> You are at place 2.\n2. go east -> You are at place 3."


def test_it_is_told_how_the_episode_ended_and_how_it_went_on() -> None:
    end = "The attempt took 3 of 3 actions: no more actions were allowed, and the task was not solved. Its score is 0 of 1."
    assert hindsight(FAILED, course=False) == f"{end}\nAt its end the environment said: You are at place 0."
    course = "0. go east -> You are at place 1.\n1. stay here -> You are at place 1.\n2. go west -> You are at place 0."
    assert hindsight(FAILED, course=True) == f"{end}\nStep by step:\n{course}"
    assert hindsight(FAILED, WAY, course=False).endswith(f"\nAnother attempt at the same task solved it:\n{WAY}")
    scored = FAILED.model_copy(update={"stop": StopReason.ENDED, "score": 0.25, "parts": {"type": 1.0, "price": 0.5}})
    told = "the environment ended it, and the task was not solved. Its score is 0.25 of 1; type: 1; price: 0.5."
    assert told in hindsight(scored, course=False)


def test_what_the_environment_said_is_told_on_a_line_of_bearable_length() -> None:
    world = Corridor(CorridorConfig(note="an error\nof many words " * 100))
    lines = account(walked(world, world.task(), [EAST, EAST])).splitlines()
    assert len(lines) == 2 and all(len(line) < 650 and line.endswith("…") for line in lines)


def test_the_shortest_success_at_the_same_task_is_told() -> None:
    others = walked(WORLD, WORLD.task(number=1), [EAST] * 3)
    found = siblings([FAILED, SOLVED, others, SHORT], {FAILED.task.key, WORLD.task(number=2).key})
    assert found == {FAILED.task.key: WAY}


class Open(Corridor):
    """A corridor in which nothing is hidden, and which cannot be played again."""

    def start(self, task: object) -> CorridorSession:
        raise AssertionError("nothing is replayed")


def asked(world: Environment, by: str, privilege: int = 50) -> str:
    answer = {"leave_as_it_is": False, "corrected_reason": "so", "corrected_action": EAST}
    whole = {"trajectory": {f"timestep_{t}": answer for t in range(3)}, "summary": ""}
    model = Scripted(lambda prompt, call: json.dumps(whole if by == "trajectory" else answer))
    states = {FAILED.task.key: WAY}
    made = model_teacher(world, model, privilege, states=states, state="hindsight", by=by)
    corrections = run_sync(made.correct(FAILED))
    assert [one.action for one in corrections if one.kept] == [EAST] * 3
    return model.prompts[0]


def test_no_environment_need_be_played_again_for_it() -> None:
    world = Open(CorridorConfig(cliff=None))
    whole, first = asked(world, "trajectory"), asked(world, "step")
    assert "HIDDEN INFORMATION, as of the end, which came after all of these timesteps:\nThe attempt took 3 of 3" in whole
    assert "HIDDEN INFORMATION, of how this attempt went on and ended:\nThe attempt took 3 of 3" in first
    assert WAY in whole and WAY in first and "the lamp 7" not in whole + first
    assert "1. stay here" in first and "1. stay here" not in whole  # there the steps are shown themselves


def test_without_privilege_it_is_told_nothing() -> None:
    for by in ("trajectory", "step"):
        assert "HIDDEN INFORMATION" not in (prompt := asked(WORLD, by, privilege=0)) and WAY not in prompt


def test_prompts_of_other_states_are_as_they_were() -> None:
    from leap.teachers.prompts import TeacherPrompts

    prompts, state = TeacherPrompts(50), PrivilegedState(text="a secret")
    assert "HIDDEN INFORMATION, as of the beginning:\na secret" in prompts.trajectory(FAILED, state.text)[0]["content"]
    assert "HIDDEN INFORMATION, at the present timestep:\na secret" in prompts.step(FAILED, 1, state.text)[0]["content"]
