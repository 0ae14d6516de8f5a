"""A run's solved episodes as task folders: proved like any other, and refused where that has no meaning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from leap.core import Actor, Episode, Observation, Step, StopReason
from leap.errors import PrerequisiteError, RunError
from leap.files import Journal
from leap.runs.directory import RunDirectory
from leap_worlds.tasks.env import TasksEnvironment
from leap_worlds.tasks.export import export_solved

MakeTasks = Callable[..., TasksEnvironment]


def a_run(root: Path, name: str, options: dict[str, object]) -> RunDirectory:
    run = RunDirectory(root)
    root.mkdir()
    recipe = {
        "name": "x",
        "environment": {"name": name, "options": options, "train": "train", "validation": "valid", "test": []},
        "student": {"model": "scratch"},
        "teacher": {"kind": "expert"},
    }
    run.recipe.write_text(yaml.safe_dump(recipe))
    return run


def call(name: str, **arguments: str) -> str:
    return json.dumps({"name": name, "arguments": arguments})


def test_what_was_solved_is_a_task_whose_solution_is_the_shortest_way(
    boxes_here: MakeTasks, folders: Path, tmp_path: Path
) -> None:
    environment = boxes_here()
    tasks = {task.id: task for task in environment.tasks("all")}
    run = a_run(tmp_path / "run", "tasks", {"path": str(folders), "sandbox": "namespace", "bases": {"debian:*": "machine"}})
    run.episodes(1).parent.mkdir()
    journal = Journal(run.episodes(1), Episode)
    write = call("write_file", path="greeting.txt", content="it's\nhello\n")
    look, say, submit = call("bash", command="ls"), call("bash", command="echo hello > greeting.txt"), call("submit")
    for seed, (name, actions, success) in enumerate(
        [
            ("plain-old", (look, write, say, submit), True),
            ("plain-old", (write, say, submit), True),
            ("plain-old", (submit,), False),
            ("named-rewards", (look, submit), False),
            ("three-phases", (submit, submit, submit), True),
        ]
    ):
        steps = tuple(Step(observation=Observation(text=""), reason="I do it.", action=action) for action in actions)
        journal.append(
            Episode(
                task=tasks[name],
                actor=Actor(name="student"),
                seed=seed,
                horizon=5,
                steps=steps,
                final=Observation(text=""),
                score=float(success),
                success=success,
                stop=StopReason.ENDED,
            )
        )
    assert export_solved(run, tmp_path / "out") == 1
    script = (tmp_path / "out" / "plain-old" / "solution" / "solve.sh").read_text()
    assert script.startswith("#!/bin/bash\n# I do it.\nmkdir -p") and script.endswith("# I do it.\necho hello > greeting.txt\n")
    again = boxes_here(tmp_path / "out")
    assert again.prove(again.tasks("all")[0]) == ""
    with pytest.raises(RunError, match="there already"):
        export_solved(run, tmp_path / "out")


def test_other_runs_are_refused_in_a_line(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", "alfworld", {})
    with pytest.raises(PrerequisiteError, match="a run on alfworld: only episodes on task folders can be task folders"):
        export_solved(run, tmp_path / "out")
    with pytest.raises(RunError, match="not a run directory"):
        export_solved(RunDirectory(tmp_path / "nothing"), tmp_path / "out")
