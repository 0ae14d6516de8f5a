"""Writes the report: `index.html`, which needs no network and no other file, and `report.json`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment as Jinja
from jinja2 import FileSystemLoader, StrictUndefined
from markupsafe import Markup

from leap.core.message import sendable
from leap.envs.base import Environment, load_environment
from leap.errors import LeapError, RunError
from leap.files import write_text
from leap.models.calls import OUTCOMES
from leap.recipe import Recipe
from leap.report import charts, words
from leap.report.calls import CallShown, calls_shown
from leap.report.collect import collect
from leap.report.index import CIRCLES
from leap.report.model import Report, StageTime
from leap.report.sections import render_sections
from leap.report.trajectories import embed
from leap.runs.directory import RunDirectory
from leap.stats import wilson

PER_GROUP = 40
"""Trajectories shown of each iteration, and of the test episodes in all."""
BUDGET = 5_000_000
"""Bytes of trajectories, roughly; the page is a little larger."""
_HERE = Path(__file__).parent
_HALVES = re.compile("[\ud800-\udfff]")  # of characters: an escape keeps them
_STAGES = ("rollout", "correct", "train", "evaluate")
_FILTERS = ("pi", "interval", "actions", "counted", "duration", "count", "kind", "usd", "plain")


def write_report(
    recipe: Recipe, run: RunDirectory, environment: Environment | None = None, *, out: Path | None = None
) -> Path:
    """Writes the report of a run, finished or not. The same files give the same report, byte for byte.

    Args:
        recipe: The run's recipe.
        run: The run directory.
        environment: Where shown training episodes are replayed to tell their privileged states; the recipe's own, made
            ready only if there are such episodes, if None.
        out: Folder of the page; the run's own by default.

    Returns:
        The page.

    Raises:
        RunError: A file of the run is damaged, or cannot be written.
    """
    report, groups = collect(recipe, run, per_group=PER_GROUP)
    with ExitStack() as stack:

        def opened() -> Environment:
            own = load_environment(recipe.environment.name, recipe.environment.options)
            stack.callback(own.close)
            own.prepare()
            return own

        data, keys, notes = embed(groups, lambda: environment or opened(), budget=BUDGET)
    shown = [one.model_copy(update={"keys": mine}) for one, mine in zip(report.shown, keys, strict=True)]
    report = report.model_copy(update={"shown": shown, "notes": [*report.notes, *notes]})
    page = (out or run.report) / "index.html"
    try:
        write_text(page.with_name("report.json"), report.model_dump_json(indent=2) + "\n")
        write_text(page, sendable(render(report, data, calls_shown(run.calls))))
    except LeapError as error:
        if out is None:
            raise RunError(f"{error}. `leap report {run.root} --out FOLDER` writes it elsewhere.") from error
        raise
    return page


def templates(folder: Path) -> Jinja:
    """Returns the templates of a folder's pages: whatever is put into them is escaped, and an unknown name is an error."""
    loader = FileSystemLoader(folder)
    return Jinja(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


class UnderWay(NamedTuple):
    """A stage: `done`, `begun` or `todo`; how much of it is on file, of how much (0: not known), and of what."""

    name: str
    state: str
    done: int
    total: int
    unit: str


class Live(NamedTuple):
    """What a page says only while it is served: the runs that are, which of them it shows, its stages, when it was last heard of,
    and whether calls of models are on file."""

    runs: Sequence[str]
    number: int
    progress: Sequence[UnderWay]
    life: str
    asked: bool


@cache
def jinja_of() -> Jinja:
    """Returns the templates of the report, with its filters."""
    jinja = templates(_HERE)
    jinja.filters |= {name: getattr(words, name) for name in _FILTERS}
    return jinja


def render(
    report: Report, data: Mapping[str, object], calls: Sequence[CallShown] = (), *, live: Live | None = None
) -> str:
    """Returns the page as text. Nothing of a model, a dataset or a recipe gets into it unescaped."""
    known = {"causes": dict(words.CAUSES), "stops": dict(words.STOPS)}
    jinja = jinja_of()
    style = Markup(_HERE.joinpath("report.css").read_text(encoding="utf-8"))
    scripts = ("browser.js", "view.js" if live else "report.js")
    script = Markup("\n".join(_HERE.joinpath(name).read_text(encoding="utf-8") for name in scripts))
    return jinja.get_template("template.html.j2").render(
        report=report,
        setup=report.setup,
        best=report.chosen,
        calls=calls,
        charts=charts,
        sections=render_sections(report, jinja),
        percent=words.percent,
        wilson=wilson,
        live=live,
        outcomes=OUTCOMES,
        circles=CIRCLES,
        **known,
        times=_times(report.stages),
        starts=[_flat(entry) for entry in report.provenance],
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=embedded({"rows": [], "columns": [], "groups": [], "episodes": [], "circles": CIRCLES, **known, **data}),
    )


def embedded(data: object) -> Markup:
    """JSON that is safe inside a script element: no character in it can end the element or open another."""
    text = _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _flat(entry: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Returns a nested mapping as dotted keys and texts."""
    rows: list[tuple[str, str]] = []
    for key, value in entry.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return rows


class _Times(NamedTuple):
    """The table of times: its rows (iterations); its columns (stages), with their CSS; seconds, tokens, and seconds and USD of
    sandboxes by row and column, where None stands for all; each row's bar, and the longest."""

    rows: list[int]
    css: dict[str, str]
    seconds: Mapping[tuple[int | None, str | None], float]
    tokens: Mapping[tuple[int | None, str | None], float]
    box_seconds: Mapping[tuple[int | None, str | None], float]
    box_usd: Mapping[tuple[int | None, str | None], float]
    bars: dict[int, list[tuple[str, float]]]
    longest: float


def _times(stages: Sequence[StageTime]) -> _Times:
    seconds: defaultdict[tuple[int | None, str | None], float] = defaultdict(float)
    noted = {name: seconds.copy() for name in ("tokens", "box_seconds", "box_usd")}
    for stage in stages:
        for cell in ((row, column) for row in (stage.iteration, None) for column in (stage.stage, None)):
            seconds[cell] += stage.seconds
            for name, sums in noted.items():
                number = stage.figures.get(name, 0)
                sums[cell] += number if isinstance(number, int | float) else 0
    others = {stage.stage for stage in stages}.difference(_STAGES)
    css = {name: f"s-{name}" for name in _STAGES if (None, name) in seconds} | dict.fromkeys(sorted(others), "s-other")
    rows = sorted({stage.iteration for stage in stages})
    bars = {row: [(css[name], seconds[row, name]) for name in css if (row, name) in seconds] for row in rows}
    longest = max((seconds[row, None] for row in rows), default=0.0)
    return _Times(rows, css, seconds, bars=bars, longest=longest, **noted)
