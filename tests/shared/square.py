"""InterCode Python's task to square a number, for students that cheat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from leap_worlds.intercode.base import Boxes
from leap_worlds.intercode.data import PythonRecord
from leap_worlds.intercode.python.env import PythonConfig, PythonEnvironment, PythonSession


@contextmanager
def squaring(make: Callable[[Any], Any], where: str, *, time_limit: float) -> Iterator[PythonSession]:
    """A session of the task, whose interpreters are in boxes that `make` makes."""
    environment = PythonEnvironment(PythonConfig(time_limit=time_limit))
    environment.boxes = Boxes(make, where)
    tests = ["assert f(2) == 4", "assert f(3) == 9", "assert f(-4) == 16"]
    record = PythonRecord(task_id=1, query="Square a number.", gold="def f(x):\n    return x*x", tests=tests)
    session = PythonSession(environment, record)
    yield session
    session.close()
    environment.close()
