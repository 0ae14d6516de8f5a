"""A small generated shop for the tests, in a cache of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from leap.core import Task
from leap.envs.base import load_environment
from leap_worlds.webshop.env import WebshopEnvironment

GENERATOR: dict[str, Any] = {
    "seed": 3, "products": 1700, "goals": 1600, "kinds": 12, "people_words": 0.4, "asked_attributes": [1, 2],
}  # fmt: skip


@cache
def generated(folder: Path, **options: Any) -> WebshopEnvironment:
    """The shop; the folder is leap's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAP_CACHE", str(folder))
        environment = load_environment("webshop", {"generator": GENERATOR, "patience": 10} | options)
        environment.prepare()
    assert isinstance(environment, WebshopEnvironment)
    return environment


def some_tasks(environment: WebshopEnvironment, number: int) -> list[Task]:
    """Training tasks."""
    return environment.tasks("train", limit=number, seed=1)
