"""`leap shell`: a person solves an InterCode task."""

from __future__ import annotations

from contextlib import closing

from rich.console import Console

from leap.cli.validate import parse_options
from leap.envs.base import load_environment
from leap.errors import RecipeError


def open_shell(task: str, environment: str | None, options: list[str]) -> None:
    """Lets a person solve a task."""
    from leap_worlds.intercode.shell import environment_of, find_task, shell

    name = environment or environment_of(task)
    if name is None or not name.startswith("intercode-"):
        raise RecipeError(f"{task!r} is no InterCode task; their ids look like fs_1/0 (Bash), dev/0 (SQL), mbpp/1 (Python).")
    with closing(load_environment(name, parse_options(options))) as world:
        found = find_task(world, task)
        world.prepare()
        shell(world, found, Console())
