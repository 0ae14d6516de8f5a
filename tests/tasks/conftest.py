"""The project's own task folders, and boxes of this machine's own programs to work on them in, without a download."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_tasks import FOLDERS, make_tasks

from leap import registry
from leap_worlds.tasks.env import TasksEnvironment

registry.environment("tasks")(TasksEnvironment)

MakeTasks = Callable[..., TasksEnvironment]


@pytest.fixture
def folders() -> Path:
    return FOLDERS


@pytest.fixture(scope="session")
def boxes_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeTasks]:
    """Makes environments whose boxes are of this machine's own programs."""
    made: list[TasksEnvironment] = []
    cache = tmp_path_factory.mktemp("cache")

    def make(path: Path = FOLDERS, **options: object) -> TasksEnvironment:
        made.append(make_tasks(cache, path, **options))
        return made[-1]

    yield make
    for environment in made:
        environment.close()


@pytest.fixture
def one_task(tmp_path: Path) -> Callable[..., Path]:
    """Writes a task folder: its files by path, the test's script, and what is in its task.toml."""

    def write(test: str, toml: str = "", *, name: str = "task", solution: str = "true", **files: str) -> Path:
        contents = {
            "task.toml": toml or 'schema_version = "1.4"\n',
            "instruction.md": "Do it.\n",
            "environment/Dockerfile": "FROM debian:bookworm-slim\nWORKDIR /app\n",
            "tests/test.sh": f"#!/bin/bash\n{test}\n",
            "solution/solve.sh": f"#!/bin/bash\n{solution}\n",
            **files,
        }
        for place, text in contents.items():
            path = tmp_path / name / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / name

    return write
