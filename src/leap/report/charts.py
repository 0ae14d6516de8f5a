"""The report's own charts, drawn by `leap.report.svg`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from leap.evaluation import Score
from leap.report import words
from leap.report.model import PolicyScores, Report
from leap.report.svg import Panel, apart, chart, mark, quarters, whisker
from leap.training.losses import Curve

LEFT, TOP, BOTTOM, HEIGHT = 46, 24, 28, 242
GUTTER = 170
LETTER = 7.0  # a letter's mean width, with the larger type of a narrow screen
LABELLED = 7  # of more students than this, only the first, the chosen and the last say their value
PERCENT = [(share, f"{100 * share:.0f}" + (f"{words.THIN}%" if share in (0, 1) else "")) for share, _ in quarters(1.0)]
"""Ticks of an axis from 0 to 100 %."""


class Measure(NamedTuple):
    """What a chart shows of a score: its value and the ends of its interval, on an axis from 0 to `top`."""

    name: str
    top: float
    ticks: list[tuple[float, str]]
    of: Callable[[Score], tuple[float, float, float]]
    written: Callable[[Score], str]


SUCCESS = Measure("success", 1.0, PERCENT, lambda score: (score.success, score.low, score.high), words.success)


def actions(horizon: float) -> Measure:
    """Mean actions, 0 to the horizon."""

    def of(score: Score) -> tuple[float, float, float]:
        return score.actions, max(0.0, score.actions - score.actions_ci), min(horizon, score.actions + score.actions_ci)

    return Measure("mean actions", horizon, quarters(horizon, every=2), of, lambda score: f"{score.actions:.1f}")


def style_of(policy: PolicyScores, report: Report) -> str:
    """Returns the CSS class that colours a policy, the same all over the page."""
    if policy.role != "teacher":
        return policy.role
    if not policy.privilege:
        return "teacher-without"
    return "teacher-with" if policy.privilege == report.setup.privilege else "teacher-other"


def tag(policy: PolicyScores) -> str:
    """Returns a policy's name where there is little room."""
    if policy.privilege is None:
        return policy.name if policy.role == "expert" else policy.label
    return f"{'teacher' if policy.role == 'teacher' else 'script'} p{policy.privilege}"


def learning_curve(report: Report, split: str, measure: Measure, *, width: int) -> Markup:
    """Returns one chart, which never mixes splits: pi_0..pi_N with intervals, and a line for each baseline. Heights are equal,
    so that charts stand side by side."""
    policies = report.evaluated(split)
    students = [policy for policy in policies if policy.role == "student"]
    baselines = [policy for policy in policies if policy.role != "student"]
    last = max([report.setup.iterations, *(p.iteration or 0 for p in students)])
    xs = (0.0, float(last)) if last else (-1.0, 1.0)
    panel = Panel(LEFT, TOP, width - GUTTER, HEIGHT - BOTTOM, xs, (0.0, measure.top), pad=14)
    every = max(1, round(last / 10))
    parts = panel.rows(measure.ticks)
    parts += panel.columns((i, words.pi(i)) for i in range(last + 1) if i % every == 0 or i == last)
    parts += _baselines(baselines, report, split, measure, panel)
    scores = [p.evaluations[split].overall for p in students]
    values = [measure.of(score)[0] for score in scores]
    if len(students) > 1:
        places = [(policy.iteration or 0, value) for policy, value in zip(students, values, strict=True)]
        parts.append(mark("polyline", class_="curve", points=panel.points(places)))
    for place, (policy, score) in enumerate(zip(students, scores, strict=True)):
        chosen = policy.iteration == report.best
        side = None
        if chosen or len(students) <= LABELLED or place in (0, len(students) - 1):
            side = "end" if place else "start"  # clear of the axis, hence on the side where the curve goes on
        below = values[place] < values[place - 1] if place else len(values) > 1 and values[1] > values[0]
        parts.append(_point(policy, score, measure, panel, chosen=chosen, side=side, below=below))
    said = "; ".join(f"{p.label} {measure.written(p.evaluations[split].overall)}" for p in (*students, *baselines))
    return Markup(chart(f"{measure.name} on {split}: {said}", parts, width, HEIGHT))


def _baselines(
    policies: Sequence[PolicyScores], report: Report, split: str, measure: Measure, panel: Panel
) -> list[str]:
    """Horizontal lines; equal ones share the dashes, so that each can be seen. Labels keep clear of each other."""
    parts = []
    scores = [policy.evaluations[split].overall for policy in policies]
    values = [round(measure.of(score)[0], 6) for score in scores]
    heights = [panel.y(value) for value in values]
    for place, (policy, score, value, y) in enumerate(zip(policies, scores, values, heights, strict=True)):
        style, equal = style_of(policy, report), [other for other, twin in enumerate(values) if twin == value]
        line = mark(
            "line",
            hint=f"{policy.label} on {split}: {measure.written(score)}, {words.counted(score)}",
            class_=f"base {style}",
            x1=LEFT,
            x2=panel.right,
            y1=y,
            y2=y,
            stroke_dasharray=f"6 {6 * (len(equal) - 1)}" if len(equal) > 1 else "6 4",
            stroke_dashoffset=-6 * equal.index(place),
        )
        parts += [line, _interval(style, panel.right + 5 + 5 * place, measure, score, panel)]
    for policy, score, y in zip(policies, scores, apart(heights, TOP, panel.bottom), strict=True):
        css, value, x = f"label {style_of(policy, report)}", measure.written(score), 8 + 5 * len(policies)
        name = words.cut(tag(policy), int((GUTTER - x) / LETTER) - len(value) - 1)
        parts.append(mark("text", class_=css, x=panel.right + x, y=y + 4, text=f"{name} {value}"))
    return parts


def _interval(style: str, x: float, measure: Measure, score: Score, panel: Panel) -> str:
    _, low, high = measure.of(score)
    return whisker(x, panel.y(low), panel.y(high), class_=f"whisker {style}")


def _point(
    policy: PolicyScores, score: Score, measure: Measure, panel: Panel, *, chosen: bool, side: str | None, below: bool
) -> str:
    x, y = panel.x(policy.iteration or 0), panel.y(measure.of(score)[0])
    hint = f"{policy.label}: {measure.written(score)}, {words.counted(score)}" + (", chosen on validation" if chosen else "")
    parts = [_interval("student", x, measure, score, panel)]
    if chosen:
        parts.append(mark("circle", class_="chosen", cx=x, cy=y, r=8))
    parts.append(mark("circle", class_="dot student", cx=x, cy=y, r=4))
    if side is not None:  # where the curve is not
        across = x - 7 if side == "end" else x + 7
        up = y + 20 if below and y < panel.bottom - 24 else y - 12
        parts.append(mark("text", class_=f"value {side}", x=across, y=up, text=measure.written(score)))
    return mark("g", parts, hint=hint)


def losses(curve: Curve, name: str) -> Markup:
    """Returns the loss of a training by its steps."""
    width, height, last = 320, 150, curve[-1][0]
    top = float(f"{1.05 * max(loss for _, loss in curve) or 1:.1e}")
    panel = Panel(LEFT, 10, width - 26, height - BOTTOM, (0.0, float(last)), (0.0, top))  # half of a label is right of it
    parts = panel.rows(quarters(top, every=2)) + panel.columns([(0.0, "0"), (float(last), f"{last}")])
    parts.append(mark("polyline", class_="curve", points=panel.points(curve)))
    return Markup(chart(f"loss of {name}: from {curve[0][1]:.3g} to {curve[-1][1]:.3g} in {last} steps", parts, width, height))


def rail(parts: Sequence[str]) -> Markup:
    """Returns bands and ticks on a line from 0 to 100 %."""
    line = mark("line", class_="rail", x1=0, x2=100, y1=6, y2=6)
    return _strip("bar", 12, (line, *parts))


def _strip(css: str, height: int, parts: Sequence[str]) -> Markup:
    """Returns a drawing as wide as its cell."""
    box = {"viewBox": f"0 0 100 {height}", "preserveAspectRatio": "none", "aria_hidden": "true"}
    return Markup(mark("svg", parts, class_=css, **box))


def band(low: float, high: float, css: str, *, height: float = 6) -> str:
    """Returns an interval on a rail, in shares."""
    place = {"x": 100 * low, "width": 100 * (high - low), "y": 6 - height / 2, "height": height}
    return mark("rect", class_=f"band {css}", **place)


def tick(value: float, css: str) -> str:
    """Returns a share on a rail."""
    return mark("rect", class_=f"tickmark {css}", x=min(max(100 * value, 0.0), 99.2), width=0.8, y=0, height=12)


def bar(score: Score, css: str) -> Markup:
    """Returns a success rate on a line from 0 to 100 %: the interval as a band, the rate as a tick."""
    return rail((band(score.low, score.high, css), tick(score.success, css)))


def shares(parts: Sequence[tuple[str, float]], of: float) -> Markup:
    """Returns amounts as parts of one bar; `of` is the bar's full length."""
    drawn, at = [], 0.0
    for css, number in parts:
        width = 100 * number / of if of else 0.0
        drawn.append(mark("rect", class_=css, x=at, width=width, y=0, height=10))
        at += width
    return _strip("shares", 10, drawn)
