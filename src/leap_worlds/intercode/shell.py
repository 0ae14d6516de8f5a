"""Lets a person solve a task in the terminal and shows what its reward is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leap.core import Task
from leap.envs.base import Environment, Outcome, opened
from leap.errors import PrerequisiteError

_HELP = "a command, or: :reward what it would score now, :gold the answer, submit, :q to give up"
_PREFIXES = {"fs_": "intercode-bash", "dev/": "intercode-sql", "mbpp/": "intercode-python"}


@dataclass(frozen=True)
class ShellResult:
    """How it went.

    Attributes:
        outcome: What submitting gave; None for who gave up.
        actions: Actions taken, submitting included.
    """

    outcome: Outcome | None
    actions: int


def environment_of(task: str) -> str | None:
    """The environment that a task's id is of; None for an id of no InterCode environment."""
    return next((name for prefix, name in _PREFIXES.items() if task.startswith(prefix)), None)


def find_task(environment: Environment, name: str) -> Task:
    """A task by its id.

    Raises:
        PrerequisiteError: There is none of that id.
    """
    tasks = [task for split in environment.gold_splits for task in environment.tasks(split)]
    found = next((task for task in tasks if task.id == name), None)
    if found is None:
        raise PrerequisiteError(f"{environment.name} has no task {name!r}; there are {len(tasks)}, for example {tasks[0].id}.")
    return found


def shell(
    environment: Environment, task: Task, console: Console, *, ask: Callable[[str], str] | None = None
) -> ShellResult:
    """Works on one task with a person.

    Args:
        environment: One of the three; its sessions explain their reward.
        task: The task.
        console: Where to print.
        ask: Asks the person and returns the answer; the console's `input` if not given.
    """
    ask = ask or console.input
    actions, outcome = 0, None
    with opened(environment, task) as session:
        current: Any = session
        console.print(escape(task.instruction), style="bold", highlight=False)
        console.print(escape(session.observe().text), highlight=False)
        console.print(_HELP, style="dim", highlight=False)
        while outcome is None:
            try:
                line = ask("[cyan]> [/cyan]")
            except (EOFError, KeyboardInterrupt):
                console.print()
                break
            if line.strip() in (":q", ":quit"):
                break
            if line.strip() == ":gold":
                console.print(escape(session.privileged().text), style="yellow", highlight=False)
            elif line.strip() == ":reward":
                _show(console, current.explain())
            elif line.strip():
                explained = current.explain() if line.startswith("submit") else None
                done = session.act(line)
                actions += 1
                if done.done:
                    outcome = done
                    _show(console, explained or [])
                else:
                    console.print(escape(done.observation.text), highlight=False)
    verdict = "given up" if outcome is None else "[bold green]solved[/bold green]" if outcome.success else "not solved"
    score = "" if outcome is None else f", reward {outcome.reward:g}"
    console.print(f"{verdict}{score}, {actions} action{'s' * (actions != 1)}", highlight=False)
    return ShellResult(outcome, actions)


def _show(console: Console, parts: list[tuple[str, str, str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("part", "reward", "why"):
        table.add_column(column)
    for part in parts:
        table.add_row(*(escape(cell) for cell in part))
    console.print(table)
