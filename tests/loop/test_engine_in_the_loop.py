"""The whole loop with the student on an engine that leap starts: what it is asked for, and a run that is killed under way."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_games import small_games

pytest.importorskip("torch")
pytest.importorskip("openai")
from killed_runs import on_file
from stand_in_engine import as_vllm, gone

from leap.core import Episode
from leap.files import Journal
from leap.testing.checkpoints import tiny_checkpoint


def write_recipe(folder: Path) -> Path:
    """The recipe of a tiny pretrained student with adapters on a server that stays up while it trains."""
    base = tiny_checkpoint(folder / "base", "chatml", context=4096)
    values: dict[str, Any] = {
        "name": "engine",
        "seed": 3,
        "iterations": 1,
        "horizon": 3,
        "environment": {"name": "alfworld", "test": ["unseen"], "options": small_games(3, 1, 1)},
        "student": {
            "model": f"hf/{base}",
            "prompt": {"renderer": "dialogue", "instructions": False, "candidates": False},
            "sampling": {"temperature": 0.7, "max_tokens": 40, "max_reason_tokens": 6},
            "decoding": "constrained",
            "batch": 2,
            "engine": {"kind": "vllm", "keep": True, "options": {"max_model_len": 4096, "max_num_seqs": 2}},
        },
        "demonstrations": {"episodes": 2, "successes_only": False},
        "teacher": {"episodes": "all"},
        "training": {
            "branches": True,
            "lora": {"rank": 4},
            "batch_tokens": 2000,
            "steps": 2,
            "save_steps": 1,
            "lr": 1e-2,
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder / "recipe.yaml"


def start(recipe: Path, run: Path) -> subprocess.Popen[str]:
    """`leap run` as a user starts it."""
    command = [sys.executable, "-c", "from leap.cli import main; main()", "run", str(recipe), "--run-dir", str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)  # six programs that import PyTorch, one after another
def test_a_student_on_an_engine_learns_and_a_killed_run_ends_as_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    noted, recipe, run = as_vllm(tmp_path, monkeypatch), write_recipe(tmp_path), tmp_path / "run"
    alone = start(recipe, run)
    said, _ = alone.communicate(timeout=300)
    assert alone.returncode == 0, said
    (server,), (first, second), asked = noted("pid"), noted("loaded"), noted("asked")
    assert gone(server) and noted("unloaded") == [first, second] and first != second
    assert [Path(path) for path in noted("path")] == [run / f"iter-{i}/checkpoint" for i in range(2)]
    assert [*dict.fromkeys(body["model"] for body in asked)] == [
        first,
        second,
    ]  # pi_0 plays, then pi_1; the base never does
    steps = {
        name: [s for e in Journal(run / name, Episode) for s in e.steps]
        for name in ("iter-0/evaluation/valid.jsonl", "iter-1/episodes.jsonl", "iter-1/evaluation/unseen.jsonl")
    }
    for name, played in steps.items():
        assert played and all(step.action in (step.observation.admissible or ()) and step.parsed for step in played), name
    reference = on_file(run)

    shutil.rmtree(run)
    killed = start(recipe, run)
    episodes = run / "iter-1/episodes.jsonl"
    while killed.poll() is None and not (episodes.exists() and episodes.read_bytes().count(b"\n")):
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    kept = episodes.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    assert killed.returncode == -signal.SIGKILL and not (run / "iter-1/checkpoint").exists()
    assert gone(noted("pid")[-1]) and len(noted("pid")) == 2
    again = start(recipe, run)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert gone(noted("pid")[-1]) and len(noted("pid")) == 3
    assert episodes.read_bytes().startswith(kept) and on_file(run) == reference
