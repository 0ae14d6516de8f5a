"""Stages: which files they read, and that what is on file is not made again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from world import OPTIONS

from leap.core import StopReason, Task
from leap.datasets import Row
from leap.envs.base import Environment
from leap.errors import RecipeError, RunError
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.open import open_run
from leap.runs.stages import Stages
from leap_worlds.alfworld.env import AlfworldEnvironment, AlfworldSession


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
    assert made.rows_of(0) == [row, row]


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
    assert {row.episode for row in again.rows_of(0)} == {episode.key for episode in episodes if episode.success}
    assert all(row.source == "demonstration" for row in again.rows_of(0))


def test_a_stage_asks_for_the_one_before(tmp_path: Path, world: Environment) -> None:
    with pytest.raises(RunError, match="first"):
        stages(tmp_path).correct(1)
    with pytest.raises(RunError, match="first"):
        stages(tmp_path).evaluate(0)


def test_nothing_is_trained_on_an_episode_that_an_error_of_the_environment_ended(
    tmp_path: Path, world: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = world.tasks("train")[2].id
    start = AlfworldEnvironment.start

    def starting(self: AlfworldEnvironment, task: Task) -> AlfworldSession:
        session = start(self, task)
        if task.id == broken:
            act, acted = session.act, iter([False, False])
            session.act = lambda action: act(action) if next(acted, True) is False else {}["lost"]  # type: ignore[method-assign]
        return session

    monkeypatch.setattr(AlfworldEnvironment, "start", starting)
    values = {
        "name": "x",
        "horizon": 6,
        "environment": {"name": "alfworld", "options": OPTIONS, "error_share": 0.2},
        "rollouts": {"beta": 1.0},
        "teacher": {"episodes": "all"},
        "demonstrations": {"successes_only": False},
    }
    made = Stages(Recipe.model_validate(values), RunDirectory(tmp_path / "run"), Progress())
    for i in (0, 1):
        episodes = list(made.rollout(i))
        (bad,) = [episode for episode in episodes if episode.stop is StopReason.ENVIRONMENT_ERROR]
        assert bad.task.id == broken and len(bad.steps) == 2 and "KeyError: 'lost'" in bad.error and len(episodes) == 8
    corrections = list(made.correct(1))
    trained = {row.episode for i in (0, 1) for row in made.rows_of(i)} | {correction.episode for correction in corrections}
    others = {episode.key for i in (0, 1) for episode in made.episodes(i) if episode.task.id != broken}
    assert trained == others


def test_a_package_that_exits_does_not_end_a_run_as_if_all_were_well(tmp_path: Path) -> None:
    recipe = stages(tmp_path).recipe
    with pytest.raises(RunError, match=r"sys\.exit\(0\) is called by code that is not"), open_run(tmp_path / "run", recipe):
        sys.exit(0)
