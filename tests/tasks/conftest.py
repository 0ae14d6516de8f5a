"""The project's own task folders, and boxes of this machine's own programs to work on them in, without a download."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leap import registry
from leap.errors import PrerequisiteError
from leap_worlds.sandbox.namespace import remedies
from leap_worlds.tasks.env import TasksConfig, TasksEnvironment

FOLDERS = Path(__file__).parent / "folders"
registry.environment("tasks")(TasksEnvironment)

MakeTasks = Callable[..., TasksEnvironment]


@pytest.fixture
def folders() -> Path:
    return FOLDERS


@pytest.fixture(scope="session")
def boxes_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeTasks]:
    """Makes environments whose boxes are of this machine's own programs."""
    if reason := remedies.barred():
        pytest.skip(reason)
    made: list[TasksEnvironment] = []
    patch = pytest.MonkeyPatch()
    patch.setenv("LEAP_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.delenv("LEAP_ROOTFS", raising=False)

    def make(path: Path = FOLDERS, **options: object) -> TasksEnvironment:
        environment = TasksEnvironment(
            TasksConfig.from_values(
                {"path": path, "sandbox": "namespace", "bases": {"debian:*": "machine"}, **options}, "tasks"
            )
        )
        made.append(environment)
        try:
            environment.images.provider  # noqa: B018 - opened
        except PrerequisiteError as error:
            pytest.skip(str(error))
        return environment

    yield make
    for environment in made:
        environment.close()
    patch.undo()


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
