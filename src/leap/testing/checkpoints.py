"""Tiny checkpoints with real tokenizers and chat templates of the styles in use: Llama 3, ChatML (Qwen), the scratch one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leap.models.scratch import ScratchConfig, build_scratch

STYLES = ("llama3", "chatml", "scratch")
"""Styles that tests go through one by one; `tools` is ChatML that shows tools and writes calls of them."""

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '\n' if m.content }}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "REASON: mug 1 is not here, so I look in cabinet 12.\nACTION: go to cabinet 12",
    "Task: put a clean mug in the cabinet.\nYou are in a room. You see a desk 1, a bed 2, and a drawer 3.",
    "On the desk 1, you see a mug 1, a pen 2, and a book 3. Nothing happens. The drawer 3 is closed.",
    "take mug 1 from desk 1; open drawer 3; close drawer 3; look; examine desk 1; clean mug 1 with sinkbasin 1",
    "Action: Thought: <think> </think> ** ` ' ( ) :: :) http://x",
]


def tiny_tokenizer(style: str) -> Any:
    """A byte-level BPE tokenizer, trained on a few lines, with the special tokens and the template of a style."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = {
        "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "tools": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    }[style]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    if style == "llama3":  # as the real one: a bare call puts a BOS of its own before any text
        core.post_processor = processors.TemplateProcessing(
            single=f"{special[0]} $A", special_tokens=[(special[0], core.token_to_id(special[0]))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=special[0] if style == "llama3" else None,
        eos_token=special[1] if style == "llama3" else special[0],  # not what ends a turn
        pad_token=special[1] if style == "llama3" else special[0],
        additional_special_tokens=special,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = {"llama3": LLAMA3, "chatml": CHATML, "tools": TOOLS}[style]
    return tokenizer


def tiny_checkpoint(directory: Path, style: str = "llama3", *, seed: int = 0, context: int = 1024, width: int = 32) -> Path:
    """Saves a two-layer Llama of 4 heads with random weights and grouped-query attention."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if style == "scratch":
        size = ScratchConfig(width=32, layers=2, heads=4, mlp=32, max_tokens=context)
        build_scratch(size, TEXTS, directory, seed=seed, std=0.15)
        return directory
    tokenizer = tiny_tokenizer(style)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=width * 3 // 2,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            initializer_range=0.15,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
