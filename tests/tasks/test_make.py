"""Made tasks: the same bytes by the same settings, solved by their solution and by nothing less, no file system in two splits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from leap.errors import PrerequisiteError, RecipeError
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig, Operation
from leap_worlds.tasks.env import TasksConfig, TasksEnvironment
from leap_worlds.tasks.make import make_tasks

MakeTasks = Callable[..., TasksEnvironment]
SMALL = {"file_systems": {"train": 2, "unseen": 1}, "tasks": 12}


def small(**more: object) -> BashFamilyConfig:
    return BashFamilyConfig.from_values({**SMALL, **more}, "test")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_equal_settings_make_equal_bytes_and_another_seed_others(tmp_path: Path) -> None:
    assert make_tasks(small(), tmp_path / "a") == make_tasks(small(), tmp_path / "b") == {"train": 24, "unseen": 12}
    make_tasks(small(seed=1), tmp_path / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")


def test_tasks_that_are_there_stay_and_no_others_take_their_place(tmp_path: Path) -> None:
    make_tasks(small(), tmp_path / "a")
    written = (tmp_path / "a" / "made.json").stat().st_mtime_ns
    make_tasks(small(), tmp_path / "a")
    assert (tmp_path / "a" / "made.json").stat().st_mtime_ns == written
    with pytest.raises(PrerequisiteError, match="not made by these settings; choose another folder"):
        make_tasks(small(seed=1), tmp_path / "a")


def test_no_file_system_is_in_two_splits(tmp_path: Path) -> None:
    make_tasks(small(), tmp_path / "a")
    boxes = {
        split: {path.read_text() for path in (tmp_path / "a" / split).glob("*/environment/Dockerfile")}
        for split in ("train", "unseen")
    }
    assert len(boxes["train"]) == 2 and len(boxes["unseen"]) == 1 and not boxes["train"] & boxes["unseen"]


def test_every_operation_is_solved_by_its_solution_and_not_by_nothing(boxes_here: MakeTasks, tmp_path: Path) -> None:
    for operation in Operation:  # those about no single file need no way of naming one
        config = small(file_systems={"train": 1}, tasks=1, operations=[operation])
        make_tasks(config, tmp_path / "made" / operation)
    environment = boxes_here(tmp_path / "made")
    tasks = environment.tasks("all")
    assert len(tasks) == len(Operation)
    with ThreadPoolExecutor(16) as pool:
        assert {task.id: why for task, why in zip(tasks, pool.map(environment.prove, tasks), strict=True) if why} == {}


def test_made_tasks_are_divided_as_they_were_made(boxes_here: MakeTasks) -> None:
    environment = boxes_here(generator=small(), split={"by": "folder"})
    assert [len(environment.tasks(split)) for split in ("train", "unseen", "all")] == [24, 12, 36]
    assert environment.test_splits >= {"unseen", "all"}
    names = set(environment.names())
    unseen = " ".join(task.instruction for task in environment.tasks("unseen"))
    assert names and "unseen" not in "".join(names) and not names <= set(unseen.split())
    with pytest.raises(RecipeError, match="no file system is in two splits"):
        TasksConfig.from_values({"generator": small()}, "tasks")
