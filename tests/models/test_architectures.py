"""Every architecture answers from the cache, in a batch, as plain `generate` does, or is refused when it is loaded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from marks import slow

from leap.core.message import Message
from leap.errors import PrerequisiteError
from leap.models.base import Request, Sampling
from leap.models.checking import check_checkpoint
from leap.models.checkpoints import load_chat
from leap.testing.checkpoints import tiny_tokenizer

torch = pytest.importorskip("torch")

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.2, "pad_token_id": 0}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
OLDER = ("Phi", "Granite", "StableLm", "Starcoder2", "GPTNeoX", "OPT", "GPT2", "Falcon")
"""Architectures that the default suite leaves out."""

SAME: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", {}),
    "Mistral with a window": ("Mistral", {"sliding_window": 8}),
    "Mistral without": ("Mistral", {"sliding_window": None}),
    "Qwen2": ("Qwen2", {}),
    "Qwen2 with a window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]},
    ),
    "Qwen3": ("Qwen3", {"head_dim": 8}),
    "Phi3": ("Phi3", {"sliding_window": 8}),
    "Phi": ("Phi", {}),
    "Gemma": ("Gemma", {"head_dim": 8}),
    "Gemma2": ("Gemma2", {"head_dim": 8, "sliding_window": 8}),
    "Gemma3": ("Gemma3", {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "Olmo2": ("Olmo2", {}),
    "Olmo3": ("Olmo3", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "Granite": ("Granite", {}),
    "Cohere2": ("Cohere2", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "SmolLM3": ("SmolLM3", {}),
    "StableLm": ("StableLm", {}),
    "Starcoder2": ("Starcoder2", {"sliding_window": 8}),
    "Mixtral": ("Mixtral", {**EXPERTS, "sliding_window": 8}),
    "GptOss": ("GptOss", {**EXPERTS, "head_dim": 8, "sliding_window": 8}),
    "GPTNeoX": ("GPTNeoX", {}),
    "OPT": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.2}),
    "GPT2": ("GPT2", {}),
    "Falcon": ("Falcon", {"alibi": False}),
    "ALiBi: Mpt": ("Mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}),
    "chunks": (
        "Llama4",
        {
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "attention_chunk_size": 8,
            "attn_temperature_tuning": False,
            "layer_types": ["chunked_attention", "full_attention"],
        },
    ),
}
LINEAR = {"layer_types": ["linear_attention", "full_attention"], "head_dim": 8, "linear_num_value_heads": 4}
LINEAR |= {"linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 4}
LINEAR |= {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts_per_tok": 2}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "ALiBi: Bloom": ("Bloom", {}, "answers|work"),
    "ALiBi: Falcon": ("Falcon", {"alibi": True}, "answers|work"),
    "local layers: GPTNeo": (
        "GPTNeo",
        {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 256},
        "layer 1 is of the kind 'local'",
    ),
    "recurrent: Mamba": ("Mamba", {"state_size": 8}, "layer 0 "),
    "recurrent: Lfm2": ("Lfm2", {"layer_types": ["full_attention", "conv"]}, "layer 1 is of the kind 'conv'"),
    "recurrent: Qwen3Next": ("Qwen3Next", LINEAR, "layer 0 is of the kind 'linear_attention'"),
    "scaled by length": ("Llama4", SAME["chunks"][1] | {"attn_temperature_tuning": True}, "attn_temperature_tuning"),
}


def checkpoint(folder: Path, name: str, more: dict[str, Any], dtype: Any = None) -> Path:
    """A tiny checkpoint with random weights."""
    import transformers

    tokenizer = tiny_tokenizer("chatml")
    kind = {"Gemma3": "Gemma3Text", "Llama4": "Llama4Text"}.get(name, name)
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **(SIZE | more))
    config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model = getattr(transformers, f"{name}LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config)
    model.to(dtype or torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    from leap.models.hf import HFModel

    return HFModel(str(folder), Sampling(temperature=0, max_tokens=12, max_reason_tokens=6), device="cpu")


def turns(k: int) -> list[list[Message]]:
    first: list[Message] = [{"role": "user", "content": "You see a desk 1. " * (1 + 3 * k)}]
    return [first, [*first, {"role": "assistant", "content": "ACTION: look"}, {"role": "user", "content": f"A mug {k}."}]]


def converse(model: Any) -> list[list[str]]:
    """What the model answers in three conversations of two turns, all at once."""

    async def one(k: int) -> list[str]:
        async with model.conversation() as conversation:
            return [(await conversation.complete(Request(turn, seed=0))).text for turn in turns(k)]

    async def everything() -> list[list[str]]:
        return list(await asyncio.gather(*(one(k) for k in range(3))))

    return asyncio.run(everything())


def generated(model: Any, messages: list[Message]) -> str:
    """What transformers' own `generate` answers."""
    ids = torch.tensor([model.chat.prompt(messages)])
    whole = model.network.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=model.chat.ends
    )
    return model.chat.decode(whole[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("name", [slow(name) if name in OLDER else name for name in SAME])
def test_it_answers_as_plain_generate_does(name: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, *SAME[name])
    check_checkpoint(str(folder))
    model = load(folder)
    assert converse(model) == [[generated(model, turn) for turn in turns(k)] for k in range(3)]


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_when_loaded(name: str, tmp_path: Path) -> None:
    kind, more, reason = REFUSED[name]
    with pytest.raises(PrerequisiteError, match=f"cannot generate in this process: .*({reason})") as caught:
        load(checkpoint(tmp_path, kind, more))
    assert "\n" not in str(caught.value)
    if "of the kind" in reason:  # that shows without weights, before a run
        with pytest.raises(PrerequisiteError, match=reason):
            check_checkpoint(str(tmp_path))


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Mixtral", "GptOss"])
def test_half_precision_is_no_reason_to_refuse(name: str, tmp_path: Path) -> None:
    assert len(converse(load(checkpoint(tmp_path, *SAME[name], dtype=torch.bfloat16)))) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_check_has_teeth(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of thousands of tokens that is not kept to is found out with a few tokens."""
    folder = checkpoint(tmp_path, "Mistral", {"sliding_window": 1000}, getattr(torch, dtype))
    assert load(folder).network.config.sliding_window == 1000
    monkeypatch.setattr("leap.models.hf.reaches", lambda config: {"sliding_attention": 1 << 20})
    with pytest.raises(PrerequisiteError, match=r"its layer 0 \(MistralDecoderLayer, sliding_attention\) answers otherwise"):
        load(folder)


def test_weights_that_give_no_numbers_are_refused(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = checkpoint(tmp_path, "Llama", {})
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(PrerequisiteError, match="not finite"):
        load(folder)


def test_an_answer_ends_at_any_end_token(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = checkpoint(tmp_path, "Llama", {})
    long = load(folder)
    first = long.chat.text(converse(long)[0][0])[0]
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = [1, first]
    model.save_pretrained(folder)
    short = load(folder)
    assert {1, first, short.chat.end_of_turn} <= set(short.chat.ends) and converse(short)[0][0] == ""
    assert load_chat(str(folder))[0].ends == short.chat.ends  # of a student on an engine, whose weights are elsewhere
    (folder / "generation_config.json").unlink()
    of_config = json.loads((folder / "config.json").read_text()) | {"eos_token_id": [2, first]}
    (folder / "config.json").write_text(json.dumps(of_config))
    assert {2, first} <= set(load(folder).chat.ends) == set(load_chat(str(folder))[0].ends)


def test_more_tokens_than_embeddings(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "Llama", {})
    tokenizer = tiny_tokenizer("chatml")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    tokenizer.save_pretrained(folder)
    asked: list[Message] = [{"role": "user", "content": "an <image>"}]
    model = load(folder)  # no prompt needs it: what spells it is a text
    assert max(model.chat.prompt(asked)) < model.network.get_input_embeddings().weight.shape[0]
    assert "an <image>" in model.chat.tokenizer.decode(model.chat.prompt(asked))
    assert converse(model)
    tokenizer.add_tokens(["cabinet"])
    tokenizer.save_pretrained(folder)
    for attempt in (check_checkpoint, load):
        with pytest.raises(PrerequisiteError, match=r"1 tokens \(such as 'cabinet'\) beyond the model's .*resize_token_emb"):
            attempt(str(folder))  # type: ignore[operator]


def test_past_its_first_length_a_longrope_model_is_not_asked(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "long_factor": [2.0] * 4, "short_factor": [1.0] * 4, "rope_theta": 10_000.0}
    more = {"rope_parameters": rope | {"original_max_position_embeddings": 64}, "original_max_position_embeddings": 64}
    assert check_checkpoint(str(checkpoint(tmp_path, "Phi3", {"sliding_window": None} | more))) == 64
