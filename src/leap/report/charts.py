"""Charts as inline SVG. Colours and fonts come from the page's style sheet, so that dark mode and print work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from leap.evaluation import Score
from leap.report import words
from leap.report.model import PolicyScores, Report

LEFT, TOP, BOTTOM, HEIGHT = 46, 24, 28, 242
GUTTER = 158
LABELLED = 7  # of more students than this, only the first, the chosen and the last say their value
LINE = 13  # least distance of two labels' baselines


@dataclass(frozen=True)
class Measure:
    """What a chart shows of a score."""

    name: str
    top: float
    value: Callable[[Score], float]
    low: Callable[[Score], float]
    high: Callable[[Score], float]
    tick: Callable[[float], str]
    written: Callable[[Score], str]


def success() -> Measure:
    """Share solved, 0 to 100 %."""
    return Measure(
        name="success",
        top=1.0,
        value=lambda score: score.success,
        low=lambda score: score.low,
        high=lambda score: score.high,
        tick=lambda value: f"{100 * value:.0f}{words.THIN}%" if value in (0, 1) else f"{100 * value:.0f}",
        written=lambda score: percent(score),
    )


def actions(horizon: int) -> Measure:
    """Mean actions, 0 to the horizon."""
    return Measure(
        name="mean actions",
        top=float(horizon),
        value=lambda score: score.actions,
        low=lambda score: max(0.0, score.actions - score.actions_ci),
        high=lambda score: min(float(horizon), score.actions + score.actions_ci),
        tick=lambda value: f"{value:g}",
        written=lambda score: f"{score.actions:.1f}",
    )


def percent(score: Score) -> str:
    """The success rate with its unit."""
    return words.percent(score.success, score.n)


def style_of(policy: PolicyScores, report: Report) -> str:
    """The CSS class that colours a policy, the same all over the page."""
    if policy.role == "student":
        return "student"
    if policy.role == "expert":
        return "expert"
    if policy.role == "teacher":
        if not policy.privilege:
            return "teacher-without"
        return "teacher-with" if policy.privilege == report.setup.privilege else "teacher-other"
    return "other"


def tag(policy: PolicyScores) -> str:
    """A policy's name where there is little room."""
    if policy.role == "student":
        return policy.label
    return f"teacher p{policy.privilege}" if policy.role == "teacher" else policy.name


def learning_curve(report: Report, split: str, measure: Measure, *, width: int) -> Markup:
    """One chart: pi_0..pi_N with intervals, and a line for each baseline.

    Args:
        report: The report.
        split: The split; charts never mix splits.
        measure: What to show.
        width: Width in user units; heights are equal, so that charts stand side by side.
    """
    students = [p for p in report.policies if p.role == "student" and split in p.evaluations]
    baselines = [p for p in report.policies if p.role != "student" and split in p.evaluations]
    last = max([report.setup.iterations, *(p.iteration or 0 for p in students)])
    right = width - GUTTER
    inner = right - LEFT - 28

    def x(i: float) -> float:
        return LEFT + 14 + (inner * i / last if last else inner / 2)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / measure.top)

    parts = [*_axes(measure, x, y, last, right)]
    parts += _baselines(baselines, report, split, measure, y, right)
    points = [(p, p.evaluations[split].overall) for p in students]
    line = " ".join(f"{x(p.iteration or 0):.1f},{y(measure.value(score)):.1f}" for p, score in points)
    if len(points) > 1:
        parts.append(f'<polyline class="curve" points="{line}"/>')
    values = [measure.value(score) for _, score in points]
    for place, (policy, score) in enumerate(points):
        at = policy.iteration or 0
        if place:
            side, below = "end", values[place] < values[place - 1]
        else:  # clear of the axis, hence on the side where the curve goes on
            side, below = "start", len(values) > 1 and values[1] > values[0]
        chosen = at == report.best
        said = chosen or len(points) <= LABELLED or place in (0, len(points) - 1)
        parts.append(_point(policy, score, measure, x(at), y, chosen=chosen, side=side if said else None, below=below))
    said = "; ".join(f"{p.label} {measure.written(p.evaluations[split].overall)}" for p in (*students, *baselines))
    title = escape(f"{measure.name} on {split}: {said}")
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
    )


def _axes(
    measure: Measure, x: Callable[[float], float], y: Callable[[float], float], last: int, right: float
) -> list[str]:
    parts = []
    for quarter in range(5):
        value = measure.top * quarter / 4
        if quarter % 2 == 0 or measure.top == 1.0:
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
            parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y(value) + 4:.1f}">{measure.tick(value)}</text>')
    every = max(1, round(last / 10))
    for i in range(last + 1):
        if i % every == 0 or i == last:
            parts.append(f'<text class="tick middle" x="{x(i):.1f}" y="{HEIGHT - 8}">{words.pi(i)}</text>')
    return parts


def _baselines(
    policies: Sequence[PolicyScores],
    report: Report,
    split: str,
    measure: Measure,
    y: Callable[[float], float],
    right: float,
) -> list[str]:
    """Horizontal lines; equal ones share the dashes, so that each can be seen. Labels keep clear of each other."""
    parts, heights = [], []
    scores = [policy.evaluations[split].overall for policy in policies]
    values = [round(measure.value(score), 6) for score in scores]
    for place, (policy, score, value) in enumerate(zip(policies, scores, values, strict=True)):
        equal = [other for other, twin in enumerate(values) if twin == value]
        dashes = f"6 {6 * (len(equal) - 1)}" if len(equal) > 1 else "6 4"
        height = y(value)
        heights.append(height)
        css = style_of(policy, report)
        hint = escape(f"{policy.label} on {split}: {measure.written(score)}, n = {score.n}")
        parts.append(
            f'<line class="base {css}" x1="{LEFT}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}" '
            f'stroke-dasharray="{dashes}" stroke-dashoffset="{-6 * equal.index(place)}"><title>{hint}</title></line>'
        )
        gutter = right + 5 + 5 * place
        parts.append(_whisker(f"whisker {css}", gutter, y(measure.low(score)), y(measure.high(score))))
    for policy, score, place in zip(policies, scores, _apart(heights), strict=True):
        parts.append(
            f'<text class="label {style_of(policy, report)}" x="{right + 8 + 5 * len(policies)}" y="{place + 4:.1f}">'
            f"{escape(tag(policy))} {measure.written(score)}</text>"
        )
    return parts


def _apart(heights: Sequence[float]) -> list[float]:
    """The labels' heights: as near to the lines as they can be without touching one another."""
    order = sorted(range(len(heights)), key=lambda place: (heights[place], place))
    placed: dict[int, float] = {}
    lowest = TOP - LINE + 2.0
    for place in order:
        lowest = placed[place] = max(heights[place], lowest + LINE)
    over = lowest - (HEIGHT - BOTTOM)
    for place in reversed(order):  # pushed past the bottom: move up as far as needed
        if over <= 0:
            break
        placed[place] -= over
        above = [placed[other] for other in order if order.index(other) < order.index(place)]
        over = above[-1] + LINE - placed[place] if above else 0.0
    return [placed[place] for place in range(len(heights))]


def _whisker(css: str, x: float, low: float, high: float) -> str:
    return f'<line class="{css}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'


def _point(
    policy: PolicyScores,
    score: Score,
    measure: Measure,
    x: float,
    y: Callable[[float], float],
    *,
    chosen: bool,
    side: str | None,
    below: bool,
) -> str:
    value = y(measure.value(score))
    hint = escape(
        f"{policy.label}: {measure.written(score)}, n = {score.n}" + (", chosen on validation" if chosen else "")
    )
    ring = f'<circle class="chosen" cx="{x:.1f}" cy="{value:.1f}" r="8"/>' if chosen else ""
    label = ""
    if side is not None:
        below = below and value < HEIGHT - BOTTOM - 24
        across, place = x - 7 if side == "end" else x + 7, value + 20 if below else value - 12  # where the curve is not
        label = f'<text class="value {side}" x="{across:.1f}" y="{place:.1f}">{measure.written(score)}</text>'
    return (
        f"<g><title>{hint}</title>"
        + _whisker("whisker student", x, y(measure.low(score)), y(measure.high(score)))
        + ring
        + f'<circle class="dot student" cx="{x:.1f}" cy="{value:.1f}" r="4"/>{label}</g>'
    )


def bar(score: Score, css: str) -> Markup:
    """A success rate on a line from 0 to 100 %: the interval as a band, the rate as a tick."""
    low, high, value = 100 * score.low, 100 * score.high, 100 * score.success
    return Markup(
        '<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        '<line class="rail" x1="0" x2="100" y1="6" y2="6"/>'
        f'<rect class="band {css}" x="{low:.2f}" width="{high - low:.2f}" y="3" height="6"/>'
        f'<rect class="tickmark {css}" x="{min(value, 99.2):.2f}" width="0.8" y="0" height="12"/></svg>'
    )


def shares(parts: Sequence[tuple[str, float]], of: float) -> Markup:
    """Amounts as parts of one bar; `of` is the bar's full length."""
    drawn, at = [], 0.0
    for css, number in parts:
        width = 100 * number / of if of else 0.0
        drawn.append(f'<rect class="{css}" x="{at:.2f}" width="{width:.2f}" y="0" height="10"/>')
        at += width
    return Markup(
        f'<svg class="shares" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{"".join(drawn)}</svg>'
    )
