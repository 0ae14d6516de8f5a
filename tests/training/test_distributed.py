"""Training in two processes is training in one: the same step on the same rows."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leap.recipes import FOLDER as RECIPES
from leap.testing.checkpoints import tiny_checkpoint

torch = pytest.importorskip("torch")

import job  # noqa: E402

KINDS = ("rows", "branches", "short branches", "dpo", "kto", "distill", "distill one each", "adapter", "both")


def in_processes(folder: Path, start: Path, processes: int) -> list[dict[str, Any]]:
    """The figures of each step of a job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    here = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent / "shared")])
    command = [sys.executable, *launcher, job.__file__, str(folder), str(start), ",".join(KINDS)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_a_step_of_two_processes_is_a_step_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adam's step hides the gradient's size, so the loss and the gradient's norm are compared as well as the weights."""
    from safetensors.torch import load_file

    start = tiny_checkpoint(tmp_path / "start", "llama3")
    monkeypatch.setattr(job.Watch, "on_log", job.noting)
    job.main(tmp_path / "1", str(start), list(KINDS))
    one = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    two = in_processes(tmp_path / "2", start, 2)
    assert [figures["processes"] for figures in two] == [2] * (len(KINDS) + 1) and len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert (a["loss"], a["norm"]) == pytest.approx((b["loss"], b["norm"]), rel=1e-4)
    before: dict[str, Any] = load_file(start / "model.safetensors")
    for kind in KINDS:
        file = "adapter_model.safetensors" if kind == "adapter" else "model.safetensors"
        alone, shared = (load_file(tmp_path / n / kind / "out" / file) for n in ("1", "2"))
        assert any(name not in before or not torch.equal(before[name], tensor) for name, tensor in alone.items())
        for name, tensor in alone.items():
            # Where a gradient is nothing but rounding, Adam's first step goes either way by the whole learning rate.
            apart = ((tensor - shared[name]).abs() > 1e-4).float().mean().item()
            assert apart < 0.01, (kind, name, apart)


def test_rows_that_cannot_be_shared_out_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from pairs import KTO, SFT

    from leap.errors import RecipeError
    from leap.training import trainer

    assert trainer.row_batches(SFT) == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert trainer.row_batches(SFT.model_copy(update={"batch_rows": 6, "device_rows": 4})) == {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
    }
    monkeypatch.setattr(trainer, "world", lambda: 3)
    with pytest.raises(RecipeError, match="batch_rows"):
        trainer.row_batches(SFT)
    monkeypatch.setattr(trainer, "world", lambda: 4)
    assert trainer.row_batches(SFT) == {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    with pytest.raises(RecipeError, match="batch_rows"):
        trainer.row_batches(KTO.model_copy(update={"batch_rows": 4}), least=2)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_the_launch_recipes_are_accelerates(name: str) -> None:
    """Every key is one that `accelerate launch` knows: it refuses others."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config: Any = load_config_from_file(str(RECIPES / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type == {"ddp": "MULTI_GPU", "fsdp": "FSDP"}[name] and config.mixed_precision == "no"
    if name == "fsdp":
        options = {option.dest for option in launch_command_parser()._actions}
        assert config.fsdp_config and set(config.fsdp_config) <= options, set(config.fsdp_config) - options
