"""The charts of the report's section on realizability, in the style of the learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from leap.report import words
from leap.report.charts import BOTTOM, HEIGHT, LABELLED, LEFT, PERCENT, TOP, band, rail, shares, tick
from leap.report.svg import Panel, apart, chart, mark, quarters, whisker
from leap_lab.measures.figures import Figure
from leap_lab.measures.records import IterationMeasures, Recoverability

RIGHT = 66  # room for the labels of the lines
COSTS = ("r-0", "r-1", "r-2", "r-3", "r-dead")
"""Classes of what a step cost: 0, 1, 2, 3 or more actions, everything."""


def gap(measures: Sequence[IterationMeasures], *, width: int) -> Markup:
    """Returns nats per answer of held-out corrections, before (hollow) and after (solid) training on each iteration."""
    found = [(one.iteration, one.likelihood) for one in measures if one.likelihood is not None]
    sides = [side.per_answer for _, gap in found for side in (gap.before, gap.after)]
    top = _round_top(max((side.high or side.value for side in sides), default=1.0))
    panel = Panel(LEFT, TOP, width - 24, HEIGHT - BOTTOM, (-0.5, max(1, len(found)) - 0.5), (0.0, top))
    spread = min(34.0, (panel.x(1) - panel.x(0)) / 4)
    parts = panel.rows(quarters(top))
    parts += panel.columns((place, f"{words.pi(i - 1)} → {words.pi(i)}") for place, (i, _) in enumerate(found))
    said, curves = [], []
    for place, (_, one) in enumerate(found):
        ends = []
        worse = one.after.per_answer.value > one.before.per_answer.value
        for side, shift, css in ((one.before, -spread, "hollow"), (one.after, spread, "dot student")):
            value, x = side.per_answer, panel.x(place) + shift
            name, written = policy(side.policy), digits(value.value)
            y = panel.y(value.value)
            low = y if value.low is None else panel.y(value.low)
            high = y if value.high is None else panel.y(value.high)
            ends += [f"{x:.1f},{y:.1f}"]
            inside = [whisker(x, low, high, class_="whisker student"), mark("circle", class_=css, cx=x, cy=y, r=4)]
            if len(found) <= LABELLED or place in (0, len(found) - 1):
                above = (side is one.after) == worse or low > panel.bottom - 16
                inside.append(mark("text", class_="value middle", x=x, y=high - 7 if above else low + 15, text=written))
            hint = f"{name}: {written} nats per answer, n = {value.n}, {value.episodes} episodes"
            parts.append(mark("g", inside, hint=hint))
            said.append(f"{name} {written}")
        curves.append(mark("polyline", class_="curve", points=" ".join(ends)))
    words_said = f"nats per held-out correction before and after training: {'; '.join(said)}"
    return Markup(chart(words_said, [*curves, *parts], width, HEIGHT))


def agreement(measures: Sequence[IterationMeasures], *, width: int) -> Markup:
    """Returns the share of steps at which the student does what the teacher would, by step, on its own held-out states."""
    curves = []
    for one in measures:
        if one.held_out is not None and any(one.held_out.agreement_by_step):
            points = [(t, f) for t, f in enumerate(one.held_out.agreement_by_step) if f is not None]
            curves.append((words.pi(one.iteration), points, one.held_out.agreement))
    last = max(1, max((t for _, points, _ in curves for t, _ in points), default=1))
    panel = Panel(LEFT, TOP, width - RIGHT, HEIGHT - BOTTOM, (0.0, float(last)), (0.0, 1.0), pad=10)
    parts = panel.rows(PERCENT) + panel.columns((t, str(t)) for t in range(0, last + 1, max(1, math.ceil(last / 10))))
    for place, (name, points, _) in enumerate(curves):
        now = place == len(curves) - 1
        if now:
            edge = [(t, f.high) for t, f in points if f.high is not None]
            edge += [(t, f.low) for t, f in reversed(points) if f.low is not None]
            parts.append(mark("polygon", class_="range", points=panel.points(edge)))
        parts.append(
            mark(
                "polyline",
                hint=name,
                class_=f"curve {'now' if now else 'then'}",
                opacity=0.35 + 0.65 * (place + 1) / len(curves),
                points=panel.points((t, f.value) for t, f in points),
            )
        )
        for t, f in points if now else ():
            hint = f"{name}, step {t}: {words.percent(f.value, f.n)}, n = {f.n}"
            parts.append(mark("circle", hint=hint, class_="dot student", cx=panel.x(t), cy=panel.y(f.value), r=2.6))
    heights = apart([panel.y(points[-1][1].value) for _, points, _ in curves], TOP, panel.bottom)
    for (name, _, whole), y in zip(curves, heights, strict=True):
        label = f"{name} {words.percent(whole.value, 1)}" if whole else name
        parts.append(mark("text", class_="label student", x=panel.right + 2, y=y + 4, text=label))
    said = "; ".join(f"{name} {words.percent(whole.value, whole.n)}" for name, _, whole in curves if whole)
    return Markup(chart(f"agreement with the teacher by step: {said}", parts, width, HEIGHT))


def costs(planned: Recoverability) -> Markup:
    """Returns what a step cost, as parts of one bar."""
    told = planned.losses
    dead = planned.dead_ends
    steps = dead.n if dead else sum(told)
    at_all = [*told[:3], *[0] * (3 - len(told[:3])), sum(told[3:]), max(0, steps - sum(told))]
    return shares(list(zip(COSTS, at_all, strict=True)), steps)


def standing(teacher: Figure, measured: Figure, expected: float | None, floor: float | None) -> Markup:
    """Returns J from 0 to 100 %: the measured interval as a band, the teacher's value, the account of means, and the floor."""
    parts = [band(floor, 1.0, "other", height=4)] if floor is not None and floor > 0 else []
    parts.append(band(measured.low or 0.0, 1.0 if measured.high is None else measured.high, "student"))
    parts += [tick(measured.value, "student"), tick(teacher.value, "teacher-with")]
    if expected is not None:
        parts.append(tick(expected, "other"))
    return rail(parts)


def _round_top(value: float) -> float:
    """Returns the next number above of which a quarter is easy to read."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10, 12) if unit * step >= value)


def policy(name: str) -> str:
    """`pi_2` as π₂."""
    return words.pi(int(name[3:])) if name.startswith("pi_") and name[3:].isdecimal() else name


def digits(value: float) -> str:
    """Returns a measured number with about three digits, a real minus sign and never an exponent."""
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.0005:
        return "< 0.001" if value > 0 else "> −0.001"
    places = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.0995 else 3
    return f"{value:.{places}f}".replace("-", "−")


def signed(value: float) -> str:
    """Returns a change, with its sign."""
    written = digits(value)
    return f"+{written}" if value > 0 and written[0] != "<" else written
