"""Writes a study's page: `index.html`, which needs no network and no other file, its JSON twin `results.json`, the
plots as SVG, and the tables as Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from markupsafe import Markup, escape

from leap.core.record import Record
from leap.files import write_text
from leap.report.page import templates
from leap_lab.studies.plots import Figure, draw, policy_words
from leap_lab.studies.results import Difference, Gap, Row, SeedDifference, SeedScore, StudyResults
from leap_lab.studies.schema import LoopStudy, Study
from leap_lab.studies.statistics import Estimate

_HERE = Path(__file__).parent
S = TypeVar("S", SeedScore, SeedDifference, Gap)


class Table(NamedTuple):
    """A table of texts; the first `left` columns are words, the others figures."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


class Page(NamedTuple):
    """What a study's page says.

    Attributes:
        study: The study: its name, claim and hypothesis.
        notes: What a reader must know of the set-up.
        findings: What was found, in sentences.
        figures, tables, fine: Plots, numbers, and how to read them.
        provenance: Versions, command, machine.
        missing: What is not run yet.
    """

    study: Study
    notes: Sequence[str]
    findings: Sequence[str]
    figures: Sequence[Figure]
    tables: Sequence[Table]
    fine: Sequence[str]
    provenance: dict[str, object]
    missing: Sequence[str] = ()


def write_page(folder: Path, page: Page, results: Record) -> Path:
    """Writes the page, its plots, its tables and its JSON twin `results` into a folder; returns the page's file."""
    for figure in page.figures:
        write_text(folder / f"{figure.name}.svg", figure.svg)
    write_text(folder / "results.json", results.model_dump_json(indent=1, exclude_none=True) + "\n")
    write_text(folder / "table.md", markdown(page))
    write_text(folder / "index.html", render(page))
    return folder / "index.html"


def render(page: Page) -> str:
    """Returns the page as HTML. Nothing of a study's file or a run gets into it unescaped."""
    jinja = templates(_HERE)
    # A picture is given as an address: within `img` no script of it would run, whatever its labels say.
    jinja.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode("ascii")
    jinja.filters["code"] = lambda text: Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    style = Markup((_HERE / "page.css").read_text(encoding="utf-8"))
    return jinja.get_template("page.html.j2").render(page=page, style=style)


def markdown(page: Page) -> str:
    """Returns findings and tables as Markdown."""
    study = page.study
    lines = [f"# {study.name}", "", f"Claim: {study.claim}", "", f"Hypothesis: {study.hypothesis}", ""]
    lines += [f"* {finding}" for finding in page.findings]
    for table in page.tables:
        rules = ["---" if place < table.left else "---:" for place in range(len(table.columns))]
        lines += ["", table.caption, "", _cells(table.columns), "|" + "|".join(rules) + "|", *map(_cells, table.rows)]
    lines += ["", *page.fine, "", "; ".join(f"{key}: {value}" for key, value in page.provenance.items())]
    if page.missing:
        lines += ["", f"Not run yet: {'; '.join(page.missing)}."]
    return "\n".join(lines) + "\n"


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def loop_page(study: LoopStudy, results: StudyResults) -> Page:
    """Returns the page of a study of the loop."""
    tables = [
        _scores(f"Success on {results.split}", results.rows, results.seeds),
        _scores(f"Success on {results.split} by iteration", results.curves, results.seeds),
        _differences(results),
        _gaps(results),
    ]
    return Page(
        study=study,
        notes=results.notes,
        findings=[_finding(one) for one in results.differences],
        figures=draw(study, results),
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


def _finding(one: Difference) -> str:
    """Returns a comparison in a sentence."""
    tasks, points, _, over_all = _estimated(one.difference, "+")
    seeds = ", ".join(f"{100 * seed.difference:+.1f}" for seed in one.seeds)
    found = f"{one.policy} against {one.against}: {points} points {over_all}, {one.verdict}"
    return f"{found} (by seed {seeds}; n = {tasks} tasks)."


def _scores(caption: str, rows: Sequence[Row], seeds: Sequence[int]) -> Table:
    def said(one: SeedScore) -> str:
        off = f", {one.broken_off} broken off" if one.broken_off else ""
        return f"{100 * one.success:.1f} %" + (f" ({one.policy})" if one.policy in chosen else "") + off

    cells = []
    for row in rows:
        chosen = {one.policy for one in row.seeds if row.policy.startswith("best")} - {row.policy}
        tasks, mean, *intervals = _estimated(row.success)
        known = [row.arm, policy_words(row.policy), tasks, f"{mean} %", *intervals, f"{row.actions.value:.2f}"]
        cells.append([*known, *_by_seed(row.seeds, seeds, said)])
    columns = ["arm", "policy", "n", "success, mean", "95 % over tasks", "over tasks and seeds", "actions"]
    return Table(caption, [*columns, *(f"seed {seed}" for seed in seeds)], cells, left=2)


def _differences(results: StudyResults) -> Table:
    def said(one: SeedDifference) -> str:
        return f"{100 * one.difference:+.1f} ({one.only_policy}, {one.only_against})"

    columns = ["policy", "against", "n", "points", "95 % over tasks", "over tasks and seeds", "verdict"]
    rows = []
    for one in results.differences:
        known = [one.policy, one.against, *_estimated(one.difference, "+"), one.verdict]
        rows.append([*known, *_by_seed(one.seeds, results.seeds, said)])
    caption = (
        f"Differences in success on {results.split}, paired by task and seed; by seed the points, and in brackets how many tasks "
        "the first alone solved and the second alone"
    )
    return Table(caption, columns + [f"seed {seed}" for seed in results.seeds], rows, left=2)


def _gaps(results: StudyResults) -> Table:
    rows = []
    for arm in results.arms:
        if own := [gap for gap in results.gaps if gap.arm == arm]:
            mean = sum(gap.nats for gap in own) / len(own)
            rows.append([arm, f"{mean:.3f}", *_by_seed(own, results.seeds, _gap)])
    columns = ["arm", "mean", *(f"seed {seed}" for seed in results.seeds)]
    return Table(
        "Realizability gap after the last iteration: nats per corrected answer on held-out episodes", columns, rows
    )


def _gap(gap: Gap) -> str:
    interval = "" if gap.low is None else f" [{gap.low:.3f}, {gap.high:.3f}], n = {gap.n} of {gap.episodes} episodes"
    return f"{gap.nats:.3f}{interval}"


def _estimated(one: Estimate, sign: str = "") -> tuple[str, str, str, str]:
    """Returns the number of tasks, a share in percent, its interval over tasks, and that over tasks and seeds."""
    value, low, high, low_all, high_all = (
        f"{100 * share:{sign}.1f}" for share in (one.value, one.low, one.high, one.low_all, one.high_all)
    )
    return str(one.tasks), value, f"[{low}, {high}]", f"[{low_all}, {high_all}]"


def _by_seed(found: Sequence[S], seeds: Sequence[int], said: Callable[[S], str]) -> list[str]:
    texts = {one.seed: said(one) for one in found}
    return [texts.get(seed, "–") for seed in seeds]
