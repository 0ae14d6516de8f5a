"""The WebShop quickstart from nothing to a report: every line of it, only sizes replaced."""

from __future__ import annotations

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
