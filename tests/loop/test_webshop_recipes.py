"""The WebShop recipes from nothing to a report: every line of them, only sizes and the student's weights replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leap.core import Correction, Episode
from leap.files import Journal
from leap.loop import leap
from leap.recipe import load_recipe
from leap.recipes import FOLDER as RECIPES
from leap.runs.open import open_run

SMALL = [
    "iterations=1",
    "environment.train_tasks=6",
    "environment.validation_tasks=3",
    "environment.test_tasks=3",
    "demonstrations.episodes=6",
]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield  # type: ignore[misc]


def test_the_quickstart_searches_in_words_of_its_own_and_its_searches_are_corrected(tmp_path: Path) -> None:
    recipe = load_recipe(
        RECIPES / "webshop-quickstart.yaml",
        [
            *SMALL,
            "environment.options.generator.products=1520",
            "environment.options.generator.goals=1510",
            "horizon=4",
            "training.first_steps=2",
            "training.steps=2",
            "student.scratch={layers: 1, width: 32, heads: 2, mlp: 32}",
        ],
    )
    with open_run(tmp_path / "run", recipe) as stages:
        result = leap(stages)
    assert len(result.students) == 2 and {e.split for e in result.students[1]} == {"eval", "test"}
    episodes = list(Journal(tmp_path / "run" / "iter-1" / "episodes.jsonl", Episode))
    assert len(episodes) == 6
    for episode in episodes:
        for step in episode.steps:  # a student that knows nothing cannot say what is no action
            assert step.parsed and (
                step.action in (step.observation.admissible or ()) or step.action.startswith("search[")
            )
    assert any(step.action.startswith("search[") for episode in episodes for step in episode.steps)
    corrections = list(Journal(tmp_path / "run" / "iter-1" / "corrections.jsonl", Correction))
    assert len(corrections) == sum(len(episode.steps) for episode in episodes)
    assert any(one.kept and one.action.startswith("search[") for one in corrections)


@pytest.mark.slow
def test_the_paper_s_recipe_runs_on_a_small_llama_and_a_generated_catalogue(tmp_path: Path) -> None:
    from leap.testing.checkpoints import tiny_checkpoint

    student = tiny_checkpoint(tmp_path / "llama", "llama3")
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32768}))
    recipe = load_recipe(
        RECIPES / "webshop-llama3-8b.yaml",
        [
            *SMALL,
            f"student.model=hf/{student}",
            "environment.options.source=generated",
            "environment.options.generator={products: 1520, goals: 1510}",
            "environment.options.tagger=lexical",
            "environment.test=[test]",
            "horizon=3",
            "evaluation_horizon=3",
            "environment.options.patience=3",
            "student.sampling.max_tokens=12",
            "training.batch_rows=4",
            "training.device_rows=2",
            "training.lora.rank=4",
            "demonstrations.successes_only=false",
            "environment.train_tasks=2",
            "environment.validation_tasks=1",
            "environment.test_tasks=1",
            "demonstrations.episodes=2",
        ],
    )
    with open_run(tmp_path / "run", recipe) as stages:
        result = leap(stages)
    assert len(result.students) == 2
    for i in (0, 1):
        checkpoint = tmp_path / "run" / f"iter-{i}" / "checkpoint"
        assert json.loads((checkpoint / "leap.json").read_text())["result"]["answer_tokens"] > 0
