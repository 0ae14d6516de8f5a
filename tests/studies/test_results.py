"""What a study says of one run: who `teacher` is, and which episodes an error ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import SCRIPTED, make_recipe, make_run

from leap_lab.studies.page import loop_page, markdown
from leap_lab.studies.results import RunResults, collect
from leap_lab.studies.schema import LoopStudy

MODEL = {"kind": "model", "model": "mock/big", "privilege": 50}
STUDY = LoopStudy.model_validate(
    {
        "name": "tiny",
        "claim": "c",
        "hypothesis": "h",
        "recipe": "quickstart.yaml",
        "seeds": [5],
        "split": "seen",
        "arms": {"a": {}},
        "table": ["a/best", "a/teacher", "a/teacher-0"],
        "plots": [{"kind": "policies"}],
    }
)


@pytest.mark.parametrize(
    ("teacher", "own", "without"),
    [
        ({}, "teacher-50", "teacher-0"),
        (MODEL, "mock-big-50", "mock-big-0"),
        ({"kind": "self", "privilege": 25}, "self-25", "self-0"),
    ],
)
def test_the_teacher_is_who_corrects(teacher: dict[str, object], own: str, without: str, tmp_path: Path) -> None:
    run = RunResults(make_recipe(teacher=teacher), tmp_path, "seen")
    assert (run.resolve("teacher"), run.resolve("teacher-0"), run.resolve("teacher@kind")) == (own, without, own)


def test_a_model_teacher_that_was_not_evaluated_has_no_row_and_no_script_stands_in(tmp_path: Path) -> None:
    recipe = make_recipe(teacher=MODEL)
    make_run(tmp_path, recipe=recipe, baselines=SCRIPTED)
    found = RunResults(recipe, tmp_path, "seen")
    assert found.outcome("best") and found.outcome("teacher") is None and found.outcome("teacher-0") is None


def test_episodes_that_an_error_ended_stand_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe()
    run = make_run(tmp_path, recipe=recipe)
    path = run.played("teacher-0", "seen")
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join(one.replace('"stop":"horizon"', '"stop":"model_error"') for one in lines), encoding="utf-8")
    monkeypatch.setattr(RunResults, "finished", True)
    results = collect(STUDY, {"a": {5: RunResults(recipe, tmp_path, "seen")}}, command="", provenance={})
    rows = {row.policy: row.seeds[0].broken_off for row in results.rows}
    assert rows == {"best": None, "teacher": None, "teacher-0": 3}
    table = markdown(loop_page(STUDY, results))
    assert "62.5 %, 3 broken off |" in table and table.count("broken off") == 1


def test_a_gap_names_its_interval_and_n(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axis = {"arms": {}, "axes": [{"key": "teacher.privilege", "values": [50]}]}
    plots = [{"kind": "axis", "policies": ["best"], "gap": True}]
    study = LoopStudy.model_validate(STUDY.model_dump(mode="json") | axis | {"table": ["50/best"], "plots": plots})
    recipe = make_recipe()
    make_run(tmp_path, recipe=recipe)
    monkeypatch.setattr(RunResults, "finished", True)
    results = collect(study, {"50": {5: RunResults(recipe, tmp_path, "seen")}}, command="", provenance={})
    (gap,) = results.gaps
    assert (gap.n, gap.episodes) == (5 * 2 + 3 * 5, 8), "kept corrections of five solved episodes and three failures"
    assert gap.low is not None and gap.low <= gap.nats == 2.6
    assert "| 50 | 2.600 | 2.600 [2.600, 2.600], n = 25 of 8 episodes |" in markdown(loop_page(study, results))
