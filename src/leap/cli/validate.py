"""`leap validate`: gold answers must succeed (invariant 8), and an environment must keep its contract."""

from __future__ import annotations

from contextlib import closing

import typer

from leap.check import check_env
from leap.core import Task
from leap.envs.base import Environment, listed, load_environment
from leap.envs.live import Live
from leap.errors import ContractError, EnvironmentFault
from leap.progress import Progress
from leap.recipe import apply_setting
from leap.sync import run_sync


def parse_options(options: list[str]) -> dict[str, object]:
    """`dotted.key=value` settings as a nested mapping; values are YAML.

    Raises:
        RecipeError: One is not of that form.
    """
    values: dict[str, object] = {}
    for option in options:
        apply_setting(values, option)
    return values


def validate_environment(name: str, splits: list[str], options: list[str], limit: int | None) -> dict[str, object]:
    """Plays the privileged plan on every task of the splits that has one, then checks the environment itself
    (`leap.check.check_env`): on a task of each split, on three where plans are missing.

    Returns:
        What was found; `ok` if every plan succeeded but those of which it is known why they cannot, nothing raised and every
        check found what it should.
    """
    played: list[dict[str, object]] = []
    failed = planless = 0
    with closing(load_environment(name, parse_options(options))) as environment:
        with Progress().stage(f"prepare {name}", notes=True) as bar:
            environment.prepare(bar.update)
        for split in splits or environment.gold_splits:
            tasks = listed(environment, split, limit=limit)
            unexplained, without_plan, told = _play_plans(environment, f"{name} {split}", tasks)
            failed, planless = failed + unexplained, planless + without_plan
            played.append({"split": split, "tasks": len(tasks), "planned": len(tasks) - without_plan, "failures": told})
        with Progress().stage(f"check {name}"):
            findings = check_env(environment, splits, tasks=3 if planless else 1)
        bad = [finding.text for finding in findings if not finding.ok]
        good = len(findings) - len(bad)
        typer.echo(f"{name}: {good} of {len(findings)} checks of the environment found what they should")
        for text in bad:
            typer.echo(f"  {text}")
        failed += len(bad)
        versions = dict(environment.versions())
        for part, version in versions.items():
            typer.echo(f"{part}: {version}")
    checks = [{"ok": finding.ok, "text": finding.text} for finding in findings]
    return {"environment": name, "ok": not failed, "splits": played, "checks": checks, "versions": versions}


def _play_plans(environment: Environment, what: str, tasks: list[Task]) -> tuple[int, int, list[dict[str, str]]]:
    """Plays the plans of a split's tasks, or has the environment prove them; returns how many failed for no known reason, how
    many tasks have none, and the failures."""
    failures: list[dict[str, str]] = []
    planned = unexplained = own = 0
    with Progress().stage(f"validate {what}") as bar:
        for done, task in enumerate(tasks, start=1):
            try:
                proved = environment.prove(task)
                own += proved is not None
                why = run_sync(play_plan(environment, task)) if proved is None else proved
            except (EnvironmentFault, ContractError) as error:
                why = str(error)
            planned += why is not None
            if why:
                known = environment.why_unsolvable(task)
                unexplained += not known
                failures.append({"task": task.id, "why": why, "known": known})
            bar.update(done, len(tasks), f"{len(failures)} failed")
    if planned:
        solves = "the solution and no less solves" if own else "the privileged plan solves"
        typer.echo(f"{what}: {solves} {planned - len(failures)} of {planned} tasks")
    if planned < len(tasks):
        typer.echo(f"{what}: {len(tasks) - planned} of {len(tasks)} tasks have no plan to play")
    for one in failures:
        known = f" ({one['known']})" if one["known"] not in one["why"] else ""
        typer.echo(f"  {one['task']}: {one['why']}{known}")
    return unexplained, len(tasks) - planned, failures


async def play_plan(environment: Environment, task: Task) -> str | None:
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
