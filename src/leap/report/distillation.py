"""The report's section on a student that learns from its own weights with the privileged state in the prompt."""

from __future__ import annotations

import json

from jinja2 import Environment as Jinja
from pydantic import ValidationError

from leap.core.record import Record
from leap.recipe import Recipe
from leap.report import words
from leap.report.model import Report
from leap.report.sections import Section
from leap.runs.directory import RunDirectory, marker
from leap.stats import wilson


class Figures(Record):
    """What was measured on own answers of pi_{i-1}; see `leap.training.diagnostics`."""

    answers: int
    kl: float
    kl_by_turn: list[tuple[int, float, int]]
    wrong: int
    right: int
    separation: float | None
    entropy: float
    by_kind: tuple[tuple[str, float], ...] = ()
    alike: float | None = None
    bias: tuple[tuple[str, float, int], ...] = ()


class Distilled(Record):
    """What a training of pi_i by `distill` noted: shares of so many validation tasks that pi_{i-1} solves without and with the
    privileged state, how many answers were taught in all, and figures before and after."""

    iteration: int
    success: float | None = None
    privileged: float | None = None
    tasks: int = 0
    retired: bool = False
    taught: int = 0
    before: Figures | None = None
    after: Figures | None = None


class Distillation(Section[list[Distilled]]):
    """What the teacher had to give, and what the student took of it, by iteration."""

    title = "Distillation"

    def read(self, recipe: Recipe, run: RunDirectory, notes: list[str]) -> list[Distilled] | None:
        found = []
        for i in range(1, recipe.iterations + 1):
            try:
                told = json.loads(marker(run.checkpoint(i)).read_bytes())["result"]["figures"]["distill"]
                told = {name: value or None if name in ("before", "after") else value for name, value in told.items()}
                found.append(Distilled.model_validate({"iteration": i} | told))
            except (OSError, KeyError, TypeError):  # no such training, or none that is finished
                continue
            except (ValueError, ValidationError):
                notes.append(f"what the distillation of pi_{i} noted cannot be read and is left out.")
        return found or None

    def render(self, data: list[Distilled], report: Report, jinja: Jinja) -> str:
        rows = [Distilled.model_validate(one) for one in data]
        template = jinja.get_template("distillation.html.j2")
        return template.render(rows=rows, setup=report.setup, percent=words.percent, wilson=wilson)
