"""The charts of the section on realizability, in the style of the learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from leap.report import words
from leap.report.charts import BOTTOM, HEIGHT, LABELLED, LEFT, TOP, _apart, _whisker, shares
from leap_lab.measures import Figure, IterationMeasures
from leap_lab.measures.records import Recoverability

RIGHT = 66  # room for the labels of the lines
COSTS = ("r-0", "r-1", "r-2", "r-3", "r-dead")
"""Classes of what a step cost: 0, 1, 2, 3 or more actions, everything."""


def gap(measures: Sequence[IterationMeasures], *, width: int) -> Markup:
    """Nats per answer of held-out corrections, before (hollow) and after (solid) training on each iteration."""
    found = [(one.iteration, one.likelihood) for one in measures if one.likelihood is not None]
    sides = [side.per_answer for _, gap in found for side in (gap.before, gap.after)]
    top = _round_top(max((side.high or side.value for side in sides), default=1.0))
    right, inner = width - 24, width - 24 - LEFT
    slot = inner / max(1, len(found))
    spread = min(34.0, slot / 4)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)

    parts = _grid(top, y, right, lambda value: f"{value:g}")
    said = []
    for place, (i, one) in enumerate(found):
        middle = LEFT + slot * (place + 0.5)
        ends = []
        worse = one.after.per_answer.value > one.before.per_answer.value
        for side, x, css in ((one.before, middle - spread, "hollow"), (one.after, middle + spread, "dot student")):
            value = side.per_answer
            name, written = words.policy(side.policy), words.digits(value.value)
            hint = escape(f"{name}: {written} nats per answer, n = {value.n}, {value.episodes} episodes")
            low = y(value.value if value.low is None else value.low)
            high = y(value.value if value.high is None else value.high)
            ends.append((x, y(value.value)))
            label = ""
            if len(found) <= LABELLED or place in (0, len(found) - 1):
                above = (side is one.after) == worse or low > HEIGHT - BOTTOM - 16
                label = (
                    f'<text class="value middle" x="{x:.1f}" y="{high - 7 if above else low + 15:.1f}">{written}</text>'
                )
            dot = f'<circle class="{css}" cx="{x:.1f}" cy="{y(value.value):.1f}" r="4"/>'
            parts.append(f"<g><title>{hint}</title>{_whisker('whisker student', x, low, high)}{dot}{label}</g>")
            said.append(f"{name} {written}")
        (x1, y1), (x2, y2) = ends
        parts.insert(0, f'<line class="curve" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
        parts.append(
            f'<text class="tick middle" x="{middle:.1f}" y="{HEIGHT - 8}">{words.pi(i - 1)} → {words.pi(i)}</text>'
        )
    return _svg(f"nats per held-out correction before and after training: {'; '.join(said)}", parts, width)


def agreement(measures: Sequence[IterationMeasures], *, width: int) -> Markup:
    """Share of steps at which the student does what the teacher would, by step, on held-out states of its own."""
    curves = []
    for one in measures:
        if one.held_out is not None and any(one.held_out.agreement_by_step):
            points = [(t, f) for t, f in enumerate(one.held_out.agreement_by_step) if f is not None]
            curves.append((words.pi(one.iteration), points, one.held_out.agreement))
    last = max((t for _, points, _ in curves for t, _ in points), default=1)
    right = width - RIGHT

    def x(t: float) -> float:
        return LEFT + 10 + (right - LEFT - 20) * t / max(1, last)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value)

    parts = _grid(
        1.0, y, right, lambda value: f"{100 * value:.0f}{words.THIN}%" if value in (0, 1) else f"{100 * value:.0f}"
    )
    every = max(1, math.ceil(last / 10))
    for t in range(0, last + 1, every):
        parts.append(f'<text class="tick middle" x="{x(t):.1f}" y="{HEIGHT - 8}">{t}</text>')
    heights = []
    for place, (name, points, _) in enumerate(curves):
        css = "now" if place == len(curves) - 1 else "then"
        if css == "now":
            band = [f"{x(t):.1f},{y(f.high):.1f}" for t, f in points if f.high is not None]
            band += [f"{x(t):.1f},{y(f.low):.1f}" for t, f in reversed(points) if f.low is not None]
            parts.append(f'<polygon class="range" points="{" ".join(band)}"/>')
        line = " ".join(f"{x(t):.1f},{y(f.value):.1f}" for t, f in points)
        strength = 0.35 + 0.65 * (place + 1) / len(curves)
        parts.append(
            f'<polyline class="curve {css}" opacity="{strength:.2f}" points="{line}"><title>{name}</title></polyline>'
        )
        if css == "now":
            parts += [_dot(name, t, f, x(t), y(f.value)) for t, f in points]
        heights.append(y(points[-1][1].value))
    for (name, _, whole), place in zip(curves, _apart(heights), strict=True):
        share = f" {words.percent(whole.value, 1)}" if whole else ""
        parts.append(f'<text class="label student" x="{right + 2}" y="{place + 4:.1f}">{name}{share}</text>')
    said = "; ".join(f"{name} {words.percent(whole.value, whole.n)}" for name, _, whole in curves if whole)
    return _svg(f"agreement with the teacher by step: {said}", parts, width)


def costs(planned: Recoverability) -> Markup:
    """What a step cost, as parts of one bar."""
    told = planned.losses
    dead = planned.dead_ends
    steps = dead.n if dead else sum(told)
    at_all = [*told[:3], *[0] * (3 - len(told[:3])), sum(told[3:]), max(0, steps - sum(told))]
    return shares(list(zip(COSTS, at_all, strict=True)), steps)


def standing(teacher: Figure, measured: Figure, expected: float | None, floor: float | None) -> Markup:
    """J from 0 to 100 %: the measured interval as a band, the teacher's value, the account of means, and the floor."""

    def mark(value: float, css: str) -> str:
        return f'<rect class="tickmark {css}" x="{min(max(100 * value, 0), 99.2):.2f}" width="0.8" y="0" height="12"/>'

    low, high = 100 * (measured.low or 0.0), 100 * (1.0 if measured.high is None else measured.high)
    parts = ['<line class="rail" x1="0" x2="100" y1="6" y2="6"/>']
    if floor is not None and floor > 0:
        parts.append(
            f'<rect class="band other" x="{100 * floor:.2f}" width="{100 - 100 * floor:.2f}" y="4" height="4"/>'
        )
    parts.append(f'<rect class="band student" x="{low:.2f}" width="{high - low:.2f}" y="3" height="6"/>')
    parts += [mark(measured.value, "student"), mark(teacher.value, "teacher-with")]
    if expected is not None:
        parts.append(mark(expected, "other"))
    return Markup(
        f'<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'
    )


def _dot(name: str, t: int, figure: Figure, x: float, y: float) -> str:
    hint = escape(f"{name}, step {t}: {words.percent(figure.value, figure.n)}, n = {figure.n}")
    return f'<circle class="dot student" cx="{x:.1f}" cy="{y:.1f}" r="2.6"><title>{hint}</title></circle>'


def _grid(top: float, y: Callable[[float], float], right: float, tick: Callable[[float], str]) -> list[str]:
    parts = []
    for quarter in range(5):
        value = top * quarter / 4
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y(value) + 4:.1f}">{tick(value)}</text>')
    return parts


def _round_top(value: float) -> float:
    """The next number above of which a quarter is easy to read."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10, 12) if unit * step >= value)


def _svg(title: str, parts: Sequence[str], width: int) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
