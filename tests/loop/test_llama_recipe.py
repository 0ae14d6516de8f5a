"""The 8B recipe's every line, on a checkpoint of the same architecture made here: only sizes and the games are replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leap.loop import leap
from leap.recipe import load_recipe
from leap.recipes import FOLDER as RECIPES
from leap.runs.open import open_run


@pytest.mark.slow
def test_the_paper_s_recipe_runs_on_a_small_llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leap.testing.checkpoints import tiny_checkpoint

    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    student = tiny_checkpoint(tmp_path / "llama", "llama3")
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16384}))
    recipe = load_recipe(
        RECIPES / "alfworld-llama3-8b.yaml",
        [
            f"student.model=hf/{student}",
            "environment.options={source: generated, generator: {games: {train: 3, valid: 2, unseen: 2}, receptacles: [6, 7]}}",
            "environment.train=train",
            "environment.validation=valid",
            "environment.test=[unseen]",
            "iterations=1",
            "horizon=3",
            "student.sampling.max_tokens=12",
            "training.batch_rows=4",
            "training.device_rows=2",
            "training.lora.rank=4",
            "demonstrations.successes_only=false",  # three actions solve nothing
        ],
    )
    with open_run(tmp_path / "run", recipe) as stages:
        result = leap(stages)
    assert len(result.students) == 2
    for i in (0, 1):
        checkpoint = tmp_path / "run" / f"iter-{i}" / "checkpoint"
        assert (checkpoint / "adapter_model.safetensors").exists()
        assert json.loads((checkpoint / "leap.json").read_text())["result"]["answer_tokens"] > 0
