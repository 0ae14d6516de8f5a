"""A study's plots, as SVG by matplotlib: colour-blind safe (Okabe & Ito), told apart by marker and dash too, so that a
print without colour can be read. Seeds are points; lines and bars are means over seeds with 95 % intervals over tasks and
seeds. No title within: the page has captions.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from leap.errors import PrerequisiteError
from leap_lab.studies.results import Row, StudyResults
from leap_lab.studies.schema import AxisPlot, IterationsPlot, LoopStudy, Plot, PoliciesPlot

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1.5, 2)), (0, (3, 1.5)), (0, (8, 2)), (0, (2, 3)))
_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "leap",  # the same results give the same file
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}


class Figure(NamedTuple):
    """A plot.

    Attributes:
        name: The file's name, without its ending.
        svg: The picture.
        alt: What it shows, in words.
    """

    name: str
    svg: str
    alt: str


@contextmanager
def canvas(
    rows: int = 1, columns: int = 1, *, height: float = 3.4, width: float = 7.2, **more: Any
) -> Iterator[tuple[Any, Any, Callable[[], str]]]:
    """A matplotlib figure, its axes, and a function that gives its SVG.

    Raises:
        PrerequisiteError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as MplFigure
    except ImportError as error:
        raise PrerequisiteError("plots need matplotlib: pip install 'leap-agents[studies]'") from error
    with matplotlib.rc_context(_STYLE):
        figure = MplFigure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, **more)

        def svg() -> str:
            out = io.StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
            text = out.getvalue()
            return text[text.index("<svg") :]

        yield figure, axes, svg


def draw(study: LoopStudy, results: StudyResults) -> list[Figure]:
    """The study's plots, of what there is; a plot of nothing is left out."""
    figures = []
    for number, plot in enumerate(study.plots, start=1):
        made = _draw(plot, study, results)
        if made:
            name = f"plot-{number}" if len(study.plots) > 1 else "plot"
            figures.append(Figure(name, *made))
    return figures


def _draw(plot: Plot, study: LoopStudy, results: StudyResults) -> tuple[str, str] | None:
    if isinstance(plot, IterationsPlot):
        return _iterations(plot, study, results)
    if isinstance(plot, PoliciesPlot):
        return _policies(plot, study, results)
    return _along_axis(plot, study, results)


def points(axis: Any, x: float, values: Sequence[float], *, colour: str, marker: str, spread: float = 0.0) -> None:
    """Seeds, side by side if need be."""
    middle = (len(values) - 1) / 2
    at = [x + (place - middle) * spread for place in range(len(values))]
    axis.plot(at, values, linestyle="none", marker=marker, markersize=4.2, color=colour, alpha=0.75, markeredgewidth=0)


def _iterations(plot: IterationsPlot, study: LoopStudy, results: StudyResults) -> tuple[str, str] | None:
    arms = [arm for arm in plot.arms or results.arms if any(row.arm == arm for row in results.curves)]
    if not arms:
        return None
    lines = [row for pattern in plot.lines for ref in study.refs(pattern) if (row := _find(results, *ref))]
    words = []
    with canvas(height=3.6) as (_, axis, svg):
        last = 0
        for place, arm in enumerate(arms):
            rows = [row for row in results.curves if row.arm == arm]
            at = [int(row.policy.removeprefix("pi_")) + 0.05 * (place - (len(arms) - 1) / 2) for row in rows]
            last = max(last, len(rows) - 1)
            colour, marker, dash = look(place)
            means = [100 * row.success.value for row in rows]
            axis.errorbar(at, means, yerr=_errors(rows), color=colour, linestyle=dash, linewidth=1.7, elinewidth=0.9, capsize=2)
            for x, row in zip(at, rows, strict=True):
                points(axis, x, [100 * one.success for one in row.seeds], colour=colour, marker=marker)
            axis.plot([], [], color=colour, linestyle=dash, marker=marker, markersize=4.2, linewidth=1.7, label=arm)
            words.append(f"{arm}: " + ", ".join(f"{row.policy} {mean:.0f} %" for row, mean in zip(rows, means, strict=True)))
        for place, row in enumerate(lines, start=len(arms)):
            colour, _, dash = look(place)
            label = _label(row, several=len({line.arm for line in lines}) > 1)
            axis.axhline(100 * row.success.value, color=colour, linestyle=dash, linewidth=1.2, label=label)
            words.append(f"{label}: {100 * row.success.value:.0f} %")
        axis.set_xticks(range(last + 1), [f"π{_subscript(i)}" for i in range(last + 1)])
        axis.set_xlabel("policy after each iteration")
        _success(axis, results)
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return svg(), "Success by iteration. " + "; ".join(words) + "."


def _policies(plot: PoliciesPlot, study: LoopStudy, results: StudyResults) -> tuple[str, str] | None:
    wanted = [ref for pattern in plot.show for ref in study.refs(pattern)] or [(row.arm, row.policy) for row in results.rows]
    rows = [row for ref in dict.fromkeys(wanted) if (row := _find(results, *ref))]
    if not rows:
        return None
    several = len({row.arm for row in rows}) > 1
    with canvas(height=0.9 + 0.36 * len(rows)) as (_, axis, svg):
        for place, row in enumerate(rows):
            y = len(rows) - 1 - place
            baseline = not row.policy.startswith(("pi_", "best", "last"))
            colour = COLOURS[1] if baseline else COLOURS[0]
            value, error = 100 * row.success.value, _errors([row])
            axis.errorbar([value], [y], xerr=error, color=colour, marker="|", markersize=13, markeredgewidth=2, capsize=2.5)
            seeds = [100 * one.success for one in row.seeds]
            height = [y - 0.2] * len(seeds)
            axis.plot(seeds, height, "s" if baseline else "o", color=colour, markersize=4, alpha=0.75, markeredgewidth=0)
        axis.set_yticks(range(len(rows) - 1, -1, -1), [_label(row, several=several) for row in rows])
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(f"success on {results.split}, %")
        axis.set_xlim(*_range(rows))
        words = "; ".join(f"{_label(row, several=several)} {100 * row.success.value:.0f} %" for row in rows)
        return svg(), f"Success of each policy, seeds as points. {words}."


def _along_axis(plot: AxisPlot, study: LoopStudy, results: StudyResults) -> tuple[str, str] | None:
    found = {policy: [row for arm in results.arms if (row := _find(results, arm, policy))] for policy in plot.policies}
    if not any(found.values()):
        return None
    label = study.axes[0].label or study.axes[0].key
    at = results.axis
    width = (max(at.values()) - min(at.values()) or 1) / max(1, len(at) - 1)
    gaps = plot.gap and bool(results.gaps)
    words = []
    ratios = {"gridspec_kw": {"height_ratios": [2.2, 1]}, "sharex": True} if gaps else {}
    with canvas(2 if gaps else 1, height=5.0 if gaps else 3.6, **ratios) as (_, axes, svg):
        top = axes[0] if gaps else axes
        for place, (policy, rows) in enumerate(found.items()):
            colour, marker, dash = look(place)
            x = [at[row.arm] + width * 0.04 * (place - (len(found) - 1) / 2) for row in rows]
            means = [100 * row.success.value for row in rows]
            top.errorbar(x, means, yerr=_errors(rows), color=colour, linestyle=dash, linewidth=1.7, elinewidth=0.9, capsize=2)
            for one, row in zip(x, rows, strict=True):
                points(top, one, [100 * seed.success for seed in row.seeds], colour=colour, marker=marker)
            name = policy_words(policy)
            top.plot([], [], color=colour, linestyle=dash, marker=marker, markersize=4.2, linewidth=1.7, label=name)
            words.append(f"{name}: " + ", ".join(f"{row.arm} {mean:.0f} %" for row, mean in zip(rows, means, strict=True)))
        _success(top, results)
        top.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        if gaps:
            by_arm: dict[str, list[float]] = {}
            for gap in results.gaps:
                by_arm.setdefault(gap.arm, []).append(gap.nats)
            arms = [arm for arm in results.arms if arm in by_arm]
            means = [sum(by_arm[arm]) / len(by_arm[arm]) for arm in arms]
            axes[1].plot([at[arm] for arm in arms], means, color=COLOURS[6], linewidth=1.4)
            for arm in arms:
                points(axes[1], at[arm], by_arm[arm], colour=COLOURS[6], marker="D")
            axes[1].set_ylabel("gap, nats per\nanswer")
            axes[1].set_ylim(bottom=0)
            words.append("realizability gap: " + ", ".join(f"{a} {m:.2f}" for a, m in zip(arms, means, strict=True)))
        bottom = axes[1] if gaps else axes
        bottom.set_xlabel(label)
        bottom.set_xticks(list(at.values()), list(at))
        return svg(), f"Success along {label}. " + "; ".join(words) + "."


_WORDS = {
    "best": "student, chosen on validation",
    "last": "student, last iteration",
    "teacher": "teacher with its privilege",
    "teacher-0": "teacher without privilege",
    "expert": "unprivileged expert",
    "react": "ReAct",
}


def policy_words(policy: str) -> str:
    """A policy's name for people."""
    name, _, kind = policy.partition("@")
    return _WORDS.get(name, name) + (f" ({kind})" if kind else "")


def look(place: int) -> tuple[str, str, Any]:
    """Colour, marker and dash of the n-th line."""
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)], DASHES[place % len(DASHES)]


def _find(results: StudyResults, arm: str, policy: str) -> Row | None:
    return next((row for row in results.rows if (row.arm, row.policy) == (arm, policy)), None)


def _label(row: Row, *, several: bool) -> str:
    name = policy_words(row.policy)
    return f"{row.arm}: {name}" if several else name


def _errors(rows: Sequence[Row]) -> list[list[float]]:
    below = [max(0.0, 100 * (row.success.value - row.success.low_all)) for row in rows]
    return [below, [max(0.0, 100 * (row.success.high_all - row.success.value)) for row in rows]]


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    lows = [min(row.success.low_all, *(seed.success for seed in row.seeds)) for row in rows]
    highs = [max(row.success.high_all, *(seed.success for seed in row.seeds)) for row in rows]
    return max(-1.5, 100 * min(lows) - 4), min(101.5, 100 * max(highs) + 4)


def _success(axis: Any, results: StudyResults) -> None:
    axis.set_ylabel(f"success on {results.split}, %")
    low, high = axis.get_ylim()
    axis.set_ylim(max(-2.0, low), min(102.0, high))


def _subscript(number: int) -> str:
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))

