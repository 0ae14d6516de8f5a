"""`leap validate`: gold answers must succeed (invariant 8), and an environment without them must keep its contract."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

import typer

from leap.check import check_env
from leap.core import Task
from leap.envs.base import Environment, listed, load_environment
from leap.envs.live import Live
from leap.errors import ContractError, EnvironmentFault
from leap.progress import Progress
from leap.recipe import apply_setting
from leap.sync import run_sync


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
    """Plays the privileged plan on every task of the splits that has one. Where there is a split without any, checks the
    environment itself (`leap.check.check_env`).

    Returns:
        Exit status: 0 if every plan succeeded but those of which it is known why they cannot, nothing raised and every check
        found what it should; 1 otherwise.
    """
    environment = load_environment(name, parse_options(options))
    with closing(environment):
        return _validate(environment, name, splits, limit)


def _validate(environment: Environment, name: str, splits: list[str], limit: int | None) -> int:
    environment.prepare()
    progress = Progress()
    failed, planless = 0, []
    for split in splits or environment.gold_splits:
        tasks = listed(environment, split, limit=limit)
        failures: list[tuple[Task, str, bool]] = []
        planned = 0
        with progress.stage(f"validate {name} {split}") as bar:
            for done, task in enumerate(tasks, start=1):
                try:
                    why = run_sync(_play_plan(environment, task))
                except (EnvironmentFault, ContractError) as error:
                    why = str(error)
                planned += why is not None
                if why:
                    known = environment.why_unsolvable(task)
                    failures.append((task, f"{why} ({known})" if known not in why else why, bool(known)))
                bar.update(done, len(tasks), f"{len(failures)} failed")
        if planned:
            typer.echo(f"{name} {split}: the privileged plan solves {planned - len(failures)} of {planned} tasks")
        if planned < len(tasks):
            planless.append(split)
            typer.echo(f"{name} {split}: {len(tasks) - planned} of {len(tasks)} tasks have no plan to play")
        for task, why, _ in failures:
            print(f"  {task.id}: {why}", file=sys.stdout)
        failed += sum(not known for _, _, known in failures)
    if planless:
        findings = check_env(environment, planless)
        bad = [finding.text for finding in findings if not finding.ok]
        typer.echo(f"{name}: {len(findings) - len(bad)} of {len(findings)} checks of the environment found what they should")
        for text in bad:
            print(f"  {text}", file=sys.stdout)
        failed += len(bad)
    for part, version in environment.versions().items():
        typer.echo(f"{part}: {version}")
    return 1 if failed else 0


async def _play_plan(environment: Environment, task: Task) -> str | None:
    """What went wrong when the plan was played; empty where it succeeded, None where no plan is known."""
    async with Live(environment, task) as session:
        await session.observe()
        state = await session.privileged()
        if state.hopeless:
            return "no plan: the task cannot be done"
        if state.plan is None:
            return None
        outcome = None
        for action in state.plan:
            outcome = await session.act(action)
        if outcome is None or not outcome.success:
            why = state.facts.get("missing") or (f"score {outcome.score:.2f}" if outcome else "")
            return f"its plan of {len(state.plan)} actions does not succeed{f' ({why})' if why else ''}"
    return ""
