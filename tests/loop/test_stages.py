"""Stages: which files they read, and that what is on file is not made again."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import OPTIONS

from leap.datasets import Row
from leap.envs.base import Environment
from leap.errors import RecipeError, RunError
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.stages import Stages
from leap.runs.store import RunDirectory


def stages(folder: Path, **environment: str) -> Stages:
    section = {"name": "alfworld", "options": OPTIONS} | environment
    recipe = Recipe.model_validate({"name": "x", "horizon": 6, "environment": section})
    return Stages(recipe, RunDirectory(folder / "run"), Progress())


def test_rows_survive_line_separators_in_their_texts(tmp_path: Path) -> None:
    made = stages(tmp_path)
    row = Row(
        prompt=[{"role": "user", "content": "a\u2028b\x85c\x0bd\r\ne"}],
        completion=[{"role": "assistant", "content": "REASON: x\u2029\nACTION: y"}],
        episode="e",
        t=0,
        source="demonstration",
        iteration=0,
    )
    file = made.run.iteration(0) / "rows.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(row.model_dump_json() + "\n" + row.model_dump_json() + "\n", encoding="utf-8")
    assert made.rows(0) == [row, row]


@pytest.mark.parametrize("use", ["train", "validation"])
def test_an_environments_test_splits_are_only_ever_reported(use: str, tmp_path: Path) -> None:
    made = stages(tmp_path, **{use: "seen"})
    with pytest.raises(RecipeError, match="test split"):
        made.rollout(0)


def test_demonstrations_are_played_once_and_give_rows_once(tmp_path: Path, world: Environment) -> None:
    made = stages(tmp_path)
    episodes = made.rollout(0)
    rows = made.dataset(0)
    before = episodes.path.read_bytes(), rows.read_bytes(), rows.stat().st_mtime_ns
    again = stages(tmp_path)
    again.rollout(0)
    again.dataset(0)
    assert (episodes.path.read_bytes(), rows.read_bytes(), rows.stat().st_mtime_ns) == before
    assert {row.episode for row in again.rows(0)} == {episode.key for episode in episodes if episode.success}
    assert all(row.source == "demonstration" for row in again.rows(0))


def test_a_stage_asks_for_the_one_before(tmp_path: Path, world: Environment) -> None:
    with pytest.raises(RunError, match="first"):
        stages(tmp_path).correct(1)
    with pytest.raises(RunError, match="first"):
        stages(tmp_path).evaluate(0)
