"""DPO and KTO on a pretrained student as `smollm2-quickstart` trains it: adapters on all linear layers in bfloat16, the SFT parts
by branches, the reference a frozen copy of the adapter on the one base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leap import registry
from leap.loop import leap
from leap.recipe import Recipe, load_recipe
from leap.recipes import find_recipe
from leap.runs.open import open_run

torch = pytest.importorskip("torch")

WORLD = "{source: generated, generator: {games: {train: 3, valid: 1, unseen: 1}, receptacles: [6, 7]}}"
FEW = {"steps": 2, "batch_rows": 4, "device_rows": 2, "beta": 0.1, "lr": 1e-4}


def recipe(method: str, student: Path) -> Recipe:
    """The recipe under another method, as the study `methods` puts it, at tiny size."""
    settings = [
        f"student.model=hf/{student}",
        f"environment.options={WORLD}",
        "iterations=1",
        "horizon=6",
        "student.sampling.max_tokens=8",
        "student.sampling.max_reason_tokens=4",
        "demonstrations={episodes: 3, successes_only: false}",
        "environment.train_tasks=3",
        "environment.validation_tasks=1",
        "training.first_steps=2",
        "training.steps=2",
        "training.bf16=true",
    ]
    values = load_recipe(find_recipe("smollm2-quickstart"), settings).model_dump(mode="json")
    config: Any = registry.method.get(method).Config
    return Recipe.model_validate(values | {"training": config.in_place_of(values["training"]) | {"method": method, **FEW}})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto", "sft+dpo"])
def test_a_pretrained_student_is_tuned_by_preferences(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    from leap.testing.checkpoints import tiny_checkpoint
    from leap.training import preference

    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    seen: list[tuple[set[str], bool, set[Any]]] = []
    copy = preference.copy_policy_to_reference

    def noting(model: Any) -> None:
        copy(model)
        assert isinstance(model, PeftModel)
        tensors = dict(model.named_parameters())
        pairs = [(tensors[name], tensors[name.replace(".default", ".ref")]) for name in tensors if ".default" in name]
        same = all(torch.equal(policy, reference) and not reference.requires_grad for policy, reference in pairs)
        base = {tensor.dtype for name, tensor in tensors.items() if "lora_" not in name}
        seen.append((set(model.peft_config), bool(pairs) and same, base))

    monkeypatch.setattr(preference, "copy_policy_to_reference", noting)
    made = recipe(method, tiny_checkpoint(tmp_path / "m", context=4096))
    with open_run(tmp_path / "run", made) as stages:
        assert len(leap(stages).students) == 2
    assert seen == [({"default", "ref"}, True, {torch.bfloat16})], "one base in bfloat16, no second copy of it"
    results = [json.loads((tmp_path / "run" / f"iter-{i}" / "checkpoint" / "leap.json").read_text())["result"] for i in (0, 1)]
    assert results[0]["answer_tokens"] > 0 and results[1]["steps"] == 2 and results[1]["rewards"]
    assert ("first" in results[1]) == (method == "sft+dpo")
    before, after = (load_file(tmp_path / "run" / f"iter-{i}" / "checkpoint" / "adapter_model.safetensors") for i in (0, 1))
    assert before.keys() == after.keys() and not any(".ref" in name for name in after)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert any("down_proj" in name for name in after), "all linear layers"
