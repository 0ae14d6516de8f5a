"""A student that training does not fit is refused before its first step, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pairs import SFT, some_rows, train

from leap.errors import PrerequisiteError
from leap.models.checking import check_adaptable
from leap.testing.checkpoints import tiny_checkpoint, tiny_tokenizer
from leap.training.config import LoraConfig

torch = pytest.importorskip("torch")

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": 0}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
BRANCHES = SFT.model_copy(update={"branches": True, "steps": 1})


def checkpoint(folder: Path, name: str, more: dict[str, Any]) -> str:
    import transformers

    tokenizer = tiny_tokenizer("chatml")
    config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer), **SIZE, **more)
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("name", "more", "reason"),
    [
        ("Mistral", {"sliding_window": 16}, r"layer 0 of this student \(sliding_attention\) sees 16 tokens, and a row has"),
        ("Cohere2", {"sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"]}, "layer 1 of this"),
        ("GptOss", EXPERTS | {"sliding_window": 4000}, "are not those of separate rows"),  # sinks
        ("Gemma2", {"attn_logit_softcapping": 50.0, "head_dim": 8, "sliding_window": 4000}, "are not those"),
        ("Bloom", {}, "nats a token off"),  # ALiBi
        ("Lfm2", {"layer_types": ["full_attention", "conv"]}, "layer 1 is of the kind 'conv'"),
    ],
)
def test_branches_train_on_the_models_own_attention_or_not_at_all(
    name: str, more: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    start = checkpoint(tmp_path / "start", name, more)
    with pytest.raises(PrerequisiteError, match=f"training.branches.*{reason}") as caught:
        train(BRANCHES, start, tmp_path / "out", rows=some_rows(2, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Mistral"])
def test_full_attention_and_windows_that_hold_every_row_pass(name: str, tmp_path: Path) -> None:
    start = checkpoint(tmp_path / "start", name, {"sliding_window": 4000} if name == "Mistral" else {})
    train(BRANCHES, start, tmp_path / "out", rows=some_rows(2, 3))
    assert (tmp_path / "out" / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("targets", [["nothing"], ["q_proj", "v_prj"]])
def test_targets_that_are_not_there_are_named(targets: list[str], tmp_path: Path) -> None:
    start = str(tiny_checkpoint(tmp_path / "start", "chatml"))
    config = SFT.model_copy(update={"lora": LoraConfig(rank=2, targets=targets)})
    said = f"the model has no '{targets[-1]}'; its linear layers are called .*q_proj"
    with pytest.raises(PrerequisiteError, match=said):
        check_adaptable(start, targets)
    with pytest.raises(PrerequisiteError, match=said) as caught:
        train(config, start, tmp_path / "out", rows=some_rows(1, 2))
    assert "\n" not in str(caught.value)
    check_adaptable(start, ["q_proj", "mlp.up_proj"])


def test_a_layer_that_cannot_be_adapted_is_said(tmp_path: Path) -> None:
    start = str(tiny_checkpoint(tmp_path / "start", "chatml"))
    config = SFT.model_copy(update={"lora": LoraConfig(rank=2, targets=["norm"])})
    with pytest.raises(PrerequisiteError, match=r"training.lora does not fit this model: .*not supported") as caught:
        train(config, start, tmp_path / "out", rows=some_rows(1, 2))
    assert "\n" not in str(caught.value)
