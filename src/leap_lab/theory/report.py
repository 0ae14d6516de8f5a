"""The study `theory`: every term of the bound beside what students reach, for each family of worlds, level and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field

from leap.core.record import Record
from leap.report.svg import Panel, mark, ticks
from leap_lab.studies.page import Page, Table
from leap_lab.studies.plots import WIDTH, Figure, axes, curve, legend, look, picture, seeds
from leap_lab.studies.schema import SearchWorld, TheoryStudy
from leap_lab.theory.run import Terms, run_leap
from leap_lab.theory.world import search_world

LOSSES = {"l1": "Students minimise the bound's own loss (L1)", "log": "Students minimise log loss, as SFT does"}
_SLACK = 1e-9  # rounding


class Measured(Record):
    """One world, one privilege level, one loss."""

    world: str
    seed: int
    prior: list[float]
    terms: Terms


class TheoryResults(Record):
    """Everything on the page of the study.

    Attributes:
        format: Version of this schema.
        name, claim, hypothesis: From the study.
        command: The command that makes the page.
        measured: By world, loss, level and seed.
        provenance: Versions, commit, machine.
    """

    format: int = 1
    name: str
    claim: str
    hypothesis: str
    command: str
    measured: list[Measured] = Field(default_factory=list)
    provenance: dict[str, object] = Field(default_factory=dict)


def measure(study: TheoryStudy, *, command: str, provenance: dict[str, object]) -> TheoryResults:
    """Computes everything."""
    measured = [
        Measured(world=family.name, seed=seed, prior=prior, terms=terms)
        for family in study.worlds
        for seed in study.seeds
        for prior, terms in _of_world(study, family, seed)
    ]
    return TheoryResults(
        name=study.name,
        claim=study.claim,
        hypothesis=study.hypothesis,
        command=command,
        measured=measured,
        provenance=provenance,
    )


def _of_world(study: TheoryStudy, family: SearchWorld, seed: int) -> list[tuple[list[float], Terms]]:
    prior = np.random.default_rng(seed).dirichlet(np.full(family.rooms, family.concentration)).tolist()
    world, expert = search_world(prior, horizon=family.horizon, answer=family.answer, slip=family.slip)
    return [
        (prior, run_leap(world, expert, privilege=level / 100, iterations=study.iterations, loss=loss))
        for loss in study.losses
        for level in study.levels
    ]


def theory_page(study: TheoryStudy, results: TheoryResults) -> Page:
    """Returns the study's page."""
    figures = [_figure(study, results, loss) for loss in study.losses]
    caption = (
        "Above: success of the privileged expert and of the student, and the bound on the best student, by privilege level; "
        "a bound below 0 says nothing and is cut off. Below: the bound's terms. Points are worlds (seeds), lines their means. "
    )
    return Page(
        name=results.name,
        claim=results.claim,
        hypothesis=results.hypothesis,
        notes=[*study.notes, *(_words(family) for family in study.worlds)],
        findings=_findings(study, results),
        figures=[(figure, caption + LOSSES[loss] + ".") for figure, loss in zip(figures, study.losses, strict=True)],
        tables=[_table(study, results, loss) for loss in study.losses],
        fine=[
            "Nothing is sampled: every figure is a sum over all states, exact but for rounding, so it has no interval; n is "
            f"every task there can be, and each seed is a world of its own ({len(study.seeds)} seeds). Best: of pi_0..pi_N, "
            "which the bound is about; last: pi_N. epsilon and gamma are L1 per step, H is the largest advantage by size, T the "
            "horizon.",
        ],
        provenance={"command": results.command, **results.provenance},
    )


def _words(family: SearchWorld) -> str:
    return (
        f"World {family.name}: {family.rooms} places, T = {family.horizon}, asking is answered with probability "
        f"{family.answer:g}, an action has no effect with probability {family.slip:g}, places' probabilities from a Dirichlet "
        f"distribution of parameter {family.concentration:g}."
    )


def _of(results: TheoryResults, world: str, loss: str, privilege: float) -> list[Measured]:
    return [
        one
        for one in results.measured
        if (one.world, one.terms.loss, round(100 * one.terms.privilege)) == (world, loss, round(100 * privilege))
    ]


def _findings(study: TheoryStudy, results: TheoryResults) -> list[str]:
    slack = [one.terms.student - one.terms.bound for one in results.measured]
    broken = sum(value < -_SLACK for value in slack)
    found = [
        f"The bound holds in {len(slack) - broken} of {len(slack)} cases (smallest slack {min(slack):.3f}); it is above 0, so "
        f"that it says something, in {sum(one.terms.bound > 0 for one in results.measured)}."
    ]
    for family in study.worlds:
        for loss in study.losses:
            best = [_best_levels(study, results, family.name, loss, seed, _student) for seed in study.seeds]
            last = [_best_levels(study, results, family.name, loss, seed, _last) for seed in study.seeds]
            found.append(
                f"{family.name}, {loss} loss: the best student of the sequence comes from {_said(best)}; the best "
                f"last student from {_said(last)}."
            )
    return found


def _student(terms: Terms) -> float:
    return terms.student


def _last(terms: Terms) -> float:
    return terms.students[-1]


def _best_levels(
    study: TheoryStudy, results: TheoryResults, world: str, loss: str, seed: int, value: Callable[[Terms], float]
) -> list[int]:
    own = {
        level: value(one.terms)
        for level in study.levels
        for one in _of(results, world, loss, level / 100)
        if one.seed == seed
    }
    top = max(own.values())
    return [level for level, reached in own.items() if reached >= top - _SLACK]


def _said(levels: Sequence[list[int]]) -> str:
    texts = ["any level" if len(own) > 2 else f"level {' or '.join(map(str, own))}" for own in levels]
    if len(set(texts)) == 1:
        return f"{texts[0]} in every seed"
    return ", ".join(texts) + " (by seed)"


def _table(study: TheoryStudy, results: TheoryResults, loss: str) -> Table:
    columns = ["world", "privilege", "J(expert)", "H", "epsilon", "gamma", "bound", "student: best", "last"]
    columns += [f"seed {seed}: bound, best, last" for seed in study.seeds]
    rows = []
    for family in study.worlds:
        for level in study.levels:
            found = [one.terms for one in _of(results, family.name, loss, level / 100)]
            values = (
                [one.expert for one in found],
                [one.recoverability for one in found],
                [one.epsilon for one in found],
                [one.gamma for one in found],
                [one.bound for one in found],
                [one.student for one in found],
                [_last(one) for one in found],
            )
            cells = [f"{np.mean(own):.3f}" for own in values]
            by_seed = [f"{one.bound:.3f}, {one.student:.3f}, {_last(one):.3f}" for one in found]
            rows.append([family.name, f"{level} %", *cells, *by_seed])
    return Table(f"{LOSSES[loss]}: means over worlds, then each world", columns, rows, left=2)


def _figure(study: TheoryStudy, results: TheoryResults, loss: str) -> Figure:
    above: dict[str, Callable[[Terms], float]] = {
        "student, best": _student,
        "student, last": _last,
        "privileged expert": lambda terms: terms.expert,
        "bound on the best": lambda terms: terms.bound,
    }
    below: dict[str, Callable[[Terms], float]] = {
        "ε, realizability": lambda terms: terms.epsilon,
        "γ, regret": lambda terms: terms.gamma,
        "H, recoverability": lambda terms: terms.recoverability,
    }
    ends = (float(min(study.levels)), float(max(study.levels)))
    width = (WIDTH - 64 - 170) / len(study.worlds)
    most = 1.05 * max(value(one.terms) for one in results.measured for value in below.values())
    words, parts = [], []
    for column, family in enumerate(study.worlds):
        left = 64 + width * column
        top = Panel(left, 28, left + width - 12, 276, ends, (-0.03, 1.04), pad=14)
        bottom = Panel(left, 292, left + width - 12, 420, ends, (0.0, most), pad=14)
        parts.append(mark("text", class_="middle", x=(top.left + top.right) / 2, y=18, text=family.name))
        for panel, lines, first in ((top, above, 0), (bottom, below, len(above))):
            rows = ticks(*panel.ys, 6)
            parts += panel.rows(rows if column == 0 else [(value, "") for value, _ in rows])
            parts += panel.columns([(at, f"{at}" if panel is bottom else "") for at in (0, 25, 50, 75, 100)], grid=True)
            for place, (name, value) in enumerate(lines.items(), start=first):
                by_level = [
                    [value(one.terms) for one in _of(results, family.name, loss, level / 100)] for level in study.levels
                ]
                means = [float(np.mean(own)) for own in by_level]
                drawn = [curve(panel, zip(study.levels, means, strict=True), look(place), width=1.6)]
                for level, own in zip(study.levels, by_level, strict=True):
                    drawn += seeds(panel, level, own, look(place), spread=1.5)
                parts.append(panel.clipped(drawn))
                if panel is top:
                    told = ", ".join(f"{level} %: {mean:.2f}" for level, mean in zip(study.levels, means, strict=True))
                    words.append(f"{family.name}, {name}: {told}")
            names = ("success, J", "terms") if column == 0 else ("", "")
            parts += axes(panel, rows=names[panel is bottom])
            if column == len(study.worlds) - 1:
                parts += legend([(name, look(place), True) for place, name in enumerate(lines, start=first)], panel)
    across = 64 + width * len(study.worlds) / 2
    parts.append(mark("text", class_="middle", x=across, y=460, text="privilege of the expert, %"))
    return Figure(f"plot-{loss}", picture(parts, 470), "; ".join(words) + ".")
