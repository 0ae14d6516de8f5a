"""The report's section on leakage and realizability: tables and charts of `iter-<i>/measures.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment as Jinja
from jinja2 import FileSystemLoader

from leap.errors import RunError
from leap.recipe import Recipe
from leap.report import words
from leap.report.model import Report
from leap.report.sections import Section
from leap.runs.directory import RunDirectory
from leap_lab.measures import charts
from leap_lab.measures.measure import read_measures
from leap_lab.measures.records import IterationMeasures
from leap_lab.measures.stage import measures_file


class Realizability(Section[Sequence[IterationMeasures]]):
    """What was measured of leakage and realizability, by iteration."""

    title = "Realizability"

    def read(self, recipe: Recipe, run: RunDirectory, notes: list[str]) -> list[IterationMeasures] | None:
        found = []
        for i in range(recipe.iterations + 1):
            try:
                one = read_measures(measures_file(run, i))
            except RunError:
                notes.append(f"iter-{i}/measures.json cannot be read and is left out.")
                continue
            if one is not None:
                found.append(one)
        return found or None

    def render(self, data: Sequence[IterationMeasures], report: Report, jinja: Jinja) -> str:
        measures = [IterationMeasures.model_validate(one) for one in data]
        own = jinja.overlay(loader=FileSystemLoader(Path(__file__).parent))
        own.filters = own.filters | {"digits": charts.digits, "signed": charts.signed, "policy": charts.policy}
        acts = {one.iteration: one.acts for one in report.corrections}
        return own.get_template("realizability.html.j2").render(
            measures=measures, acts=acts, setup=report.setup, charts=charts, percent=words.percent
        )
