"""The pages in benchmarks/studies are, byte for byte, what the code makes of the results beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from leap_lab.studies.page import loop_page, write_page
from leap_lab.studies.results import StudyResults
from leap_lab.studies.schema import LoopStudy, available_studies, load_study
from leap_lab.theory.report import TheoryResults, theory_page

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "studies"


NOT_RUN = {"distill", "verifier"}
"""Studies that wait for their hours."""


@pytest.mark.parametrize("name", sorted({*available_studies()} - NOT_RUN))
def test_a_published_page_is_what_its_results_give(name: str, tmp_path: Path) -> None:
    study = load_study(available_studies()[name])
    text = (PUBLISHED / name / "results.json").read_text(encoding="utf-8")
    if isinstance(study, LoopStudy):
        results = StudyResults.model_validate_json(text)
        page = loop_page(study, results)
    else:
        results = TheoryResults.model_validate_json(text)
        page = theory_page(study, results)
    write_page(tmp_path, page, results)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"index.html", "results.json", "table.md"} < made.keys()
    assert [file for file, content in made.items() if (PUBLISHED / name / file).read_bytes() != content] == []
