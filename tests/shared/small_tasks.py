"""The project's own task folders, in boxes of this machine's own programs: seconds, and no download."""

from __future__ import annotations

from pathlib import Path

import pytest

from leap.errors import PrerequisiteError
from leap_worlds.tasks.env import TasksConfig, TasksEnvironment

FOLDERS = Path(__file__).parents[1] / "tasks" / "folders"


def make_tasks(cache: Path, path: Path = FOLDERS, **options: object) -> TasksEnvironment:
    """Task folders, with their images in a folder, if namespaces work here."""
    values = {"path": path, "sandbox": "namespace", "bases": {"debian:*": "machine"}, **options}
    environment = TasksEnvironment(TasksConfig.from_values(values, "tasks"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAP_CACHE", str(cache))
        patch.delenv("LEAP_ROOTFS", raising=False)
        try:
            environment.prepare()
        except PrerequisiteError as error:
            pytest.skip(str(error))
    return environment
