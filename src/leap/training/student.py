"""The student as it is trained: loading with adapters and quantisation, and leaving a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from leap.errors import PrerequisiteError
from leap.models.checkpoints import adapters_base
from leap.models.hf import best_device, load_causal_lm, with_adapter
from leap.training.config import TrainingSettings
from leap.training.distributed import world

POLICY = "default"
"""PEFT's name of the adapter that is trained."""


def load_student(start: str, config: TrainingSettings) -> tuple[Any, Any]:
    """A checkpoint's model and tokenizer, ready to be trained as the settings say.

    With `lora` the checkpoint's own adapter goes on being trained, or a fresh one is put on it: a fresh adapter changes
    nothing until it has been trained.

    Raises:
        PrerequisiteError: There is no usable checkpoint at `start`, or bitsandbytes is missing.
    """
    if config.quantize == "none":
        dtype = torch.bfloat16 if config.bf16 and config.lora else torch.float32
        model, tokenizer = load_causal_lm(start, dtype=dtype, device=_device())
    else:
        model, tokenizer = _load_4bit(start, config)
    if config.lora is None:
        if hasattr(model, "peft_config"):
            raise PrerequisiteError(
                f"{start} is a LoRA adapter, and the recipe trains all weights. Set training.lora, or merge the adapter "
                "into its base first."
            )
        return model, tokenizer
    return _with_adapter(model, config), tokenizer


def load_reference(start: str, config: TrainingSettings) -> Any:
    """A second copy of a checkpoint's weights, frozen."""
    model, _ = load_causal_lm(start, dtype=torch.float32, device=_device())
    model.eval()
    return model.requires_grad_(False)


def _device() -> str:
    """Where this process computes; FSDP shards from the CPU."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in {"1", "true"}:
        return "cpu"
    if torch.cuda.is_available() and world() > 1:
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return best_device()


def _load_4bit(start: str, config: TrainingSettings) -> tuple[Any, Any]:
    if find_spec("bitsandbytes") is None:
        raise PrerequisiteError("quantize: 4bit needs bitsandbytes, which is not installed: pip install bitsandbytes")
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    adapted = (Path(start) / "adapter_config.json").exists()
    compute = torch.bfloat16 if config.bf16 else torch.float32
    # As in the QLoRA paper: NF4, the scales quantised too. Storage in the compute type lets FSDP shard it.
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_storage=compute if config.bf16 else torch.uint8,
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(start, trust_remote_code=False)
        base = adapters_base(start) if adapted else start
        model: Any = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=compute,
            quantization_config=quantization,
            device_map={"": _device()},
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PrerequisiteError(f"cannot load the model {start!r} in 4 bits: {reason}") from error
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=config.gradient_checkpointing)
    return (with_adapter(model, start, trainable=True) if adapted else model), tokenizer


def _with_adapter(model: Any, config: TrainingSettings) -> Any:
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model, PeftModel):  # goes on training the adapter of pi_{i-1}
        for name, parameter in model.named_parameters():
            parameter.requires_grad = "lora_" in name
    else:
        assert config.lora is not None
        adapter = LoraConfig(
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=config.lora.targets,
            bias="none",
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, adapter)
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    return model


@contextmanager
def unrounded(model: Any) -> Iterator[None]:
    """While a trainer is made: keeps the trained weights as they are. TRL rounds a quantised model's adapters to bfloat16,
    in which the steps of a preference method's learning rate (5e-7) would be lost."""
    trained = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in trained:
            parameter.data = trained[name]


def save_student(trainer: Trainer, tokenizer: Any, out: Path) -> None:
    """Leaves the trained weights and the tokenizer as a checkpoint directory; only rank 0 writes.

    Sharded weights are gathered first, which all ranks take part in. Of several adapters only the trained one is kept.
    """
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if not trainer.is_world_process_zero():
        return
    adapters = {"selected_adapters": [POLICY]} if hasattr(model, "peft_config") else {}
    model.save_pretrained(out, **({"state_dict": state} if state is not None else {}), **adapters)
    tokenizer.save_pretrained(out)
