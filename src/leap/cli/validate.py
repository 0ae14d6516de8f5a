"""`leap validate`: gold answers must succeed (invariant 8)."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

import typer

from leap.core import Task
from leap.envs.base import Environment, load_environment, opened
from leap.progress import Progress
from leap.recipe import apply_setting


def parse_options(options: list[str]) -> dict[str, Any]:
    """`dotted.key=value` settings as a nested mapping; values are YAML.

    Raises:
        RecipeError: One is not of that form.
    """
    values: dict[str, Any] = {}
    for option in options:
        apply_setting(values, option)
    return values


def validate_environment(name: str, splits: list[str], options: list[str], limit: int | None) -> int:
    """Plays the privileged plan on every task of the splits.

    Returns:
        Exit status: 0 if every task was solved but those of which it is known why they cannot, 1 otherwise.
    """
    environment = load_environment(name, parse_options(options))
    with closing(environment):
        return _validate(environment, name, splits, limit)


def _validate(environment: Environment, name: str, splits: list[str], limit: int | None) -> int:
    environment.prepare()
    progress = Progress()
    failed = 0
    for split in splits or environment.gold_splits:
        tasks = environment.tasks(split, limit=limit)
        failures: list[tuple[Task, str, bool]] = []
        with progress.stage(f"validate {name} {split}") as bar:
            for done, task in enumerate(tasks, start=1):
                why = _play_plan(environment, task)
                if why:
                    known = environment.why_unsolvable(task)
                    failures.append((task, f"{why} ({known})" if known not in why else why, bool(known)))
                bar.update(done, len(tasks), f"{len(failures)} failed")
        typer.echo(f"{name} {split}: the privileged plan solves {len(tasks) - len(failures)} of {len(tasks)} tasks")
        for task, why, _ in failures:
            print(f"  {task.id}: {why}", file=sys.stdout)
        failed += sum(not known for _, _, known in failures)
    for part, version in environment.versions().items():
        typer.echo(f"{part}: {version}")
    return 1 if failed else 0


def _play_plan(environment: Environment, task: Task) -> str:
    """Empty if the plan succeeds at its last action and no earlier; otherwise what went wrong."""
    with opened(environment, task) as session:
        session.observe()
        state = session.privileged()
        plan = state.plan
        if plan is None:
            return "no plan: the task cannot be done"
        outcome = None
        for action in plan:
            outcome = session.act(action)
        if outcome is None or not outcome.success:
            why = state.facts.get("missing") or (f"score {outcome.score:.2f}" if outcome else "")
            return f"its plan of {len(plan)} actions does not succeed{f' ({why})' if why else ''}"
    return ""
