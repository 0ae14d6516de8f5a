"""What a student computes in where its recipe leaves that open: decided when the run begins, and kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from leap import registry
from leap.files import read_json
from leap.loop import leap
from leap.models import precision
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.open import open_run
from leap.runs.table import stage_table
from leap.testing.checkpoints import tiny_checkpoint
from leap.testing.corridor import Corridor

torch = pytest.importorskip("torch")


@registry.environment("precision-corridor")
class World(Corridor):
    """A corridor of its own name."""

    name = "precision-corridor"


def recipe(base: Path, bf16: object = False, **student: object) -> Recipe:
    values: dict[str, Any] = {
        "name": "x",
        "iterations": 1,
        "horizon": 4,
        "environment": {"name": "precision-corridor", "train": "train", "validation": "valid", "test": ["unseen"]},
        "student": {"model": f"hf/{base}", "sampling": {"max_tokens": 8}} | student,
        "demonstrations": {"episodes": 2},
        "training": {"steps": 2, "batch_rows": 4, "device_rows": 2, "lr": 1e-3, "bf16": bf16},
    }
    return Recipe.model_validate(values)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    from transformers import AutoModelForCausalLM

    folder = tiny_checkpoint(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def on_a_machine(faster: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 is so many times as fast there."""
    monkeypatch.setattr(precision, "_times_faster", lambda *_: faster)


def trained(root: Path, made: Recipe) -> bytes:
    """Runs it; the weights of pi_1, which depend on pi_0's episodes."""
    with open_run(root, made) as stages:
        leap(stages)
    return (RunDirectory(root).checkpoint(1) / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_auto_is_what_the_first_machine_is_faster_in(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(base, "auto")
    stated = {
        pays: trained(tmp_path / f"stated-{pays}", recipe(base, pays, dtype="bfloat16" if pays else "float32"))
        for pays in (True, False)
    }
    assert stated[True] != stated[False]
    for faster in (3.0, 0.5):
        on_a_machine(faster, monkeypatch)
        root = tmp_path / f"auto-{faster}"
        whole = trained(root, made)
        assert whole == stated[faster > 1] and read_json(RunDirectory(root).precision) == {"bf16": faster > 1}
        for path in (
            RunDirectory(root).checkpoint(1),
            RunDirectory(root).episodes(1),
        ):  # and again, on the other machine
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        on_a_machine(1.5 / faster, monkeypatch)
        assert trained(root, made) == whole


def test_a_run_from_before_keeps_its_types(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_machine(0.5, monkeypatch)
    root, made = tmp_path / "run", recipe(base)
    with open_run(root, made) as stages:
        assert stages.actors._dtype == "float32"
        stages.rollout(0)
    RunDirectory(root).precision.unlink()
    with open_run(root, made) as stages:
        assert stages.actors._dtype == "auto"
    assert not RunDirectory(root).precision.exists()


def test_types_that_are_stated_are_not_timed(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_times_faster", lambda *_: pytest.fail("timed"))
    for name, made in {
        "stated": recipe(base, True, dtype="bfloat16"),
        "float32": recipe(tiny_checkpoint(tmp_path / "whole")),
        "scratch": recipe(base, model="scratch"),
    }.items():
        with open_run(tmp_path / name, made):
            assert not RunDirectory(tmp_path / name).precision.exists()


def test_the_keys_of_a_recipe_that_states_it_are_as_before(base: Path) -> None:
    stated, auto = ([stage.key for stage in stage_table(recipe(base, bf16))] for bf16 in (False, "auto"))
    assert stated != auto and recipe(base).training.deciding()["bf16"] is False


def test_the_timing_is_short_and_says_what_it_found(caplog: pytest.LogCaptureFixture) -> None:
    import time

    precision._times_faster.cache_clear()
    began = time.monotonic()
    first = precision.bf16_pays((576, 1536))
    assert time.monotonic() - began < 10  # a second and less, on a quiet machine
    assert precision.bf16_pays((576, 1536)) == first and "times as fast as float32 on this processor" in caplog.text
