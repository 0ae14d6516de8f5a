"""Writes the report: `index.html`, which needs no network and no other file, and `report.json`."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jinja2 import Environment as Jinja
from jinja2 import FileSystemLoader, StrictUndefined
from markupsafe import Markup

from leap.core import Rejection
from leap.envs.base import Environment, load_environment
from leap.evaluation import Score
from leap.files import write_text
from leap.recipe import Recipe
from leap.report import charts, words
from leap.report.collect import Costs, collect
from leap.report.model import Report, StageTime
from leap.report.sections import render_sections
from leap.report.trajectories import embed
from leap.runs.directory import RunDirectory
from leap.stats import wilson

PER_GROUP = 40
BUDGET = 5_000_000
_HERE = Path(__file__).parent
_STAGES = ("rollout", "correct", "train", "evaluate")
_CAUSES = {
    Rejection.NOT_ADMISSIBLE: "action not admissible there",
    Rejection.EMPTY: "no action or no reason",
    Rejection.LEAK: "names what the student has not seen",
    Rejection.HOPELESS: "nothing can succeed any more",
    Rejection.WORSE: "worse than the student's own by a roll-in",
    Rejection.DECLINED: "the teacher said nothing",
    Rejection.TEACHER_ERROR: "no usable answer",
}


def write_report(
    recipe: Recipe,
    run: RunDirectory,
    environment: Environment | None = None,
    *,
    out: Path | None = None,
    per_group: int = PER_GROUP,
    budget: int = BUDGET,
    costs: Costs | None = None,
) -> Path:
    """Writes the report of a run, finished or not. The same files give the same report, byte for byte.

    Args:
        recipe: The run's recipe.
        run: The run directory.
        environment: Where shown training episodes are replayed to tell their privileged states; the recipe's own, made
            ready only if there are such episodes, if None.
        out: Folder of the page; the run's own by default.
        per_group: Trajectories shown of each iteration, and of the test episodes in all.
        budget: Bytes of trajectories, roughly; the page is a little larger.
        costs: Sums of the ledger, asked only if the run has one; by default read from it.

    Returns:
        The page.

    Raises:
        RunError: A file of the run is damaged, or cannot be written.
    """
    report, groups = collect(recipe, run, per_group=per_group, costs=costs)
    with ExitStack() as stack:
        data, keys, notes = embed(groups, lambda: environment or _prepared(recipe, stack), budget=budget)
    shown = [one.model_copy(update={"keys": mine}) for one, mine in zip(report.shown, keys, strict=True)]
    report = report.model_copy(update={"shown": shown, "notes": [*report.notes, *notes]})
    folder = out or run.report
    page = folder / "index.html"
    write_text(folder / "report.json", report.model_dump_json(indent=2) + "\n")
    write_text(page, render(report, data))
    return page


def _prepared(recipe: Recipe, stack: ExitStack) -> Environment:
    """Returns the recipe's environment with its data made ready, closed with the stack."""
    environment = load_environment(recipe.environment.name, recipe.environment.options)
    stack.callback(environment.close)
    environment.prepare()
    return environment


def render(report: Report, data: dict[str, Any]) -> str:
    """Returns the page as text. Nothing of a model, a dataset or a recipe gets into it unescaped."""
    jinja = Jinja(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters |= {
        "pi": words.pi,
        "interval": words.interval,
        "duration": words.duration,
        "count": words.count,
        "kind": words.kind_label,
        "digits": words.digits,
        "signed": words.signed,
        "usd": words.usd,
        "policy": words.policy,
        "plain": _plain,
        "tint": _tint,
    }
    style, script = (Markup(_HERE.joinpath(name).read_text(encoding="utf-8")) for name in ("report.css", "report.js"))
    template = jinja.get_template("template.html.j2")
    return template.render(
        report=report,
        setup=report.setup,
        best=report.policy(f"pi_{report.best}") if report.best is not None else None,
        charts=charts,
        sections=render_sections(report, jinja),
        success=charts.success(),
        actions=charts.actions(report.setup.evaluation_horizon),
        percent=words.percent,
        wilson=wilson,
        causes={cause.value: text for cause, text in _CAUSES.items()},
        times=_times(report.stages),
        starts=[_flat(entry) for entry in report.provenance],
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=embedded(data),
    )


def embedded(data: Any) -> Markup:
    """JSON that is safe inside a script element: no character in it can end the element or open another."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _tint(score: Score) -> int:
    """0..10, how strongly a table's cell is coloured."""
    return round(10 * score.success)


def _plain(value: Any) -> str:
    """Returns a figure of unknown kind, for people."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace(",", words.THIN)
    return str(value)


def _flat(entry: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns a nested mapping as dotted keys and texts."""
    rows: list[tuple[str, str]] = []
    for key, value in entry.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return rows


def _times(stages: Iterable[StageTime]) -> dict[str, Any]:
    """Seconds and tokens by iteration and stage, with totals."""
    stages = list(stages)
    present = {stage.stage for stage in stages}
    columns = [name for name in _STAGES if name in present] + sorted(present.difference(_STAGES))
    cells: dict[tuple[int | None, str | None], dict[str, float]] = defaultdict(lambda: {"seconds": 0.0, "tokens": 0.0})
    for stage in stages:
        tokens = stage.figures.get("tokens", 0)
        for row in (stage.iteration, None):
            for column in (stage.stage, None):
                cells[row, column]["seconds"] += stage.seconds
                cells[row, column]["tokens"] += tokens if isinstance(tokens, int | float) else 0
    rows = sorted({stage.iteration for stage in stages})
    css = {column: f"s-{column}" if column in _STAGES else "s-other" for column in columns}
    return {
        "rows": rows,
        "columns": columns,
        "css": css,
        "bars": {
            row: [(css[column], cells[row, column]["seconds"]) for column in columns if (row, column) in cells]
            for row in rows
        },
        "longest": max((cells[row, None]["seconds"] for row in rows), default=0.0),
        "cells": dict(cells),
    }
