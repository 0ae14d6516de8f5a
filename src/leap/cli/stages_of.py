"""What the commands on run directories share: opening, tables, the report."""

from __future__ import annotations

import copy
import json
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from leap import __version__
from leap.errors import RunError, describe_validation_error
from leap.evaluation import Evaluation
from leap.loop import Result
from leap.progress import Progress
from leap.recipe import Recipe, apply_setting, dump_recipe, load_recipe
from leap.runs.preflight import Ready, check_prerequisites, is_finished
from leap.runs.stages import Stages
from leap.runs.store import RunDirectory, write_text
from leap.runs.transfer import evaluate_elsewhere

PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "textworld", "alfworld", "numpy", "matplotlib"
)

_FREE = re.compile(r"(budget|prices|teacher\.endpoint|baselines\.react\.\d+\.endpoint|training\.(sft\.)?logging)(\.|$)")
"""What may change while a run goes on: what may be spent, where a model is reached, who logs. It changes no result."""


def check(root: Path, recipe: Recipe) -> Ready:
    """Looks for all that the recipe needs, unless its run is finished.

    Raises:
        LeapError: Something is missing.
    """
    return Ready() if is_finished(recipe, RunDirectory(root)) else check_prerequisites(recipe, Progress())


@contextmanager
def opened(root: Path, recipe: Recipe, ready: Ready | None = None) -> Iterator[Stages]:
    """The stages of a recipe in its run directory, made if it is not there.

    Args:
        root: The run directory.
        recipe: The recipe.
        ready: What `check` found.

    Raises:
        RunError: The directory belongs to another recipe, is not a run directory, or is in use.
    """
    run = RunDirectory(root)
    if root.exists() and not root.is_dir():
        raise RunError(f"{root} is a file; choose another --run-dir.")
    if root.exists() and any(root.iterdir()) and not run.recipe.exists() and not (root / ".lock").exists():
        raise RunError(f"{root} is not empty and is not a run directory; choose another --run-dir.")
    with run.locked():
        text = dump_recipe(recipe)
        if run.recipe.exists():
            _check_same(run, recipe)
        write_text(run.recipe, text)
        with run.provenance.open("a", encoding="utf-8") as file:
            file.write(json.dumps(provenance()) + "\n")
        stages = Stages(recipe, run, Progress(), ready.environment if ready else None)
        try:
            if ready and ready.paid:
                stages.cast.book_checks(ready.paid)
            yield stages
        finally:
            stages.close()


@contextmanager
def reopened(root: Path, recipe: Path | None = None, overrides: list[str] | None = None) -> Iterator[Stages]:
    """The stages of an existing run directory, or of a new one if a recipe is given.

    Raises:
        RunError: There is no run directory and no recipe.
    """
    run = RunDirectory(root)
    if recipe is None and not run.recipe.exists():
        raise RunError(f"{root} is not a run directory; give --recipe to start one.")
    with opened(root, load_recipe(recipe or run.recipe, overrides)) as stages:
        yield stages


def _check_same(run: RunDirectory, recipe: Recipe) -> None:
    try:
        kept = Recipe.model_validate(yaml.safe_load(run.recipe.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        detail = describe_validation_error(error, str(run.recipe)) if isinstance(error, ValidationError) else str(error)
        raise RunError(f"{run.root} holds a recipe that this version of leap cannot read. {detail}") from error
    old, new = _flat(kept.model_dump(mode="json")), _flat(recipe.model_dump(mode="json"))
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and not _FREE.match(key))
    if not differing or (differing == ["iterations"] and recipe.iterations >= kept.iterations):
        return  # more of the same, or the same with more to spend
    if differing:
        shown = "; ".join(f"{key}: {old.get(key)!r} there, {new.get(key)!r} here" for key in differing[:4])
        raise RunError(
            f"{run.root} belongs to another recipe ({shown}{'; ...' if len(differing) > 4 else ''}). "
            "Choose another --run-dir or name, or remove that directory."
        )


def _flat(values: object, prefix: str = "") -> dict[str, object]:
    if isinstance(values, list) and any(isinstance(value, dict) for value in values):
        values = dict(enumerate(values))
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def provenance() -> dict[str, object]:
    """Versions, commit and machine: what a number needs to be told with."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "leap": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
    }


def _commit() -> str:
    """Commit of leap's own checkout, with `+` when it has uncommitted changes; empty for an installed package."""
    here = Path(__file__).parent
    try:
        git = ["git", "-C", str(here)]
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=5)
        if commit.returncode:
            return ""
        dirty = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, timeout=5)
        return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def elsewhere(stages: Stages, i: int, splits: list[str], settings: list[str], horizon: int | None) -> list[Evaluation]:
    """Evaluates pi_i in the run's environment with other options."""
    options = copy.deepcopy(stages.recipe.environment.options)
    for setting in settings:
        apply_setting(options, setting)
    return evaluate_elsewhere(stages, i, options, splits, horizon=horizon)


def print_evaluations(evaluations: Iterable[Evaluation], *, best: str | None = None) -> None:
    """A table: every number with its split, n and interval. The mean score stands in it where it says more than success;
    where scores have parts, these and what they are by as well."""
    evaluations = list(evaluations)
    graded = any(abs(evaluation.overall.score - evaluation.overall.success) > 1e-9 for evaluation in evaluations)
    in_parts = any(evaluation.overall.parts for evaluation in evaluations)
    table = Table(box=None, header_style="bold", pad_edge=False)
    scores = [*(["score"] if graded or in_parts else []), *(["made of"] if in_parts else [])]
    for column in ("policy", "split", "n", *scores, "success", "95 % interval", "actions (failure = horizon)"):
        table.add_column(column, justify="left" if column in ("policy", "split", "made of") else "right")
    for evaluation in evaluations:
        score = evaluation.overall
        made_of = "\n".join(f"{name} {100 * value:.1f}" for name, value in score.parts.items())
        name = f"{evaluation.policy} (best on validation)" if evaluation.policy == best else evaluation.policy
        table.add_row(
            name,
            evaluation.split,
            str(score.n),
            *([f"{100 * score.score:.1f} ± {100 * score.score_ci:.1f}"] if graded or in_parts else []),
            *([made_of] if in_parts else []),
            f"{score.success:.1%}",
            f"{score.low:.1%} to {score.high:.1%}",
            f"{score.actions:.1f} ± {score.actions_ci:.1f} of {evaluation.horizon}",
            style="bold" if evaluation.policy == best else "",
        )
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    if in_parts:
        for line in sorted({f"{name}: {said}" for e in evaluations for name, said in e.versions.items() if name != "leap"}):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_result(stages: Stages, result: Result) -> None:
    """The run's table."""
    everything = [*result.baselines, *(evaluation for student in result.students for evaluation in student)]
    splits = [*stages.recipe.environment.test, stages.recipe.environment.validation]
    ordered = [evaluation for split in splits for evaluation in everything if evaluation.split == split]
    print_evaluations(ordered, best=f"pi_{result.best}")


def report(stages: Stages, result: Result | None) -> None:
    """Writes the report and says where."""
    from leap.report import write_report

    page = write_report(stages.recipe, stages.run, stages.environment, costs=stages.cast.costs)
    Console().print(f"report: {page}", soft_wrap=True)
