"""Writes a study's page: `index.html`, which needs no network and no other file, its JSON twin `results.json`, the plots
as SVG, and the tables as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment as Jinja
from jinja2 import FileSystemLoader, StrictUndefined
from markupsafe import Markup

from leap.core.record import Record
from leap.files import write_text
from leap_lab.studies.plots import Figure, draw, policy_words
from leap_lab.studies.results import Difference, Row, StudyResults
from leap_lab.studies.schema import LoopStudy
from leap_lab.studies.statistics import Estimate

_HERE = Path(__file__).parent


class Table(NamedTuple):
    """A table of texts; the first `left` columns are words, the others figures."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


class Page(NamedTuple):
    """What a study's page says.

    Attributes:
        name, claim, hypothesis, notes: From the study.
        findings: What was found, in sentences.
        figures: Plots with captions.
        tables: The numbers.
        fine: How to read them.
        provenance: Versions, command, machine.
        missing: What is not run yet.
    """

    name: str
    claim: str
    hypothesis: str
    notes: Sequence[str]
    findings: Sequence[str]
    figures: Sequence[tuple[Figure, str]]
    tables: Sequence[Table]
    fine: Sequence[str]
    provenance: dict[str, Any]
    missing: Sequence[str] = ()


def write_page(folder: Path, page: Page, results: Record) -> Path:
    """Writes everything into a folder.

    Args:
        folder: The folder to write into.
        page: The page's content.
        results: The JSON twin.

    Returns:
        The page.
    """
    for figure, _ in page.figures:
        write_text(folder / f"{figure.name}.svg", figure.svg)
    write_text(folder / "results.json", results.model_dump_json(indent=1) + "\n")
    write_text(folder / "table.md", markdown(page))
    write_text(folder / "index.html", render(page))
    return folder / "index.html"


def render(page: Page) -> str:
    """Returns the page as HTML. Nothing of a study's file or a run gets into it unescaped."""
    jinja = Jinja(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters["data_uri"] = _data_uri
    style = Markup((_HERE / "page.css").read_text(encoding="utf-8"))
    return jinja.get_template("page.html.j2").render(page=page, style=style)


def markdown(page: Page) -> str:
    """Findings and tables as Markdown."""
    lines = [f"# {page.name}", "", f"Claim: {page.claim}", "", f"Hypothesis: {page.hypothesis}", ""]
    lines += [f"* {finding}" for finding in page.findings]
    for table in page.tables:
        rules = ["---" if place < table.left else "---:" for place in range(len(table.columns))]
        lines += ["", table.caption, "", _cells(table.columns), "|" + "|".join(rules) + "|"]
        lines += [_cells(row) for row in table.rows]
    lines += ["", *page.fine]
    lines += ["", "; ".join(f"{key}: {value}" for key, value in page.provenance.items())]
    if page.missing:
        lines += ["", f"Not run yet: {'; '.join(page.missing)}."]
    return "\n".join(lines) + "\n"


def loop_page(study: LoopStudy, results: StudyResults) -> Page:
    """Returns the page of a study of the loop."""
    captions = {
        "iterations": "Success after each iteration.",
        "policies": "Success of each policy.",
        "axis": "Success along the axis.",
    }
    figures = draw(study, results)
    kinds = [plot.kind for plot in study.plots]
    reading = "Points are seeds; lines and bars are means over seeds with 95 % intervals over tasks and seeds."
    tables = [
        _scores(f"Success on {results.split}", results.rows, results.seeds),
        _scores(f"Success on {results.split} by iteration", results.curves, results.seeds),
        _differences(results),
        _gaps(results),
    ]
    return Page(
        name=results.name,
        claim=results.claim,
        hypothesis=results.hypothesis,
        notes=results.notes,
        findings=[finding(one) for one in results.differences],
        figures=[(figure, f"{captions[kind]} {reading}") for figure, kind in zip(figures, kinds, strict=False)],
        tables=[table for table in tables if table.rows],
        fine=[
            "Success is the share of test tasks solved; an episode that fails counts as the horizon in actions. `best` is the "
            "iteration with most successes on validation tasks, never on these. Per seed: success, with the 95 % Wilson "
            "interval of n tasks in the JSON.",
            "Intervals of means and differences are bootstrapped (percentile, 10,000 samples) and paired by task: first over "
            "tasks, for these trainings; then over tasks and seeds, for other trainings too. `above` and `below` go by the "
            "latter. No correction for several comparisons.",
        ],
        provenance={"command": results.command, **results.provenance},
        missing=results.missing,
    )


def finding(one: Difference) -> str:
    """Returns a comparison in a sentence."""
    points = 100 * one.difference.value
    seeds = ", ".join(f"{100 * seed.difference:+.1f}" for seed in one.seeds)
    return (
        f"{one.policy} against {one.against}: {points:+.1f} points [{100 * one.difference.low_all:+.1f}, "
        f"{100 * one.difference.high_all:+.1f}], {one.verdict} (by seed {seeds}; n = {one.difference.tasks} tasks)."
    )


def _scores(caption: str, rows: Sequence[Row], seeds: Sequence[int]) -> Table:
    columns = ["arm", "policy", "n", "success, mean", "95 % over tasks", "over tasks and seeds", "actions"]
    columns += [f"seed {seed}" for seed in seeds]
    return Table(caption, columns, [_score_row(row, seeds) for row in rows], left=2)


def _score_row(row: Row, seeds: Sequence[int]) -> list[str]:
    by_seed = {one.seed: one for one in row.seeds}
    shown = []
    for seed in seeds:
        one = by_seed.get(seed)
        chosen = f" ({one.policy})" if one and one.policy != row.policy and row.policy.startswith("best") else ""
        shown.append(f"{100 * one.success:.1f} %{chosen}" if one else "–")
    success = row.success
    return [
        row.arm,
        policy_words(row.policy),
        str(success.tasks),
        f"{100 * success.value:.1f} %",
        _interval(success),
        f"[{100 * success.low_all:.1f}, {100 * success.high_all:.1f}]",
        f"{row.actions.value:.2f}",
        *shown,
    ]


def _differences(results: StudyResults) -> Table:
    columns = ["policy", "against", "n", "points", "95 % over tasks", "over tasks and seeds", "verdict"]
    columns += [f"seed {seed}" for seed in results.seeds]
    rows = []
    for one in results.differences:
        by_seed = {seed.seed: seed for seed in one.seeds}
        whole = one.difference
        cells = [one.policy, one.against, str(whole.tasks), f"{100 * whole.value:+.1f}", _interval(whole, sign=True)]
        cells += [f"[{100 * whole.low_all:+.1f}, {100 * whole.high_all:+.1f}]", one.verdict]
        for seed in results.seeds:
            own = by_seed.get(seed)
            cells.append(f"{100 * own.difference:+.1f} ({own.only_policy}, {own.only_against})" if own else "–")
        rows.append(cells)
    caption = (
        f"Differences in success on {results.split}, paired by task and seed; by seed the points, and in brackets how many tasks "
        "the first alone solved and the second alone"
    )
    return Table(caption, columns, rows, left=2)


def _gaps(results: StudyResults) -> Table:
    arms = [arm for arm in results.arms if any(gap.arm == arm for gap in results.gaps)]
    by = {(gap.arm, gap.seed): gap.nats for gap in results.gaps}
    rows = []
    for arm in arms:
        own = [by[arm, seed] for seed in results.seeds if (arm, seed) in by]
        cells = [f"{by[arm, seed]:.3f}" if (arm, seed) in by else "–" for seed in results.seeds]
        rows.append([arm, f"{sum(own) / len(own):.3f}", *cells])
    columns = ["arm", "mean", *(f"seed {seed}" for seed in results.seeds)]
    return Table("Realizability gap after the last iteration: nats per corrected answer on held-out episodes", columns, rows)


def _interval(one: Estimate, *, sign: bool = False) -> str:
    form = "+.1f" if sign else ".1f"
    return f"[{100 * one.low:{form}}, {100 * one.high:{form}}]"


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _data_uri(svg: str) -> str:
    """Returns a picture as an address: within `img` no script of it would run, whatever its labels say."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")
