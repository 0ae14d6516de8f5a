"""Pretrained students of many architectures in bfloat16: trained, left on disk and loaded again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gguf_files import a_checkpoint, write_gguf
from marks import slow
from pairs import SFT, some_rows, train, weights

from leap.errors import RecipeError
from leap.models.base import Sampling
from leap.testing.checkpoints import tiny_tokenizer
from leap.training.config import LoraConfig, SFTConfig

torch = pytest.importorskip("torch")

from leap.models.checking import check_adaptable  # noqa: E402
from leap.models.checkpoints import load_causal_lm, rounded  # noqa: E402
from leap.models.gguf import unpacked  # noqa: E402

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.2, "pad_token_id": 0}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", {}),
    "Llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "Mistral": ("Mistral", {"sliding_window": 8}),
    "Qwen2": ("Qwen2", {}),
    "Qwen3, tied": ("Qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "Gemma": ("Gemma", {"head_dim": 8}),
    "Gemma3": ("Gemma3", {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "GPT2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}),
    "Phi3": ("Phi3", {"sliding_window": 2048}),
}
LORA = SFT.model_copy(update={"lora": LoraConfig(rank=4, alpha=8, targets="all-linear"), "steps": 3})
FULL = SFT.model_copy(update={"steps": 3})


def pretrained(folder: Path, name: str, dtype: Any = torch.bfloat16) -> str:
    """A tiny checkpoint of that kind with random weights."""
    import transformers

    kind, more = KINDS[name]
    tokenizer = tiny_tokenizer("chatml")
    torch.manual_seed(0)
    config = getattr(transformers, f"{'Gemma3Text' if kind == 'Gemma3' else kind}Config")(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **(SIZE | more)
    )
    model = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def logits(model: Any, rows: int = 2) -> Any:
    """In float32, so that only the weights differ."""
    ids = torch.arange(3, 3 + 20 * rows).reshape(rows, 20)
    with torch.inference_mode():
        return model.eval().float()(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("name", [name if "tied" in name or name == "Gemma3" else slow(name) for name in KINDS])
def test_an_adapter_is_kept_apart_on_disk_and_merged_to_play(name: str, tmp_path: Path) -> None:
    from leap.models.hf import HFModel

    start = pretrained(tmp_path / "start", name)
    train(LORA, start, tmp_path, rows=some_rows(2, 2))
    out = str(tmp_path / "out")
    assert all("lora_" in key and one.dtype == torch.float32 for key, one in weights(tmp_path / "out").items())
    apart, merged = load_causal_lm(out, device="cpu")[0], HFModel(out, Sampling(max_tokens=8)).network
    assert hasattr(apart, "peft_config") and not hasattr(merged, "peft_config") and "lora" not in str(merged)
    assert {one.dtype for one in merged.parameters()} == {torch.bfloat16}
    base, truth, found = logits(load_causal_lm(start, device="cpu")[0]), logits(apart), logits(merged)
    moved = (base - truth).norm()
    assert moved > 0.01 * base.norm() and (found - truth).norm() < 0.1 * moved
    train(LORA, out, tmp_path / "on", rows=some_rows(2, 2))  # from the adapter that is apart
    assert weights(tmp_path / "on" / "out").keys() == weights(tmp_path / "out").keys()


@pytest.mark.parametrize("name", KINDS)
def test_weights_come_back_in_the_type_they_had(name: str, tmp_path: Path) -> None:
    start = pretrained(tmp_path / "start", name)
    train(FULL, start, tmp_path, rows=some_rows(2, 2))
    before, after = weights(tmp_path / "start"), weights(tmp_path / "out")
    assert before.keys() == after.keys() and {one.dtype for one in after.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_small_steps_are_not_lost_in_bfloat16(tmp_path: Path) -> None:
    """Steps below the distance of two numbers in bfloat16: rounded to the nearest, a training would undo itself."""
    starts = {dtype: pretrained(tmp_path / str(dtype), "Llama", dtype) for dtype in (torch.bfloat16, torch.float32)}
    load_causal_lm(starts[torch.bfloat16], dtype=torch.float32, device="cpu")[0].save_pretrained(starts[torch.float32])
    for dtype, start in starts.items():
        train(FULL.model_copy(update={"lr": 1e-5}), start, tmp_path / f"{dtype} trained", rows=some_rows(2, 2))
    before = weights(tmp_path / "torch.bfloat16")

    def moved(after: dict[str, Any]) -> Any:
        return torch.cat([(after[key].double() - before[key].double()).flatten() for key in sorted(before)])

    exact = weights(tmp_path / "torch.float32 trained" / "out")
    true, kept = moved(exact), moved(weights(tmp_path / "torch.bfloat16 trained" / "out"))
    nearest = moved({key: one.bfloat16() for key, one in exact.items()})
    assert nearest @ true < 0.3 * (true @ true)
    assert float(kept @ true / (true @ true)) == pytest.approx(1, abs=0.1)


def test_rounding_is_right_on_average_and_leaves_what_fits() -> None:
    fits = torch.randn(1000).bfloat16().float()
    assert torch.equal(rounded(fits, torch.bfloat16).float(), fits)
    between = torch.full((100_000,), 1 + 2**-7 * 0.25)
    found = rounded(between, torch.bfloat16).float()
    assert set(found.tolist()) == {1.0, 1 + 2**-7} and float(found.mean()) == pytest.approx(float(between[0]), abs=1e-4)
    extreme = torch.tensor(
        [float("nan"), float("inf"), -float("inf"), torch.finfo(torch.float32).max, 0.0, -0.0, 1e-40]
    )
    assert torch.equal(rounded(extreme, torch.bfloat16)[1:], extreme.bfloat16()[1:])
    assert rounded(extreme, torch.bfloat16)[0].isnan()


def test_all_linear_is_a_word_and_nothing_else_is(tmp_path: Path) -> None:
    check_adaptable(pretrained(tmp_path / "start", "GPT2"), "all-linear")
    assert SFTConfig.from_values({"lora": {"targets": "all-linear"}}, "x").lora.targets == "all-linear"  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="all-linear"):
        SFTConfig.from_values({"lora": {"targets": "all"}}, "x")


def test_an_adapter_of_a_gguf_file_plays_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    file = str(write_gguf(tmp_path / "model.gguf", a_checkpoint(tmp_path / "source"), "Q8_0"))
    train(LORA, file, tmp_path, rows=some_rows(1, 2))
    out = str(tmp_path / "out")
    before = logits(load_causal_lm(out, device="cpu")[0])
    shutil.rmtree(tmp_path / "cache")
    assert unpacked(file) and torch.equal(logits(load_causal_lm(out, device="cpu")[0]), before)  # as when a run goes on
    assert not torch.equal(before, logits(load_causal_lm(file, device="cpu")[0]))
