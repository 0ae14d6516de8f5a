"""A study's plots: colour-blind safe (Okabe & Ito), told apart by mark and dash too, so that a print without colour can
be read. Seeds are points; lines and bars are means over seeds with 95 % intervals over tasks and seeds. No title
within: the page has captions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from leap.report.svg import Panel, mark, whisker
from leap.report.words import pi
from leap_lab.studies.marks import clipped, symbol, ticks
from leap_lab.studies.results import Row, StudyResults
from leap_lab.studies.schema import AxisPlot, IterationsPlot, LoopStudy, PoliciesPlot

WIDTH = 740.0
_LETTER = 6.9  # a letter's mean width
_STYLE = """
text { font: 12.5px DejaVu Sans, system-ui, sans-serif; fill: #1b1d21; }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: #dfdfdf; stroke-width: .8; } .spine { stroke: #555; stroke-width: .8; }
"""
_READING = "Points are seeds; lines and bars are means over seeds with 95 % intervals over tasks and seeds."


class Figure(NamedTuple):
    """A plot: the file's name without its ending, the picture, what it shows in words, and its caption."""

    name: str
    svg: str
    alt: str
    caption: str


class Look(NamedTuple):
    """How a line is told from others."""

    colour: str
    shape: str
    dash: str | None


LOOKS = (
    Look("#0072b2", "circle", None),
    Look("#d55e00", "square", "8.5 3.4"),
    Look("#009e73", "up", "1.7 2.4"),
    Look("#cc79a7", "diamond", "10 3.4 2.6 3.4"),
    Look("#56b4e9", "down", "5 2.6"),
    Look("#e69f00", "plus", "13.6 3.4"),
    Look("#000000", "cross", "3.4 5"),
)
_BLACK = Look("#000000", "diamond", None)


def look(place: int) -> Look:
    """Returns the look of the n-th line."""
    return LOOKS[place % len(LOOKS)]


def picture(parts: Iterable[str], height: float) -> str:
    """Returns a plot as a file of its own."""
    box = {"viewBox": f"0 0 {WIDTH:g} {height:g}", "width": WIDTH, "height": height}
    return mark("svg", (mark("style", text=_STYLE), *parts), xmlns="http://www.w3.org/2000/svg", **box)


def axes(panel: Panel, *, rows: str = "", columns: str = "") -> list[str]:
    """Returns the axes' lines and their names."""
    parts = [mark("path", class_="spine", fill="none", d=f"M{panel.left} {panel.top}V{panel.bottom}H{panel.right}")]
    if rows:
        x, y = panel.left - 44, (panel.top + panel.bottom) / 2
        parts.append(mark("text", class_="middle", transform=f"translate({x:g} {y:g}) rotate(-90)", text=rows))
    if columns:
        at = (panel.left + panel.right) / 2
        parts.append(mark("text", class_="middle", x=at, y=panel.bottom + 42, text=columns))
    return parts


def legend(entries: Sequence[tuple[str, Look, bool]], panel: Panel) -> list[str]:
    """Returns what each line is, beside the panel: words, look, and whether the line has marks."""
    parts: list[str] = []
    x, top = panel.right + 14, (panel.top + panel.bottom) / 2 - 10 * (len(entries) - 1)
    for place, (words, (colour, shape, dash), marked) in enumerate(entries):
        y = top + 20 * place
        parts.append(mark("line", x1=x, x2=x + 28, y1=y, y2=y, stroke=colour, stroke_width=2, stroke_dasharray=dash))
        if marked:
            parts.append(symbol(shape, x + 14, y, 3.2, fill=colour))
        parts.append(mark("text", x=x + 36, y=y + 4.5, text=words))
    return parts


def curve(panel: Panel, values: Iterable[tuple[float, float]], look: Look, *, width: float = 2.0) -> str:
    """Returns a line through values."""
    drawn = {"stroke_width": width, "stroke_dasharray": look.dash, "points": panel.points(values)}
    return mark("polyline", fill="none", stroke=look.colour, **drawn)


def seeds(panel: Panel, x: float, values: Sequence[float], look: Look, *, spread: float = 0.0) -> list[str]:
    """Returns the seeds' values as marks, side by side if need be."""
    middle = (len(values) - 1) / 2
    return [
        symbol(look.shape, panel.x(x + (place - middle) * spread), panel.y(value), 3.0, fill=look.colour, opacity=0.75)
        for place, value in enumerate(values)
    ]


def draw(study: LoopStudy, results: StudyResults) -> list[Figure]:
    """Returns the study's plots, of what there is; a plot of nothing is left out."""
    figures = []
    for number, plot in enumerate(study.plots, start=1):
        if isinstance(plot, IterationsPlot):
            made, caption = _iterations(plot, study, results), "Success after each iteration."
        elif isinstance(plot, PoliciesPlot):
            made, caption = _policies(plot, study, results), "Success of each policy."
        else:
            made, caption = _along_axis(plot, study, results), "Success along the axis."
        if made:
            name = f"plot-{number}" if len(study.plots) > 1 else "plot"
            figures.append(Figure(name, *made, f"{caption} {_READING}"))
    return figures


class _Percent(NamedTuple):
    """A policy's success in percent: the mean, its interval over tasks and seeds, and each seed's."""

    mean: float
    low: float
    high: float
    seeds: list[float]


def _percent(row: Row) -> _Percent:
    success = row.success
    seeds = [100 * one.success for one in row.seeds]
    return _Percent(100 * success.value, 100 * success.low_all, 100 * success.high_all, seeds)


def _iterations(plot: IterationsPlot, study: LoopStudy, results: StudyResults) -> tuple[str, str] | None:
    lines: dict[str, list[tuple[float, Row]]] = {arm: [] for arm in plot.arms or results.arms}
    for row in results.curves:
        if row.arm in lines:
            lines[row.arm].append((int(row.policy.removeprefix("pi_")), row))
    lines = {arm: points for arm, points in lines.items() if points}
    if not lines:
        return None
    names = [(i, pi(i)) for i in range(max(map(len, lines.values())))]
    panel, parts, words = _lines(lines, _labelled(_rows(plot.lines, study, results)), names, results)
    parts += panel.columns(names, grid=True) + axes(panel, columns="policy after each iteration")
    return picture(parts, panel.bottom + 54), f"Success by iteration. {words}."


def _lines(
    lines: Mapping[str, Sequence[tuple[float, Row]]],
    flat: Mapping[str, Row],
    names: Sequence[tuple[float, str]],
    results: StudyResults,
) -> tuple[Panel, list[str], str]:
    """Returns a panel, what is in it, and the same in words: success along an axis, with intervals and seeds, of what
    is in `lines`, lines across for what is in `flat`, and a legend. `names` says what places on the axis are called."""
    labels = [*lines, *flat]
    first, last = min(at for at, _ in names), max(at for at, _ in names)
    right = WIDTH - 56 - _LETTER * max(map(len, labels))
    ys = _range([row for points in lines.values() for _, row in points], *flat.values())
    xs = (first, last) if last > first else (first - 1, last + 1)
    panel = Panel(64, 12, right, 326, xs, ys, pad=24)
    parts = panel.rows(ticks(*ys, 9)) + axes(panel, rows=f"success on {results.split}, %")
    name, step, words = dict(names), (last - first or 1) / max(1, len(names) - 1), []
    for place, (label, points) in enumerate(lines.items()):
        shift = step * 0.05 * (place - (len(lines) - 1) / 2)
        drawn = [(at + shift, _percent(row)) for at, row in points]
        parts.append(curve(panel, [(x, own.mean) for x, own in drawn], look(place)))
        for x, own in drawn:
            at, low, high = panel.x(x), panel.y(own.low), panel.y(own.high)
            cap = f"M{at - 3:.2f} {low:.2f}h6M{at:.2f} {low:.2f}V{high:.2f}M{at - 3:.2f} {high:.2f}h6"
            parts.append(mark("path", fill="none", stroke=look(place).colour, stroke_width=1, d=cap))
            parts += seeds(panel, x, own.seeds, look(place))
        words.append(f"{label}: " + ", ".join(f"{name[at]} {_percent(row).mean:.0f} %" for at, row in points))
    for place, (label, row) in enumerate(flat.items(), start=len(lines)):
        ends = [(at, _percent(row).mean) for at in (first - 9 * step, last + 9 * step)]
        parts.append(clipped(panel, [curve(panel, ends, look(place), width=1.2)]))
        words.append(f"{label}: {_percent(row).mean:.0f} %")
    parts += legend([(label, look(place), label in lines) for place, label in enumerate(labels)], panel)
    return panel, parts, "; ".join(words)


def _policies(plot: PoliciesPlot, study: LoopStudy, results: StudyResults) -> tuple[str, str] | None:
    rows = _labelled(_rows(plot.show, study, results) if plot.show else results.rows)
    if not rows:
        return None
    low, high = _range(list(rows.values()))
    bottom = 12 + 34.0 * len(rows)
    panel = Panel(20 + _LETTER * max(map(len, rows)), 12, WIDTH - 16, bottom, (low, high), (len(rows) - 0.4, -0.6))
    parts = panel.columns(ticks(low, high, 9), grid=True) + axes(panel, columns=f"success on {results.split}, %")
    for place, (label, row) in enumerate(rows.items()):
        colour, shape, _ = look(0 if row.policy.startswith(("pi_", "best", "last")) else 1)
        y, own = panel.y(place), _percent(row)
        left, right, value = panel.x(own.low), panel.x(own.high), panel.x(own.mean)
        bar = f"M{left:.2f} {y - 3.5:.2f}v7M{left:.2f} {y:.2f}H{right:.2f}M{right:.2f} {y - 3.5:.2f}v7"
        parts.append(mark("path", fill="none", stroke=colour, stroke_width=1.5, d=bar))
        parts.append(whisker(value, y - 8, y + 8, stroke=colour, stroke_width=2.2))
        parts += [symbol(shape, panel.x(one), y + 9, 2.8, fill=colour, opacity=0.75) for one in own.seeds]
        parts.append(mark("text", class_="end", x=panel.left - 8, y=y + 4.5, text=label))
    words = "; ".join(f"{label} {_percent(row).mean:.0f} %" for label, row in rows.items())
    return picture(parts, bottom + 52), f"Success of each policy, seeds as points. {words}."


def _along_axis(plot: AxisPlot, study: LoopStudy, results: StudyResults) -> tuple[str, str] | None:
    at = results.axis
    found = {policy: [row for arm in results.arms if (row := results.row(arm, policy))] for policy in plot.policies}
    lines = {policy_words(policy): [(at[row.arm], row) for row in rows] for policy, rows in found.items() if rows}
    if not lines:
        return None
    names = [(value, arm) for arm, value in at.items()]
    panel, parts, words = _lines(lines, {}, names, results)
    gaps: dict[str, list[float]] = {}
    for gap in results.gaps if plot.gap else ():
        gaps.setdefault(gap.arm, []).append(gap.nats)
    parts += panel.columns([(value, "" if gaps else name) for value, name in names], grid=True)
    if gaps:
        means = {arm: sum(own) / len(own) for arm, own in gaps.items()}
        most = max(map(max, gaps.values())) * 1.06
        panel = replace(panel, top=346, bottom=486, ys=(0.0, most))
        parts += (
            panel.rows(ticks(0.0, most, 4)) + panel.columns(names, grid=True) + axes(panel, rows="gap, nats per answer")
        )
        parts.append(curve(panel, [(at[arm], mean) for arm, mean in means.items()], _BLACK, width=1.4))
        for arm, own in gaps.items():
            parts += seeds(panel, at[arm], own, _BLACK)
        words += f"; realizability gap: {', '.join(f'{arm} {mean:.2f}' for arm, mean in means.items())}"
    label = study.axes[0].label or study.axes[0].key
    parts += axes(panel, columns=label)
    return picture(parts, panel.bottom + 54), f"Success along {label}. {words}."


_WORDS = {
    "best": "student, chosen on validation",
    "last": "student, last iteration",
    "teacher": "teacher with its privilege",
    "teacher-0": "teacher without privilege",
    "expert": "unprivileged expert",
    "react": "ReAct",
}


def policy_words(policy: str) -> str:
    """Returns a policy's name for people."""
    name, _, kind = policy.partition("@")
    return _WORDS.get(name, name) + (f" ({kind})" if kind else "")


def _rows(patterns: Sequence[str], study: LoopStudy, results: StudyResults) -> list[Row]:
    refs = dict.fromkeys(ref for pattern in patterns for ref in study.refs(pattern))
    return [row for ref in refs if (row := results.row(*ref))]


def _labelled(rows: Sequence[Row]) -> dict[str, Row]:
    """Returns rows by their policies' names, with the arms' where there are several."""
    several = len({row.arm for row in rows}) > 1
    return {(f"{row.arm}: " if several else "") + policy_words(row.policy): row for row in rows}


def _range(rows: Sequence[Row], *lines: Row) -> tuple[float, float]:
    """Ends of an axis of success in percent that shows all intervals and seeds of some rows, the means of others."""
    values = [_percent(row).mean for row in lines]
    for row in rows:
        _, low, high, seeds = _percent(row)
        values += [low, high, *seeds]
    room = max(2.0, 0.05 * (max(values) - min(values)))
    return max(-1.5, min(values) - room), min(101.5, max(values) + room)
