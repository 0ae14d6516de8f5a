"""Small GGUF files, written by the gguf package from a checkpoint of Qwen2's architecture, whose tensors keep their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leap.testing.checkpoints import tiny_tokenizer

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers.": "blk.",
}


def a_checkpoint(folder: Path, *, tied: bool = False) -> Path:
    """A tiny Qwen2 in bfloat16, as wide as blocks of quantized weights."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = tiny_tokenizer("chatml")
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    size |= {"num_key_value_heads": 2, "max_position_embeddings": 512, "vocab_size": len(tokenizer)}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "initializer_range": 0.2}
    Qwen2ForCausalLM(Qwen2Config(**size, **ends, tie_word_embeddings=tied)).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_gguf(
    file: Path,
    checkpoint: Path,
    kind: str = "F32",
    *,
    architecture: str = "qwen2",
    more: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """Writes a checkpoint as a GGUF file.

    Args:
        file: Where to.
        checkpoint: A folder that `a_checkpoint` made.
        kind: The type of its matrices, in gguf's words.
        architecture: What the file says it is.
        more: Further texts and numbers.
        without: What is left out: tensors by the beginnings of their names, `tokenizer`, `template`.
    """
    import gguf
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoTokenizer

    config, tokenizer = AutoConfig.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    if "tokenizer" not in without:
        core = __import__("json").loads(tokenizer.backend_tokenizer.to_str())
        tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
        special = set(tokenizer.all_special_tokens) | {one["content"] for one in core["added_tokens"]}
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in special else 1 for token in tokens])
        writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in core["model"]["merges"]])
        writer.add_eos_token_id(tokenizer.eos_token_id)
        writer.add_pad_token_id(tokenizer.pad_token_id)
        if "template" not in without:
            writer.add_chat_template(tokenizer.chat_template)
    for key, value in (more or {}).items():
        writer.add_string(key, value) if isinstance(value, str) else writer.add_uint16(key, value)
    wanted = gguf.GGMLQuantizationType[kind]
    for name, weights in load_file(checkpoint / "model.safetensors").items():
        for long, short in NAMES.items():
            name = name.replace(long, short)
        if name.startswith(without):
            continue
        values, matrix = weights.to(torch.float32).numpy(), weights.ndim == 2
        stored = gguf.quantize(values, wanted) if matrix and kind != "F32" else values
        writer.add_tensor(name, stored, raw_dtype=wanted if matrix and kind != "F32" else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
