"""Sections that other packages add to a report, registered as `leap.report_sections`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from leap import registry
from leap.errors import LeapError
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory

if TYPE_CHECKING:
    from jinja2 import Environment as Jinja

    from leap.report.model import Report


D = TypeVar("D")


class Section(ABC, Generic[D]):
    """One section, of data of type D. Its registered name is its anchor on the page and its key among `Report.sections`.

    Attributes:
        title: What the page's navigation calls it.
    """

    title: str

    @abstractmethod
    def read(self, recipe: Recipe, run: RunDirectory, notes: list[str]) -> D | None:
        """Returns what a run's files say, as records or JSON values; None where they say nothing for this section.

        Args:
            recipe: The run's recipe.
            run: The run directory.
            notes: Takes sentences on what is missing or could not be read.
        """

    @abstractmethod
    def render(self, data: D, report: Report, jinja: Jinja) -> str:
        """Returns the section as HTML: an element `section` whose id is the section's name.

        Args:
            data: What `read` returned, or the same as JSON gives it back.
            report: The whole report.
            jinja: The page's Jinja environment, which escapes all values; `overlay` gives it another loader.
        """


def read_sections(recipe: Recipe, run: RunDirectory, notes: list[str]) -> dict[str, object]:
    """Returns the data of every registered section that has something to say; one that fails is a note."""
    found = {}
    for name in registry.report_section.names():
        try:
            found[name] = registry.report_section.get(name)().read(recipe, run, notes)
        except LeapError as error:
            notes.append(f"The section {name!r} is left out: {error}")
    return {name: data for name, data in found.items() if data is not None}


def render_sections(report: Report, jinja: Jinja) -> list[tuple[str, str, str]]:
    """Returns name, title and HTML of each section of a report."""
    sections = {name: registry.report_section.get(name)() for name in report.sections}
    return [(name, one.title, one.render(report.sections[name], report, jinja)) for name, one in sections.items()]
