"""Arms share what they have in common, and a run that was given parts ends like one that made everything itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_games import small_games
from typer.testing import CliRunner

pytest.importorskip("torch")
from leap.cli.app import app
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.table import missing_stages, stage_table
from leap_lab.studies.page import loop_page, markdown, render
from leap_lab.studies.results import RunResults, collect
from leap_lab.studies.runner import Arm, Choice, Taken, arms_of, pace, plan, results_of, run_arms
from leap_lab.studies.schema import LoopStudy

pytestmark = pytest.mark.slow

BASE: dict[str, Any] = {
    "name": "tiny",
    "iterations": 1,
    "horizon": 5,
    "environment": {
        "name": "alfworld",
        "options": small_games(6, 3, 4),
    },
    "student": {
        "scratch": {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "max_tokens": 1024},
        "prompt": {"renderer": "dialogue", "instructions": False, "candidates": False},
        "sampling": {"temperature": 0.5, "max_tokens": 24, "max_reason_tokens": 4},
        "decoding": "constrained",
    },
    "demonstrations": {"episodes": 4, "successes_only": False},
    "teacher": {"episodes": "all"},
    "training": {"branches": True, "optimizer": "muon", "batch_tokens": 1000, "steps": 3},
}
RECIPE = Recipe.model_validate(BASE)
STUDY = LoopStudy.model_validate(
    {
        "name": "tiny",
        "claim": "<b>bold</b> claim",
        "hypothesis": "h",
        "recipe": "none.yaml",
        "seeds": [0],
        "arms": {"half": {}, "full": {"teacher.privilege": 100}, "mixed": {"rollouts.beta": 0.5}},
        "table": ["*/best", "half/expert"],
        "compare": [{"policy": "*/best", "against": "half/pi_0"}],
        "plots": [{"kind": "iterations", "lines": ["half/expert"]}, {"kind": "policies"}],
    }
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Arm], dict[str, list[str]]]]:
    root = tmp_path_factory.mktemp("studies")
    told: dict[str, list[str]] = {}

    def tell(arm: Arm, taken: list[Taken]) -> None:
        told[arm.name] = [one.stage.name for one in taken]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        arms = arms_of(STUDY, RECIPE, root)
        run_arms(arms, root, tell=tell)
        yield root, arms, told


def test_the_second_arm_is_given_what_it_has_in_common(ran: tuple[Path, list[Arm], dict[str, list[str]]]) -> None:
    _, arms, told = ran
    assert told["half"] == []
    assert {"demonstrations", "random weights", "pi_0", "evaluation of pi_0", "rollouts of pi_0"} <= set(told["full"])
    assert {"evaluation of expert", "evaluation of teacher-0"} <= set(told["full"])
    assert "corrections for pi_1" not in told["full"] and "pi_1" not in told["full"]
    assert "pi_0" in told["mixed"] and "rollouts of pi_0" not in told["mixed"]
    assert all(missing_stages(arm.recipe, RunDirectory(arm.run)) == [] for arm in arms)
    shared = [json.loads(line) for line in (arms[1].run / "shared.jsonl").read_text().splitlines()]
    assert {line["from"] for line in shared} == {"half-0"}


def test_given_parts_end_like_made_ones(ran: tuple[Path, list[Arm], dict[str, list[str]]], tmp_path: Path) -> None:
    _, arms, _ = ran
    alone = arms_of(STUDY, RECIPE, tmp_path, Choice(arms=["full"]))
    run_arms(alone, tmp_path)
    for part in ("iter-1/rows.jsonl", "iter-1/evaluation.json", "iter-1/checkpoint/leap.json", "iter-0/evaluation.json"):
        given, made = (arm.run / part for arm in (arms[1], alone[0]))
        if part.endswith("leap.json"):
            assert json.loads(given.read_text())["key"] == json.loads(made.read_text())["key"]
        else:
            assert given.read_bytes() == made.read_bytes(), part


def test_nothing_given_is_written_into_by_who_was_given_it(ran: tuple[Path, list[Arm], dict[str, list[str]]]) -> None:
    _, arms, _ = ran
    source, target = (arm.run / "iter-0" for arm in arms[:2])
    weights = "checkpoint/model.safetensors"
    assert (source / weights).stat().st_ino == (target / weights).stat().st_ino, "weights are linked"
    journals = [path.relative_to(source) for path in source.rglob("*.jsonl")]
    assert journals and all((source / one).stat().st_ino != (target / one).stat().st_ino for one in journals)


def test_a_finished_study_does_nothing_again(
    ran: tuple[Path, list[Arm], dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, arms, _ = ran

    def refuse(run: Path, recipe: Recipe) -> Any:
        raise AssertionError(f"{run} was opened again")

    monkeypatch.setattr("leap_lab.studies.runner.open_run", refuse)
    run_arms(arms, root)
    assert list(plan(arms, root)) == []


def test_a_plan_counts_what_arms_share_once(tmp_path: Path) -> None:
    arms = arms_of(STUDY, RECIPE, tmp_path)
    full = {one.stage.name: one for one in plan(arms, tmp_path) if one.arm.name == "full"}
    assert full["pi_0"].source == arms[0].run and full["corrections for pi_1"].source is None
    assert pace(arms) == {}


def test_minutes_are_those_that_such_stages_took(ran: tuple[Path, list[Arm], dict[str, list[str]]]) -> None:
    _, arms, _ = ran
    took = pace(arms)
    noted = [one for arm in arms for one in json.loads((arm.run / "stages.json").read_text())]
    trained = [one["seconds"] for one in noted if (one["stage"], one["iteration"]) == ("train", 1)]
    assert len(trained) == len(arms) and took["", "train", 1] == pytest.approx(sum(trained) / len(trained))
    assert [took[arm.name, "train", 1] for arm in arms] == pytest.approx(trained), "an arm's own, where it was run before"
    first = [one["seconds"] for one in noted if (one["stage"], one["iteration"]) == ("evaluate", -1)]
    baselines = [one for one in stage_table(arms[0].recipe) if one.kind == "evaluate" and one.iteration < 0]
    assert 0 < took["", "evaluate", -1] < sum(first) / len(baselines) + 1e-9
    wanted = {(one.kind, one.iteration) for one in stage_table(arms[0].recipe) if one.kind != "base"}
    assert {("", *stage) for stage in wanted} <= took.keys(), "all that a run consists of is noted"


def test_mixed_rollouts_have_steps_of_both(ran: tuple[Path, list[Arm], dict[str, list[str]]]) -> None:
    _, arms, _ = ran
    episodes = [json.loads(line) for line in (arms[2].run / "iter-1" / "episodes.jsonl").read_text().splitlines()]
    by_teacher = [step["completion"] == "" for episode in episodes for step in episode["steps"]]
    assert 0.2 < sum(by_teacher) / len(by_teacher) < 0.8
    assert {episode["actor"]["name"] for episode in episodes} == {"student, teacher-50 with probability 0.5"}


def test_the_results_are_those_of_the_runs(ran: tuple[Path, list[Arm], dict[str, list[str]]]) -> None:
    _, arms, _ = ran
    results = collect(STUDY, results_of(arms, "unseen"), command="leap study tiny", provenance={"leap": "x"})
    assert results.missing == []
    first = RunResults(arms[0].recipe, arms[0].run, "unseen")
    assert first.outcome("react") is None, "no model is configured"
    by_kind = first.outcome("last@pick_and_place_simple")
    assert by_kind is not None and len(by_kind) == 4 and first.outcome("last@look") is None
    evaluation = json.loads((arms[0].run / "iter-1" / "evaluation.json").read_text())
    wanted = next(one["overall"] for one in evaluation if one["split"] == "unseen")
    row = next(row for row in results.curves if (row.arm, row.policy) == ("half", "pi_1"))
    assert row.seeds[0].success == wanted["success"] and row.seeds[0].n == wanted["n"] == 4
    assert row.seeds[0].actions == pytest.approx(wanted["actions"])
    assert [(one.policy, one.against) for one in results.differences] == [
        (f"{arm}/best", "half/pi_0") for arm in ("half", "full", "mixed")
    ]
    page = loop_page(STUDY, results)
    html = render(page)
    assert "&lt;b&gt;bold" in html and "<b>bold" not in html
    assert html.count("data:image/svg+xml;base64,") == 2
    assert "| half | student, chosen on validation | 4 |" in markdown(page)


def test_an_unfinished_study_says_what_is_missing(ran: tuple[Path, list[Arm], dict[str, list[str]]]) -> None:
    root, _, _ = ran
    more = STUDY.model_copy(update={"seeds": [0, 1]})
    arms = arms_of(more, RECIPE, root)
    results = collect(more, results_of(arms, "unseen"), command="", provenance={})
    assert results.missing == ["half, seed 1", "full, seed 1", "mixed, seed 1"]
    assert all([one.seed for one in row.seeds] == [0] for row in results.rows)


def test_the_command_runs_a_study_on_another_base_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    base, study = tmp_path / "other.yaml", tmp_path / "tiny.yaml"
    base.write_text(yaml.safe_dump(BASE | {"iterations": 0}), encoding="utf-8")
    own = STUDY.model_dump(mode="json", exclude={"arms", "compare"}) | {"arms": {"half": {}, "full": {"iterations": 0}}}
    study.write_text(yaml.safe_dump(own | {"budget": {"*": {"training.steps": 99_999}}}), encoding="utf-8")
    command = ["study", str(study), "--recipe", str(base), "--runs", str(tmp_path / "runs")]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    report = tmp_path / "runs" / "tiny-other" / "report"
    results = json.loads((report / "results.json").read_text(encoding="utf-8"))
    assert results["name"] == "tiny-other" and "On other.yaml instead of none.yaml" in results["notes"][-1]
    assert results["provenance"]["runs by"].startswith("leap 0"), "the runs' own version, beside the page's"
    assert not results["missing"] and "taken from tiny-other/" in shown.output
