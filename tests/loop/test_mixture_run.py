"""A mixture through the whole loop: killed and gone on with, and trained on parts of it alone."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_kill import RECIPE, journals, lines, outcome, start
from world import write_shop

from leap.core import Episode
from leap.files import Journal
from leap.loop import leap
from leap.recipe import load_recipe
from leap.runs.open import open_run
from leap_lab.studies.page import loop_page, markdown
from leap_lab.studies.results import collect
from leap_lab.studies.runner import arms_of, results_of, run_arms
from leap_lab.studies.schema import LoopStudy, base_recipe

pytest.importorskip("torch")

from leap.recipes import FOLDER as RECIPES

pytestmark = pytest.mark.slow


def recipe(folder: Path) -> Path:
    """Games and a shop in one, for a student that learns nothing."""
    write_shop(folder)
    games: dict[str, Any] = RECIPE["environment"]["options"]  # type: ignore[index]
    parts = {
        "alfworld": {"options": games, "splits": {"test": "unseen"}},
        "webshop": {"options": {"path": str(folder), "patience": 6}, "splits": {"valid": "eval"}},
    }
    section = {
        "name": "mixture",
        "options": {"parts": parts, "each": {"valid": 2, "test": 3}},
        "train_tasks": 6,
        "test": ["test"],
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"environment": section}), encoding="utf-8")
    return path


def kinds(journal: Path) -> Counter[str]:
    return Counter(episode.task.kind for episode in Journal(journal, Episode))


@pytest.mark.timeout(900)
def test_a_mixture_that_is_killed_goes_on_and_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    run, whole = tmp_path / "killed", tmp_path / "undisturbed"
    moments = {
        "baselines": lambda: lines(run / "baselines/teacher-0/valid.jsonl") >= 1,
        "demonstrations": lambda: lines(run / "iter-0/episodes.jsonl") >= 1,
        "rollout": lambda: lines(run / "iter-1/episodes.jsonl") >= 4,
        "corrections": lambda: lines(run / "iter-1/corrections.jsonl") >= 2,
        "training": lambda: any(run.glob("iter-1/training/checkpoint-*")),
    }
    killed = []
    for name, reached in moments.items():
        if reached():
            continue  # an earlier kill came later than it aimed
        process = start(path, run, tmp_path / "cache")
        while process.poll() is None and not reached():
            time.sleep(0.004)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed.append(name)
        output = process.communicate()[0]
        assert process.returncode in (0, -signal.SIGKILL), output
    assert len(killed) >= 2
    for folder in (run, whole):
        process = start(path, folder, tmp_path / "cache")
        output = process.communicate()[0]
        assert process.returncode == 0, output
    names = [file.relative_to(whole) for file in journals(whole)]
    assert names == [file.relative_to(run) for file in journals(run)]
    for name in names:
        assert outcome(run / name) == outcome(whole / name), f"{name} differs"
    for i in (0, 1):
        assert (run / f"iter-{i}/rows.jsonl").read_bytes() == (whole / f"iter-{i}/rows.jsonl").read_bytes()
        assert kinds(run / f"iter-{i}/episodes.jsonl") == {"alfworld": 3, "webshop": 3}
    assert any(run.glob("report/index.html"))


def test_a_specialist_is_compared_on_its_part_of_the_same_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arms of `one-model` in small, from nothing to the page."""
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    third = {"environment.options.only": ["webshop"], "environment.train_tasks": 3, "demonstrations.episodes": 3}
    values = {
        "name": "one",
        "claim": "c",
        "hypothesis": "h",
        "recipe": recipe(tmp_path).name,
        "seeds": [3],
        "split": "test",
        "settings": {"training.steps": 2},
        "arms": {"together": {}, "webshop": third},
        "table": ["together/last", "together/expert@alfworld"],
        "compare": [{"policy": "together/last@webshop", "against": "webshop/last"}],
        "plots": [{"kind": "policies"}],
    }
    study = LoopStudy.model_validate(values)
    arms = arms_of(study, base_recipe(study, tmp_path / "study.yaml"), tmp_path / "runs")
    run_arms(arms, tmp_path / "runs")
    shares = {arm.name: kinds(arm.run / "iter-1/episodes.jsonl") for arm in arms}
    assert shares == {"together": {"alfworld": 3, "webshop": 3}, "webshop": {"webshop": 3}}
    played = {arm.name: kinds(arm.run / "iter-0/episodes.jsonl") for arm in arms}
    assert played == shares

    results = collect(study, results_of(arms, study.split), command="leap study one", provenance={})
    assert not results.missing
    tasks = {(row.arm, row.policy): row.success.tasks for row in results.rows}
    assert tasks == {
        ("together", "last"): 6,
        ("together", "expert@alfworld"): 3,
        ("together", "last@webshop"): 3,
        ("webshop", "last"): 3,
    }
    (difference,) = results.differences
    assert difference.difference.tasks == 3, "paired: both played the very same tasks"
    assert "together/last@webshop against webshop/last" in markdown(loop_page(study, results))


def test_the_shipped_mixture_runs_with_all_three(boxes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    smaller = [
        "environment.options.parts.alfworld.options.generator.games={train: 6, valid: 3, unseen: 3}",
        "environment.options.parts.webshop.options.generator.products=1520",
        "environment.options.parts.webshop.options.generator.goals=1510",
        "environment.options.each={valid: 2, test: 2}",
        "environment.train_tasks=6",
        "demonstrations.episodes=6",
        "training.first_steps=2",
        "training.steps=2",
        "student.scratch={layers: 1, width: 32, heads: 2, mlp: 32}",
    ]
    with open_run(tmp_path / "run", load_recipe(RECIPES / "mixture-quickstart.yaml", smaller)) as stages:
        result = leap(stages)
    parts = {"alfworld": 2, "webshop": 2, "intercode-bash": 2}
    for evaluation in result.students[1]:
        assert {kind: score.n for kind, score in evaluation.kinds.items()} == parts
    teacher = next(e for e in result.baselines if e.policy == "teacher-100" and e.split == "test")
    assert all(score.success == 1.0 for score in teacher.kinds.values())
    assert kinds(tmp_path / "run/iter-1/episodes.jsonl") == dict.fromkeys(parts, 2)
