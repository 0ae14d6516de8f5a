"""What can be told of a checkpoint without its weights: its tokens, its context, whether it can be used at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leap.errors import PrerequisiteError
from leap.models.chat import ChatTokens


def load_chat(path: str) -> tuple[ChatTokens, int]:
    """How a checkpoint's tokens are made and how many of them fit into its context, without its weights.

    Raises:
        PrerequisiteError: Nothing usable is at that path or name.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        base = adapters_base(path) if (Path(path) / "adapter_config.json").exists() else path
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        chat = ChatTokens(AutoTokenizer.from_pretrained(path, trust_remote_code=False))
    except (OSError, ValueError, KeyError) as error:
        raise PrerequisiteError(f"cannot load the tokenizer of {path!r}: {first_line(error)}") from error
    return chat, context_of(config)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def context_of(config: Any) -> int:
    """Most tokens of a model's context, prompt and answer together; as good as endless where its config names none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30


def adapters_base(path: str) -> str:
    """The model that a LoRA adapter was trained on."""
    from peft import PeftConfig

    if not (Path(path) / "adapter_model.safetensors").exists():
        raise OSError("its adapter_model.safetensors is missing (pickled weights are not read)")
    return PeftConfig.from_pretrained(path).base_model_name_or_path or ""


def check_checkpoint(path: str) -> int:
    """Whether a checkpoint directory or hub name can be a student or a model here, as far as that shows without weights.

    Returns:
        Most tokens of its context.

    Raises:
        PrerequisiteError: A package is missing, nothing usable is there, or its weights are pickled.
    """
    try:
        _, context = load_chat(path)
    except ImportError as error:
        raise PrerequisiteError(f"hf/{path} needs transformers (pip install 'leap-agents[train]'): {error}") from error
    if Path(path).is_dir() and not any(Path(path).glob("*.safetensors")):
        raise PrerequisiteError(f"the checkpoint {path} has no *.safetensors (pickled weights are not read).")
    return context
