"""What a report says about a run directory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from tiny_run import FAIL, HOSTILE, WORLD, correct, make_recipe, make_run, play, task

from leap.core import Actor
from leap.errors import RunError
from leap.files import read_json, write_json
from leap.report import page as page_module
from leap.report.collect import choose, collect
from leap.report.index import Index
from leap.report.model import Report
from leap.report.page import write_report
from leap.report.trajectories import embed
from leap.runs.directory import RunDirectory
from leap.testing.corridor import EAST, Corridor


def test_numbers_of_a_whole_run(tmp_path: Path) -> None:
    report, _ = collect(make_recipe(), make_run(tmp_path), per_group=40)
    assert report.best == 2
    assert [p.name for p in report.policies] == ["pi_0", "pi_1", "pi_2", "expert", "teacher-0", "teacher-50"]
    assert [p.evaluations["seen"].overall.success for p in report.policies] == [0.25, 0.625, 1.0, 0.625, 0.625, 1.0]
    assert report.splits == ["valid", "seen", "unseen"]
    against = {(c.split, c.against): c for c in report.comparisons}
    assert against["seen", "pi_0"].only_policy == 6 and against["seen", "pi_0"].only_against == 0
    assert against["seen", "pi_0"].p == pytest.approx(2 / 2**6)
    assert against["unseen", "teacher-0"].relation == "above"
    assert against["unseen", "teacher-50"].relation == "level"
    assert report.headline[0].startswith("π₂ solves 100\u202f% of seen (n = 8, 68–100\u202f%) and 100")


def test_corrections_are_counted_by_cause(tmp_path: Path) -> None:
    report, _ = collect(make_recipe(), make_run(tmp_path), per_group=40)
    first, second = report.corrections
    assert (first.iteration, first.episodes, first.solved, len(first.corrected)) == (1, 8, 2, 6)
    assert (first.corrections, first.kept, first.rejected) == (36, 30, {"not_admissible": 6})
    assert (first.acted, first.agreed, first.kept_same, first.leaked) == (36, 6, 6, 6)
    assert second.corrections == 18
    assert {episode.kept for episode in second.corrected} == {5}


def test_the_student_is_chosen_on_validation_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    path = run.iteration(2) / "evaluation.json"
    evaluations = read_json(path)
    evaluations[0]["overall"]["success"] = 0.1
    write_json(path, evaluations)
    report, groups = collect(make_recipe(), run, per_group=40)
    assert report.best == 1
    assert {g.shown.file for g in groups if g.shown.role == "test"} == {
        "iter-1/evaluation/seen.jsonl",
        "iter-1/evaluation/unseen.jsonl",
    }


def test_a_run_under_way_shows_what_is_there(tmp_path: Path) -> None:
    run = make_run(tmp_path, iterations=3, finished=1)
    torn = run.iteration(2) / "episodes.jsonl"
    torn.parent.mkdir()
    torn.write_text('{"task": {"env"', encoding="utf-8")
    report, _ = collect(make_recipe(3), run, per_group=40)
    assert report.best == 1
    assert "Not evaluated yet: π₂, π₃." in report.notes
    assert torn.read_text(encoding="utf-8") == '{"task": {"env"', "a report repairs nothing: the run may be going on"


def test_an_empty_directory_gives_a_page(tmp_path: Path) -> None:
    page = write_report(make_recipe(), RunDirectory(tmp_path))
    assert "No student has been evaluated" in page.read_text(encoding="utf-8")
    assert Report.model_validate_json((tmp_path / "report" / "report.json").read_text(encoding="utf-8")).best is None


def test_damaged_files_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.stages.write_text("{", encoding="utf-8")
    run.iteration(1).joinpath("measures.json").write_text("{}", encoding="utf-8")
    report, _ = collect(make_recipe(), run, per_group=40)
    assert any("stages.json" in note for note in report.notes)
    assert any("iter-1/measures.json" in note for note in report.notes)
    assert [one.iteration for one in report.sections["realizability"]] == [0, 2]
    with (run.iteration(1) / "episodes.jsonl").open("a", encoding="utf-8") as file:
        file.write("not a record\n")
    with pytest.raises(RunError, match=r"episodes\.jsonl line 9"):
        collect(make_recipe(), run, per_group=40)


def test_episodes_of_an_earlier_checkpoint_are_not_compared(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_json(run.checkpoint(2) / "leap.json", {"key": "trained-again", "iteration": 2})
    report, groups = collect(make_recipe(), run, per_group=40)
    assert all(c.p is None for c in report.comparisons)
    assert not [group for group in groups if group.shown.role == "test"]


def test_choice_is_mixed_and_always_the_same(tmp_path: Path) -> None:
    episodes = Index().episodes(make_run(tmp_path).iteration(2) / "episodes.jsonl")
    chosen = choose(episodes, 4)
    assert sorted(e.success for e in chosen) == [False, False, True, True]
    assert {e.kind for e in chosen} == {"find_it", "carry_it"}
    assert choose(episodes[::-1], 4) == chosen
    assert len(choose(episodes, 100)) == len(episodes)


def test_trajectories_carry_the_replayed_privileged_state(tmp_path: Path) -> None:
    _, groups = collect(make_recipe(), make_run(tmp_path), per_group=3)
    data, keys, notes = embed(groups, lambda: WORLD, budget=10**6)
    assert notes == []
    assert [len(mine) for mine in keys] == [3, 3, 3, 1, 1]
    texts = data["texts"]
    rollout = next(e for e in data["episodes"] if data["groups"][e["group"]]["role"] == "rollouts" and not e["success"])
    assert [texts[step["state"][0]][:1] for step in rollout["steps"]] == ["3", "3", "4", "4", "4", "4"]
    assert rollout["steps"][3]["inadmissible"] and rollout["steps"][2]["teacher"]["leaked"] == ["lamp 1"]
    tests = [e for e in data["episodes"] if data["groups"][e["group"]]["role"] == "test"]
    assert tests and not any("state" in step for e in tests for step in e["steps"])


def test_another_world_is_said_not_hidden(tmp_path: Path) -> None:
    class Other(Corridor):
        def start(self, task):  # type: ignore[no-untyped-def]
            session = super().start(task)
            session.act(EAST)
            return session

    _, groups = collect(make_recipe(), make_run(tmp_path), per_group=40)
    data, _, notes = embed(groups, lambda: Other(WORLD.config), budget=10**6)
    assert len(notes) == 6 and "could not be replayed" in notes[0]
    assert not any("state" in step for e in data["episodes"] for step in e["steps"])


def test_the_budget_bounds_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    full = write_report(make_recipe(), run, WORLD).stat().st_size
    monkeypatch.setattr(page_module, "BUDGET", 6000)
    page = write_report(make_recipe(), run, WORLD)
    report = json.loads((run.report / "report.json").read_text(encoding="utf-8"))
    assert page.stat().st_size < full - 5000
    assert [len(one["keys"]) > 0 for one in report["shown"]] == [True] * 5, "every group has its share"
    assert any("Fewer trajectories" in note for note in report["notes"])


def test_journals_are_not_held_in_memory(tmp_path: Path) -> None:
    """A run of 15 MB is reported in a fifth of that: what is kept of an episode does not grow with its texts."""
    run = make_run(tmp_path)
    folder, size = run.iteration(1), 0
    student = Actor(name="student", checkpoint="key-0", iteration=0)
    with (folder / "episodes.jsonl").open("wb") as episodes, (folder / "corrections.jsonl").open("wb") as corrections:
        for number in range(1000):
            episode = play(task("train", number), student, FAIL)
            long = [step.model_copy(update={"completion": "x" * 1000}) for step in episode.steps]
            size += episodes.write(episode.model_copy(update={"steps": tuple(long)}).model_dump_json().encode() + b"\n")
            for one in correct(episode):
                more = one.model_copy(update={"reason": "so " * 300})
                size += corrections.write(more.model_dump_json().encode() + b"\n")
    tracemalloc.start()
    report, _ = collect(make_recipe(), run, per_group=4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (report.corrections[0].episodes, report.corrections[0].corrections) == (1000, 6000)
    assert size > 12e6 and peak < size / 5, f"{peak / 1e6:.1f} of {size / 1e6:.1f} MB"


def test_costs_are_those_of_the_ledger_where_there_is_one(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    report, _ = collect(make_recipe(), run, per_group=1)
    assert [one.model for one in report.costs] == [f"openai/{HOSTILE}", "openai/small"]
    total = report.costs_total
    assert (total.calls, total.tokens_in, total.usd) == (4, 2400, pytest.approx(1.2542))
    run.calls.unlink()
    assert collect(make_recipe(), run, per_group=1)[0].costs == []
