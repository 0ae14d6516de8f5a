"""The recipe of the pretrained quickstart: the quickstart's world, and every line of it on a small checkpoint made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leap.loop import leap
from leap.recipe import load_recipe
from leap.recipes import FOLDER as RECIPES
from leap.runs.open import open_run

SMOLLM2 = RECIPES / "smollm2-quickstart.yaml"


def test_the_world_is_the_quickstarts_and_the_rollouts_a_fifth() -> None:
    scratch, pretrained = load_recipe(RECIPES / "quickstart.yaml"), load_recipe(SMOLLM2)
    for part in ("demonstrations", "teacher", "iterations", "horizon", "evaluation_horizon", "seed"):
        assert getattr(pretrained, part) == getattr(scratch, part), part
    counts = {"train_tasks", "validation_tasks"}
    assert pretrained.environment.model_dump(exclude=counts) == scratch.environment.model_dump(exclude=counts)
    assert 5 * (pretrained.environment.train_tasks or 0) == scratch.environment.train_tasks
    for shared in ("prompt", "decoding", "evaluation_temperature"):
        assert getattr(pretrained.student, shared) == getattr(scratch.student, shared), shared
    assert pretrained.student.sampling.temperature == scratch.student.sampling.temperature


@pytest.mark.slow
def test_the_recipe_runs_on_a_small_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leap.testing.checkpoints import tiny_checkpoint

    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    student = tiny_checkpoint(tmp_path / "student", "chatml", context=8192)
    sizes = ["environment.options.generator.games={train: 6, valid: 2, unseen: 2}", "demonstrations.episodes=4"]
    sizes += ["environment.train_tasks=2", "environment.validation_tasks=2", "iterations=1"]
    sizes += ["training.first_steps=2", "training.steps=2", "student.sampling.max_tokens=160"]
    with open_run(tmp_path / "run", load_recipe(SMOLLM2, [f"student.model=hf/{student}", *sizes])) as stages:
        result = leap(stages)
    assert len(result.students) == 2
    for i in (0, 1):
        checkpoint = tmp_path / "run" / f"iter-{i}" / "checkpoint"
        adapter = json.loads((checkpoint / "adapter_config.json").read_text())
        adapted = {name.rpartition(".")[2] for name in adapter["target_modules"]}
        assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        assert json.loads((checkpoint / "leap.json").read_text())["result"]["answer_tokens"] > 0
