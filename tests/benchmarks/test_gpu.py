"""`benchmarks/gpu.py` at toy size on a CPU: each part gives its figures, and one that fails stops no other."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Iterator[Any]:
    patched = pytest.MonkeyPatch()
    patched.setattr(sys, "argv", [str(SCRIPT), "--tiny"])
    patched.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    patched.undo()


@pytest.fixture(scope="module")
def folder(gpu: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("gpu")
    assert gpu.part_peak(made)["teraflops"] > 0
    assert gpu.part_checkpoint(made)["weights"] > 100_000
    return made


@pytest.mark.parametrize("part", ["rollouts", "branches", "branches recomputed", "rows recomputed", "trl", "scratch"])
def test_every_part_gives_its_figures(part: str, gpu: Any, folder: Path) -> None:
    told = gpu.PARTS[part](folder)
    for figures in (told["rollouts"], told["training"]) if part == "scratch" else (told,):
        assert figures["tokens_per_second"] > 0 and 0 < figures["share_of_card"] < 1
        assert 0 < figures["answer_tokens_per_second"] < figures["tokens_per_second"]


def test_adapters_without_peft_start_as_the_model_and_learn(gpu: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "student", dtype=torch.float32)
    ids = torch.arange(9)[None]
    before = model(input_ids=ids).logits
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    adapted, frozen = gpu.adapted(model), gpu.weights(model)
    after = adapted(input_ids=ids).logits
    assert torch.equal(before, after) and gpu.weights(adapted) == frozen
    after.square().mean().backward()
    with_gradient = [name for name, w in adapted.named_parameters() if w.grad is not None]
    assert len(with_gradient) == 2 * 7 * 2 and all("lora_" in name for name in with_gradient)


def test_a_part_that_fails_is_told_with_its_error(gpu: Any, tmp_path: Path) -> None:
    assert str(tmp_path / "student") in gpu.run("rollouts", tmp_path, 300)["failed"]
    assert gpu.run("peak", tmp_path, 0)["failed"] == "not done after 0 s"
