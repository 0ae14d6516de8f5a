"""The report's section on whole attempts: how much more of the validation tasks a student solves if it may try again."""

from __future__ import annotations

from jinja2 import Environment as Jinja
from pydantic import ValidationError

from leap.errors import RunError
from leap.files import read_json
from leap.recipe import Recipe
from leap.report import words
from leap.report.model import Report
from leap.report.sections import Section
from leap.runs.directory import RunDirectory
from leap.runs.valuing import Passes
from leap.stats import wilson


class PassesSection(Section[list[Passes]]):
    """pass@1, pass@2, ... by iteration."""

    title = "Whole attempts"

    def read(self, recipe: Recipe, run: RunDirectory, notes: list[str]) -> list[Passes] | None:
        found = list[Passes]()
        for i in range(recipe.iterations + 1):
            file = run.best_of(i, "passes.json")
            try:
                found += [Passes.model_validate(read_json(file))] if file.exists() else []
            except (RunError, ValidationError):
                notes.append(f"iter-{i}/best-of/passes.json cannot be read and is left out.")
        return found or None

    def render(self, data: list[Passes], report: Report, jinja: Jinja) -> str:
        rows = [Passes.model_validate(one) for one in data]
        most = max(len(one.passed) for one in rows)
        shown = sorted({n for n in (1, 2, 4, 8, 16, 32) if n <= most} | {most})
        template = jinja.get_template("passes.html.j2")
        return template.render(rows=rows, shown=shown, setup=report.setup, percent=words.percent, wilson=wilson)
