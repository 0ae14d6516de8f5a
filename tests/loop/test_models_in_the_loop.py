"""The whole loop with language models as teachers and baselines, every method: what is on file, what is paid, what resumes.

The teacher's model is a script behind the real provider, ledger and parser; the student is a real, tiny one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from marks import slow
from world import OPTIONS

from leap.core import Episode, Task, Tried
from leap.files import Journal
from leap.loop import leap
from leap.models import mock
from leap.models.ledger import BudgetReached, Ledger, look_at_calls, read_totals
from leap.progress import Progress
from leap.recipe import Recipe, load_recipe
from leap.report import write_report
from leap.runs.directory import RunDirectory
from leap.runs.stages import Stages
from leap.testing.corridor import Corridor, CorridorConfig

pytest.importorskip("torch")

CALLS: list[mock.Request] = []


def looks_around(request: mock.Request) -> str:
    """A teacher that always says to look around, and a player that takes the first action."""
    CALLS.append(request)
    if request.schema is None:
        return mock.first_choice(request)
    return json.dumps(
        {"leave_as_it_is": False, "corrected_reason": "It pays to look around.", "corrected_action": "look"}
    )


class Alike(Corridor):
    """Tasks that differ in their ids alone."""

    def task(self, split: str = "valid", number: int = 0) -> Task:
        return super().task(split, number).model_copy(update={"instruction": "reach the goal"})


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(mock.SCRIPTS, "looks", looks_around)
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    CALLS.clear()


def recipe(**more: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "x",
        "iterations": 1,
        "horizon": 3,
        "environment": {
            "name": "alfworld",
            "options": OPTIONS,
            "train_tasks": 3,
            "validation_tasks": 2,
            "test_tasks": 2,
        },
        "student": {
            "scratch": {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "max_tokens": 1024},
            "prompt": {"renderer": "dialogue", "instructions": False, "candidates": False},
            "sampling": {"temperature": 0.5, "max_tokens": 24, "max_reason_tokens": 4},
            "decoding": "constrained",
        },
        "demonstrations": {"episodes": 3, "successes_only": False},
        "teacher": {"kind": "model", "model": "mock/looks", "by": "step", "episodes": "all"},
        "training": {"steps": 2, "batch_rows": 4, "device_rows": 2, "lr": 1e-3},
    }
    for key, value in more.items():
        values[key] = value
    return Recipe.model_validate(values)


def run(made: Recipe, folder: Path) -> Stages:
    stages = Stages(made, RunDirectory(folder), Progress())
    try:
        leap(stages)
        write_report(made, stages.run, stages.environment)
    finally:
        stages.close()
    return stages


def test_a_model_teacher_corrects_is_booked_and_is_never_asked_twice(tmp_path: Path) -> None:
    made = recipe(
        baselines={"react": [{"model": "mock/looks", "examples": 1}], "teacher_model": True}, measures={"held_out": 2}
    )
    stages = run(made, tmp_path / "run")
    corrections = list(stages.corrections(1))
    steps = sum(len(episode.steps) for episode in stages.episodes(1))
    assert len(corrections) == steps > 0
    assert {c.action for c in corrections} == {"look"} and all(
        c.kept and c.teacher == "mock/looks" for c in corrections
    )
    ledger = Ledger(stages.run.calls)
    booked = {total.stage: total.calls for total in ledger.totals()}
    ledger.close()
    assert sum(booked.values()) == len(CALLS)
    asked = len([request for request in CALLS if request.schema])
    assert (
        booked["self-test"] + booked["correct 1"] + booked.get("correct 0", 0) == asked and booked["correct 1"] >= steps
    )
    assert 0 < booked["self-test"] <= 8
    assert any(stage.startswith("baseline react") for stage in booked)
    for name in ("react-mock-looks", "mock-looks-0", "mock-looks-50"):
        assert len(Journal(stages.run.baselines / name / "unseen.jsonl", Episode)) == 2
    measures = json.loads((stages.run.iteration(1) / "measures.json").read_text())
    assert measures["likelihood"] is not None and measures["held_out"]["agreement"] is not None
    told = json.loads((stages.run.report / "report.json").read_text())
    correctors = [policy["label"] for policy in told["policies"] if "who corrects" in policy["label"]]
    assert (
        correctors == ["mock/looks at privilege 50 (p50), who corrects"]
        and told["setup"]["teacher"] == "model mock/looks"
    )
    assert any("its teacher, model mock/looks, without privilege" in line for line in told["headline"])
    paid = len(CALLS)
    before = {p: p.read_bytes() for p in stages.run.root.rglob("*.jsonl")}
    run(made, tmp_path / "run")
    assert len(CALLS) == paid and {p: p.read_bytes() for p in stages.run.root.rglob("*.jsonl")} == before


def test_a_spent_budget_ends_the_run_and_a_raised_one_goes_on(tmp_path: Path) -> None:
    prices = {"mock/looks": {"input": 1.0, "output": 1.0}}
    with pytest.raises(BudgetReached, match=r"\$0\.000\d of budget\.usd 0\.0005 are spent.*raise the cap"):
        run(recipe(prices=prices, budget={"usd": 0.0005}), tmp_path / "run")
    paid = len(CALLS)
    assert paid > 0
    stages = run(recipe(prices=prices, budget={"usd": 5.0}), tmp_path / "run")
    ledger = Ledger(stages.run.calls)
    assert ledger.total().calls == len(CALLS) > paid  # every call was booked once, none was made again
    ledger.close()


@pytest.mark.parametrize("method", [slow("dpo"), slow("kto"), "sft+dpo"])
def test_preference_methods_train_on_the_corrections(method: str, tmp_path: Path) -> None:
    sft = {"steps": 2, "batch_rows": 4, "device_rows": 2, "lr": 1e-3}
    training = {"method": method, "steps": 2, "batch_rows": 4, "device_rows": 2, "lr": 1e-3, "sft": sft}
    stages = run(recipe(training=training), tmp_path / "run")
    pairs = stages.preferences(1)
    assert pairs and all("look" in pair.chosen[0]["content"] for pair in pairs)
    weights = [stages.run.checkpoint(i) / "model.safetensors" for i in (0, 1)]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_the_self_teacher_is_the_student_with_privilege(tmp_path: Path) -> None:
    stages = run(recipe(teacher={"kind": "self", "episodes": "all"}), tmp_path / "run")
    corrections = list(stages.corrections(1))
    assert len(corrections) == sum(len(e.steps) for e in stages.episodes(1))
    assert {c.teacher for c in corrections} == {"self"} and not CALLS
    calls = look_at_calls(stages.run.calls, list)
    assert read_totals(stages.run.calls) == [], "nothing is paid"
    assert {call.stage for call in calls} == {"correct 1"} and {call.outcome for call in calls} <= {
        "read",
        "cut-off",
        "unread",
    }
    asked = [call.request["messages"][-1]["content"] for call in calls if call.request]
    assert len(asked) >= len(corrections) and {call.task for call in calls} == {e.task.id for e in stages.episodes(1)}
    page = (stages.run.report / "index.html").read_text()
    assert 'id="calls"' in page and "paid calls" not in page


@pytest.mark.parametrize("by", ["step", "trajectory"])
def test_in_hindsight_a_model_is_told_how_it_ended_and_of_a_success_and_the_student_is_not(by: str, tmp_path: Path) -> None:
    """Successes are the demonstrations of the same tasks. What trains is what the student saw, byte for byte."""
    told = {"kind": "model", "model": "mock/looks", "by": by, "episodes": "all", "state": "hindsight"}
    demonstrated = {"episodes": 8, "successes_only": False}
    stages = run(recipe(teacher=told, demonstrations=demonstrated, horizon=12, calls={"self_test": False}), tmp_path / "run")
    solved = {one.task.instruction for one in stages.episodes(0) if one.success}
    assert len({one.task.instruction for one in stages.episodes(1)} & solved) > 0
    asked = [str(call.messages[-1]["content"]) for call in CALLS]
    assert asked and all("The attempt took 12 of 12 actions: no more actions were allowed" in text for text in asked)
    for text in asked:
        task = text.partition("TASK: ")[2].partition("\n")[0]
        assert ("Another attempt at the same task solved it:\n0. " in text) is (task in solved)
        assert ("Step by step:\n0. " in text) is (by == "step")
        assert "Optimal actions:" not in text  # nor does it see what the environment hides
    assert by == "trajectory" or any(one.kept for one in stages.corrections(1))
    episodes = {episode.key: episode for episode in stages.episodes(1)}
    for row in stages.rows_of(1):
        assert row.prompt == stages.renderer.render(episodes[row.episode].history(row.t))
        assert not any(secret in json.dumps(row.prompt) for secret in ("attempt took", "Another attempt", "Step by step"))


def test_search_is_by_the_student_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its figures stand in the stage's line, in the report and with every correction."""
    searching = {"kind": "search", "episodes": "all", "answers": 3, "temperature": 1.5}
    stages = run(recipe(teacher=searching), tmp_path / "run")
    corrections = list(stages.corrections(1))
    assert len(corrections) == sum(len(e.steps) for e in stages.episodes(1)) and not CALLS
    assert {c.teacher for c in corrections} == {"search"} and all(c.measured and c.measured.executed for c in corrections)
    tried = Tried.over(corrections)
    assert tried is not None and tried.compared == len(corrections)
    assert f"of {tried.compared} steps tried have an effect" in capsys.readouterr().err
    told = json.loads((stages.run.report / "report.json").read_text())
    assert told["corrections"][0]["tried"] == tried.model_dump() and told["setup"]["teacher"] == "search by the student itself"
    assert "steps tried have an effect" in (stages.run.report / "index.html").read_text()


def test_a_run_without_paid_models_has_no_ledger_and_estimates_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    from leap.cli.dry_run import print_estimate

    print_estimate(recipe(teacher={"kind": "expert"}))
    assert "asks no paid model" in capsys.readouterr().out


def test_a_dry_run_tells_calls_and_cost_before_anything_is_spent(capsys: pytest.CaptureFixture[str]) -> None:
    from leap.cli.dry_run import estimate_recipe, print_estimate

    made = recipe(prices={"mock/looks": {"input": 1.0, "output": 2.0}})
    stages = estimate_recipe(made)
    corrected = next(stage for stage in stages if stage.stage == "correct 1")
    assert corrected.calls == 3 * 3 and corrected.usd is not None and corrected.usd > 0 and not CALLS
    measured = estimate_recipe(recipe(measures={"held_out": 50}))  # of two validation tasks, by pi_0 and by pi_1
    assert [s.calls for s in measured if s.stage.startswith("correct held-out")] == [2 * 3, 2 * 3] and not CALLS
    print_estimate(made)
    assert "correct 1" in capsys.readouterr().out


def test_a_dry_run_counts_a_call_for_each_task_though_its_script_plays_them_alike() -> None:
    from leap.cli.dry_run import estimate_recipe

    alike = {"name": "corridor", "options": {"size": 12}, "train_tasks": 12, "validation": "valid", "test": ["unseen"]}
    made = recipe(environment=alike, teacher={"kind": "model", "model": "mock/looks"})
    stages = estimate_recipe(made, Alike(CorridorConfig(size=12)))
    corrected = next(stage for stage in stages if stage.stage == "correct 1")
    assert corrected.calls == 12


def test_what_a_model_teacher_needs_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    values = {"name": "x", "environment": {"name": "alfworld"}}
    for teacher, message in (
        ({"kind": "model"}, "teacher.model"),
        ({"kind": "model", "model": "gpt-4o"}, "provider/model"),
        ({"kind": "self", "privilege": 33}, "0, 25, 50, 75, 100"),
        ({"state": "extracted"}, r"teacher\.state: unknown key\. kind: expert does not have it; kind: model or self does"),
    ):
        path.write_text(yaml.safe_dump(values | {"teacher": teacher}))
        with pytest.raises(Exception, match=message):
            load_recipe(path)


@pytest.mark.parametrize("branches", [True, slow(False)])
def test_histories_too_long_for_the_student_lose_their_oldest_steps_everywhere(branches: bool, tmp_path: Path) -> None:
    """One limit for rollouts and rows, counted in the record and told in the report."""
    student = recipe().model_dump()["student"]
    student["prompt"] |= {"max_tokens": 145}
    training = {"steps": 2, "lr": 1e-3, "branches": branches}
    made = recipe(student=student, training=training, horizon=10, teacher={"kind": "self", "episodes": "all"})
    stages = run(made, tmp_path / "run")
    episodes = {episode.key: episode for episode in stages.episodes(1)}
    steps = [step for episode in episodes.values() for step in episode.steps]
    assert {step.dropped > 0 for step in steps} == {True, False} and max(step.prompt_tokens for step in steps) <= 145
    rows = [*stages.rows_of(0), *stages.rows_of(1)]
    for row in stages.rows_of(1):
        fitted = stages.renderer.fit(episodes[row.episode].history(row.t))
        assert (row.prompt, episodes[row.episode].steps[row.t].dropped) == (fitted.messages, fitted.dropped)
    assert any("left out here" in message["content"] for row in rows for message in row.prompt)
    assert json.loads((stages.run.checkpoint(1) / "leap.json").read_text())["result"]["rows"] == len(rows)
    told = {entry["what"]: entry for entry in json.loads(stages.run.stages.read_text())}
    assert told["rollouts of pi_0"]["shortened_prompts"] == sum(step.dropped > 0 for step in steps)
    assert "their oldest steps were left out" in (stages.run.report / "index.html").read_text()
