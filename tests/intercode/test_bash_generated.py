"""Generated Bash tasks: seeded, disjoint, answerable from the request; on real boxes the teacher solves them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from leap.core import Actor, Episode, History, Rejection, Step, StopReason
from leap.envs.base import opened
from leap.envs.intercode.bash.env import BashConfig, BashEnvironment
from leap.envs.intercode.bash.generated.config import BashFamilyConfig, Operation, Select
from leap.envs.intercode.bash.generated.tasks import Family
from leap.errors import LeapError
from leap.models.mock import MockModel
from leap.teachers.model import ModelTeacher

SMALL = BashFamilyConfig(file_systems={"train": 6, "valid": 3, "unseen": 3})


def test_equal_settings_give_equal_tasks_and_splits_share_no_file_system() -> None:
    one, two, other = Family(SMALL), Family(SMALL), Family(SMALL.model_copy(update={"seed": 1}))
    for split in SMALL.file_systems:
        assert one.split(split) == two.split(split) != other.split(split)
    scripts = [tree.script() for split in SMALL.file_systems for tree in one.trees(split)]
    assert len(set(scripts)) == len(scripts)


def test_every_kind_occurs_and_the_request_tells_what_the_look_needs() -> None:
    tasks = Family(SMALL).split("train")
    assert {task.request.operation for task in tasks} == set(Operation)
    assert {task.request.select for task in tasks} == {*Select, None}
    for task in tasks:
        hidden = task.request.select not in (None, Select.TOLD)
        assert (task.look is not None) == hidden
        assert not hidden or task.path not in task.query


def test_the_script_makes_the_tree(tmp_path: Path) -> None:
    tree = Family(SMALL).trees("train")[0]
    script = tree.script().replace(tree.root, f"{tmp_path}{tree.root}")
    subprocess.run(["bash", "-c", script], check=True)
    for path, lines in tree.files.items():
        assert Path(f"{tmp_path}{path}").read_text().splitlines() == list(lines)


def test_options_that_cannot_be() -> None:
    with pytest.raises(ValidationError, match="machine"):
        BashConfig(image="machine")
    with pytest.raises(ValidationError, match="folders"):
        BashFamilyConfig(folders=(1, 1))
    with pytest.raises(LeapError, match="no split"):
        BashEnvironment(BashConfig(source="generated", generator=SMALL)).tasks("test")


@pytest.fixture(scope="module")
def world() -> Iterator[BashEnvironment]:
    if "LEAP_TEST_SANDBOX" not in os.environ:
        pytest.skip("set LEAP_TEST_SANDBOX=1 to run on real boxes")
    world = BashEnvironment(BashConfig(source="generated", image="machine", generator=SMALL, time_limit=3))
    try:
        world.prepare()
    except LeapError as error:
        pytest.skip(f"no sandbox here: {error}")
    yield world
    world.close()


def test_the_teacher_solves_what_the_expert_does_not_always(world: BashEnvironment) -> None:
    solved = {"expert": 0, "teacher": 0}
    tasks = world.tasks("train", limit=24)
    for task in tasks:
        for who in solved:
            with opened(world, task) as session:
                history, expert = History(task=task, observations=(session.observe(),)), world.expert()
                for _ in range(8):
                    told = (
                        expert.decide(history) if who == "expert" else world.correct(history, session.privileged(), 50)
                    )
                    assert told is not None
                    outcome = session.act(told.action)
                    history = history.extend(told.action, outcome.observation)
                    if outcome.done:
                        solved[who] += outcome.success
                        break
    assert solved["teacher"] == len(tasks) > solved["expert"] > 0


def test_a_model_teachers_corrections_are_verified_by_roll_in(world: BashEnvironment) -> None:
    task = next(task for task in world.tasks("train") if world.request(task.id).operation is Operation.APPEND)
    steps = []
    with opened(world, task) as session:
        seen = session.observe()
        for action in ("ls /", "submit"):
            steps.append(Step(observation=seen, reason="I see.", action=action))
            outcome = session.act(action)
            seen = outcome.observation
    assert 0.0 < outcome.score < 1.0
    episode = Episode(
        task=task, actor=Actor(name="student"), horizon=8, steps=tuple(steps), final=seen, score=outcome.score, success=False,
        stop=StopReason.ENDED,
    )  # fmt: skip
    record = world.record(task)

    def corrected(first: str, second: str) -> list[Rejection | None]:
        entries = [
            {"timestep": t, "leave_as_it_is": False, "corrected_reason": "I act.", "corrected_action": action}
            for t, action in enumerate((first, second))
        ]
        answer = json.dumps({"summary": "s", "trajectory": entries})
        teacher = ModelTeacher(world, MockModel(lambda request: answer), verify=True)
        return [correction.rejected for correction in asyncio.run(teacher.correct(episode))]

    assert corrected(f"cd {world.request(task.id).root} && ls", record.gold) == [
        None,
        None,
    ]  # a trap, but one can leave it
    # At the second step the student submitted too soon, which is no better than what is lost there.
    assert corrected("rm -rf /.git", "rm -rf /.git") == [Rejection.WORSE, None]
