"""The study `theory`: every term of the bound beside what students reach, for each family of worlds, level and seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from leap.core.record import Record
from leap.report.svg import Panel, mark
from leap_lab.studies.marks import clipped, ticks
from leap_lab.studies.page import Page, Table
from leap_lab.studies.plots import WIDTH, Figure, axes, curve, legend, look, picture, seeds
from leap_lab.studies.schema import SearchWorld, TheoryStudy
from leap_lab.theory.run import Terms, run_leap
from leap_lab.theory.world import search_world

LOSSES = {
    "l1": "Students minimise the bound's own loss (L1)",
    "log": "Students minimise log loss, as SFT does",
    "forward": "Students minimise KL(expert || student), forward",
    "reverse": "Students minimise KL(student || expert), reverse",
}
COLUMNS = {"J(expert)": "expert", "H": "recoverability", "epsilon": "epsilon", "gamma": "gamma", "bound": "bound"}
COLUMNS |= {"student: best": "student", "last": "last"}
ABOVE = {"student, best": "student", "student, last": "last", "privileged expert": "expert", "bound on the best": "bound"}
BELOW = {"ε, realizability": "epsilon", "γ, regret": "gamma", "H, recoverability": "recoverability"}
"""Columns of the tables, lines of the plots' upper and lower panels: fields of `Terms` by their names there."""
_SLACK = 1e-9  # rounding


class Measured(Record):
    """One world, one privilege level, one loss."""

    world: str
    seed: int
    prior: list[float]
    terms: Terms


class TheoryResults(Record):
    """Everything on the page of the study; `measured` is by world, seed, loss and level."""

    format: int = 1
    name: str
    claim: str
    hypothesis: str
    command: str
    measured: list[Measured] = Field(default_factory=list)
    provenance: dict[str, object] = Field(default_factory=dict)

    def values(self, world: str, loss: str, level: int, term: str) -> list[float]:
        """Returns a term of each seed's world."""
        found = [one.terms for one in self.measured if (one.world, one.terms.loss) == (world, loss)]
        return [getattr(terms, term) for terms in found if round(100 * terms.privilege) == level]


def measure(study: TheoryStudy, *, command: str, provenance: dict[str, object]) -> TheoryResults:
    """Computes everything."""
    return TheoryResults(
        **study.model_dump(include={"name", "claim", "hypothesis"}),
        command=command,
        measured=[one for family in study.worlds for seed in study.seeds for one in _measured(study, family, seed)],
        provenance=provenance,
    )


def _measured(study: TheoryStudy, family: SearchWorld, seed: int) -> Iterator[Measured]:
    prior = np.random.default_rng(seed).dirichlet(np.full(family.rooms, family.concentration)).tolist()
    world, expert = search_world(prior, horizon=family.horizon, answer=family.answer, slip=family.slip)
    for loss in study.losses:
        for level in study.levels:
            how = {"iterations": study.iterations, "loss": loss, "floor": study.floor}
            terms = run_leap(world, expert, privilege=level / 100, **how)
            yield Measured(world=family.name, seed=seed, prior=prior, terms=terms)


def theory_page(study: TheoryStudy, results: TheoryResults) -> Page:
    """Returns the study's page."""
    return Page(
        study=study,
        notes=[*study.notes, *(_words(family) for family in study.worlds)],
        findings=_findings(study, results),
        figures=[_figure(study, results, loss) for loss in study.losses],
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


def _findings(study: TheoryStudy, results: TheoryResults) -> list[str]:
    slack = [one.terms.student - one.terms.bound for one in results.measured]
    found = [
        f"The bound holds in {sum(value >= -_SLACK for value in slack)} of {len(slack)} cases (smallest slack "
        f"{min(slack):.3f}); it is above 0, so that it says something, in "
        f"{sum(one.terms.bound > 0 for one in results.measured)}."
    ]
    for world in (family.name for family in study.worlds):
        for loss in study.losses:
            best, last = (_best_levels(study, results, world, loss, term) for term in ("student", "last"))
            found.append(
                f"{world}, {loss} loss: the best student of the sequence comes from {best}; the best last student from "
                f"{last}."
            )
    return found


def _best_levels(study: TheoryStudy, results: TheoryResults, world: str, loss: str, term: str) -> str:
    """Returns, in words, the privilege levels from which a student of each seed reaches most."""
    reached = {level: results.values(world, loss, level, term) for level in study.levels}
    texts = []
    for own in zip(*reached.values(), strict=True):
        best = [str(level) for level, value in zip(reached, own, strict=True) if value >= max(own) - _SLACK]
        texts.append("any level" if len(best) > 2 else f"level {' or '.join(best)}")
    if len(set(texts)) == 1:
        return f"{texts[0]} in every seed"
    return ", ".join(texts) + " (by seed)"


def _table(study: TheoryStudy, results: TheoryResults, loss: str) -> Table:
    rows = []
    for world in (family.name for family in study.worlds):
        for level in study.levels:
            values = {term: results.values(world, loss, level, term) for term in COLUMNS.values()}
            by_seed = zip(values["bound"], values["student"], values["last"], strict=True)
            cells = [f"{np.mean(own):.3f}" for own in values.values()]
            rows.append([world, f"{level} %", *cells, *(", ".join(f"{one:.3f}" for one in three) for three in by_seed)])
    columns = ["world", "privilege", *COLUMNS, *(f"seed {seed}: bound, best, last" for seed in study.seeds)]
    return Table(f"{LOSSES[loss]}: means over worlds, then each world", columns, rows, left=2)


def _figure(study: TheoryStudy, results: TheoryResults, loss: str) -> Figure:
    ends = (float(min(study.levels)), float(max(study.levels)))
    width = (WIDTH - 64 - 170) / len(study.worlds)
    most = 1.05 * max(getattr(one.terms, term) for one in results.measured for term in BELOW.values())
    words, parts = [], []
    for column, world in enumerate(family.name for family in study.worlds):
        left = 64 + width * column
        top = Panel(left, 28, left + width - 12, 276, ends, (-0.03, 1.04), pad=14)
        bottom = Panel(left, 292, left + width - 12, 420, ends, (0.0, most), pad=14)
        parts.append(mark("text", class_="middle", x=(top.left + top.right) / 2, y=18, text=world))
        for panel, lines, first in ((top, ABOVE, 0), (bottom, BELOW, len(ABOVE))):
            rows = ticks(*panel.ys, 6)
            parts += panel.rows(rows if column == 0 else [(value, "") for value, _ in rows])
            parts += panel.columns([(at, f"{at}" if panel is bottom else "") for at in (0, 25, 50, 75, 100)], grid=True)
            for place, (name, term) in enumerate(lines.items(), start=first):
                by_level = {level: results.values(world, loss, level, term) for level in study.levels}
                means = [(level, float(np.mean(own))) for level, own in by_level.items()]
                drawn = [curve(panel, means, look(place), width=1.6)]
                for level, own in by_level.items():
                    drawn += seeds(panel, level, own, look(place), spread=1.5)
                parts.append(clipped(panel, drawn))
                if panel is top:
                    words.append(f"{world}, {name}: " + ", ".join(f"{level} %: {mean:.2f}" for level, mean in means))
            names = ("success, J", "terms") if column == 0 else ("", "")
            parts += axes(panel, rows=names[panel is bottom])
            if column == len(study.worlds) - 1:
                parts += legend([(name, look(place), True) for place, name in enumerate(lines, start=first)], panel)
    across = 64 + width * len(study.worlds) / 2
    parts.append(mark("text", class_="middle", x=across, y=460, text="privilege of the expert, %"))
    caption = (
        "Above: success of the privileged expert and of the student, and the bound on the best student, by privilege level; "
        "a bound below 0 says nothing and is cut off. Below: the bound's terms. Points are worlds (seeds), lines their means. "
    )
    return Figure(f"plot-{loss}", picture(parts, 470), "; ".join(words) + ".", f"{caption}{LOSSES[loss]}.")
