"""What can be told of a checkpoint without its weights: its tokens, its context, whether it can be used at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from leap.core import content_key
from leap.errors import LeapError, PrerequisiteError
from leap.files import digest
from leap.models.attention import check_kinds
from leap.models.chat import ChatTokens, first_line


def load_chat(path: str, *, generates: bool = False) -> tuple[ChatTokens, int]:
    """How a checkpoint's tokens are made and how many of them fit into its context, without its weights.

    Args:
        path: Checkpoint directory or hub name.
        generates: Whether it is to generate in this process.

    Raises:
        PrerequisiteError: Nothing usable is at that path or name.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        base = adapters_base(path) if (Path(path) / "adapter_config.json").exists() else path
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        if generates:
            check_kinds(config, f"hf/{path}")
        check_tokens(tokenizer, getattr(config.get_text_config(), "vocab_size", None), path)
        chat = ChatTokens(tokenizer)
    except (LeapError, ImportError):
        raise
    except Exception as error:  # damaged files are told in many ways, by errors of several libraries
        raise PrerequisiteError(f"cannot load the tokenizer of {path!r}: {first_line(error)}") from error
    return chat, context_of(config)


def context_of(config: Any) -> int:
    """Most tokens of a model's context, prompt and answer together; as good as endless where its config names none.

    Past the length it was first trained at, a model with `longrope` turns all positions otherwise, those of earlier tokens
    too: neither what is cached nor shorter texts of the same batch would fit.
    """
    config = config.get_text_config()
    context = getattr(config, "max_position_embeddings", None) or 1 << 30
    rope = getattr(config, "rope_parameters", None) or {}
    for one in (rope, *rope.values()):  # one for all layers, or one for each kind of them
        if isinstance(one, dict) and one.get("rope_type") == "longrope":
            context = min(context, one.get("original_max_position_embeddings") or context)
    return context


def check_tokens(tokenizer: Any, embeddings: int | None, path: str) -> None:
    """Looks for tokens that the model has no embedding for. Special ones for pictures are let be, if no prompt has them.

    Raises:
        PrerequisiteError: There are some.
    """
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if embeddings is not None and i >= embeddings}
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    named = f"{tokenizer.chat_template} {tokenizer.bos_token} {tokenizer.eos_token}"
    if needed := [token for token in beyond if token not in special or token in named]:
        raise PrerequisiteError(
            f"the tokenizer of {path} has {len(needed)} tokens (such as {needed[0]!r}) beyond the model's {embeddings} "
            "embeddings: call model.resize_token_embeddings(len(tokenizer)) and save the checkpoint again."
        )


def end_tokens(network: Any) -> list[int]:
    """Tokens at which a model's generation_config ends an answer."""
    ends = getattr(getattr(network, "generation_config", None), "eos_token_id", None)
    return [ends] if isinstance(ends, int) else list(ends or ())


_CONTENT = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
_NOTES = {"leap.json", "training.json"}
"""What training notes of a checkpoint, times among it."""


def identity(path: str) -> str:
    """Names a checkpoint by what it holds: of a folder the content of its files and of the base that an adapter in it is for, of
    a hub name the revision that was fetched. A name alone where there is nothing of it here.
    """
    folder = Path(path)
    if folder.is_dir():
        files = sorted({file for pattern in _CONTENT for file in folder.glob(pattern) if file.name not in _NOTES})
        content = [(file.name, digest(file)) for file in files]
        base = None
        with suppress(OSError, ValueError, AttributeError):
            base = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
        return content_key(content, *([identity(base)] if base and base != path else []))
    with suppress(ImportError, ValueError):  # not a hub name
        from huggingface_hub import try_to_load_from_cache

        if isinstance(found := try_to_load_from_cache(path, "config.json"), str):
            return f"{path}@{Path(found).parent.name}"
    return path


def model_identity(name: str) -> str:
    """`provider/model` with the model named by what it holds, where it is a checkpoint that is loaded here."""
    provider, _, path = name.partition("/")
    return f"{provider}/{identity(path)}" if provider in ("hf", "vllm") and path else name


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
        _, context = load_chat(path, generates=True)
    except ImportError as error:
        raise PrerequisiteError(f"hf/{path} needs transformers (pip install 'leap-agents[train]'): {error}") from error
    if Path(path).is_dir() and not any(Path(path).glob("*.safetensors")):
        raise PrerequisiteError(f"the checkpoint {path} has no *.safetensors (pickled weights are not read).")
    return context


def check_targets(model: Any, targets: Sequence[str] | None) -> None:
    """Looks for the modules that LoRA is to adapt: PEFT passes over those that are not there, if one is.

    Raises:
        PrerequisiteError: One is not there.
    """
    names = [name for name, _ in model.named_modules()]
    missing = [one for one in targets or () if not any(name == one or name.endswith(f".{one}") for name in names)]
    if missing:
        modules = [(name.rpartition(".")[2], module) for name, module in model.named_modules()]
        linear = {name for name, module in modules if hasattr(module, "in_features") or hasattr(module, "nf")}
        raise PrerequisiteError(
            f"training.lora.targets: the model has no {', '.join(map(repr, missing))}; its linear layers are called "
            f"{', '.join(sorted(linear))}."
        )


def check_adaptable(path: str, targets: Sequence[str]) -> None:
    """Looks for the modules that LoRA is to adapt without loading weights.

    Raises:
        PrerequisiteError: One is not there.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    base = adapters_base(path) if (Path(path) / "adapter_config.json").exists() else path
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base, trust_remote_code=False))
    check_targets(model, targets)
