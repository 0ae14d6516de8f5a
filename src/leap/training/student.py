"""The student as it is trained: loading with adapters and quantisation, and leaving a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase, Trainer

from leap.errors import PrerequisiteError, first_line
from leap.files import read_json, write_json
from leap.models.checking import check_targets
from leap.models.checkpoints import best_device, load_causal_lm, note_base, rounded
from leap.training.config import LoraConfig, TrainingSettings
from leap.training.distributed import sharded, world

POLICY = "default"
"""PEFT's name of the adapter that is trained."""


def load_student(start: str, config: TrainingSettings, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A checkpoint's model and tokenizer, ready to be trained as the settings say.

    With `lora` the checkpoint's own adapter goes on being trained, or a fresh one is put on it: a fresh adapter changes
    nothing until it has been trained. Without, all weights are trained in float32, and `save_student` leaves them in the type
    they had. The seed is that of a fresh adapter, and of all else that torch draws from here on.

    Raises:
        PrerequisiteError: There is no usable checkpoint at `start`, or a package is missing.
    """
    if missing := "; ".join(config.missing()):
        raise PrerequisiteError(missing)
    torch.manual_seed(seed)
    compute = torch.bfloat16 if config.bf16 and config.lora else torch.float32
    quantization = _quantization(compute) if config.quantize == "4bit" else None
    dtype = compute if config.lora else "auto"
    model, tokenizer = load_causal_lm(start, dtype=dtype, device=_device(), quantization=quantization)
    if quantization is not None:
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=config.gradient_checkpointing)
    if config.lora is not None:
        return _with_adapter(model, config.lora, recompute=config.gradient_checkpointing), tokenizer
    if hasattr(model, "peft_config"):
        raise PrerequisiteError(
            f"{start} is a LoRA adapter, and the recipe trains all weights. Set training.lora, or merge the adapter "
            "into its base first."
        )
    model._leap_stored = model.dtype  # on the model: trainers save and so change what its config says
    return model.float(), tokenizer


def untrained_adapter(base: str, lora: LoraConfig, out: Path) -> None:
    """Leaves an adapter as training will leave it, but for its weights, which are zeros of the first layer alone: to find out
    whether an engine takes such.

    Raises:
        PrerequisiteError: The settings do not fit the model.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base, trust_remote_code=False))
        adapted = _with_adapter(model, lora, recompute=False)
    shapes = {name: weights.shape for name, weights in get_peft_model_state_dict(adapted).items()}
    first = {name: shape for name, shape in shapes.items() if ".0." in name} or shapes
    out.mkdir(exist_ok=True)
    zeros = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in first.items()}
    save_file(zeros, out / "adapter_model.safetensors")
    settings = adapted.peft_config[POLICY]
    settings.base_model_name_or_path = str(Path(base).resolve()) if Path(base).is_dir() else base
    settings.save_pretrained(str(out))
    AutoTokenizer.from_pretrained(base, trust_remote_code=False).save_pretrained(out)


def load_reference(start: str, dtype: torch.dtype | str = torch.float32) -> PreTrainedModel:
    """A second copy of a checkpoint's weights, frozen."""
    model, _ = load_causal_lm(start, dtype=dtype, device=_device())
    return model.eval().requires_grad_(False)


def _device() -> str:
    """Where this process computes; FSDP shards from the CPU."""
    if sharded():
        return "cpu"
    if torch.cuda.is_available() and world() > 1:
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return best_device()


def _quantization(compute: torch.dtype) -> BitsAndBytesConfig:
    """As in the QLoRA paper: NF4, the scales quantised too. Storage in the compute type lets FSDP shard it."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_storage=compute if compute == torch.bfloat16 else torch.uint8,
    )


def _with_adapter(model: Any, lora: LoraConfig, *, recompute: bool) -> Any:
    from peft import LoraConfig as PeftConfig
    from peft import PeftModel, get_peft_model

    if isinstance(model, PeftModel):  # goes on training the adapter of pi_{i-1}
        for name, parameter in model.named_parameters():
            parameter.requires_grad = "lora_" in name
    else:
        adapter = PeftConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            bias="none",
            task_type="CAUSAL_LM",
        )
        check_targets(model, lora.targets)
        try:
            model = get_peft_model(model, adapter)
        except ValueError as error:  # PEFT does not know the architecture, or cannot adapt such a layer
            raise PrerequisiteError(f"training.lora does not fit this model: {first_line(error)}") from error
    if recompute:
        model.enable_input_require_grads()
    return model


@contextmanager
def unrounded(model: torch.nn.Module) -> Iterator[None]:
    """While a trainer is made: keeps the trained weights as they are. TRL rounds a quantised model's adapters to bfloat16,
    in which the steps of a preference method's learning rate (5e-7) would be lost."""
    trained = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in trained:
            parameter.data = trained[name]


def save_student(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Leaves the trained weights and the tokenizer as a checkpoint directory; only rank 0 writes.

    Sharded weights are gathered first, which all ranks take part in. Of several adapters only the trained one is kept. Weights
    that were in a shorter type before the training are rounded to it again.
    """
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    state: Any = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if not trainer.is_world_process_zero():
        return
    adapters = {"selected_adapters": [POLICY]} if hasattr(model, "peft_config") else {}
    for adapter in model.peft_config.values() if adapters else ():  # from another folder its name may mean another base
        if (base := adapter.base_model_name_or_path) and Path(base).is_dir():
            adapter.base_model_name_or_path = str(Path(base).resolve())
        if isinstance(adapter.target_modules, set):  # else PEFT writes them in an order that differs from process to process
            adapter.target_modules = sorted(adapter.target_modules)
    dtype = getattr(model, "_leap_stored", torch.float32)
    if state is None and dtype != torch.float32:
        for weights in model.parameters():
            weights.data = rounded(weights.data, dtype)
    elif state is not None:
        state = {name: rounded(weights, dtype) if weights.is_floating_point() else weights for name, weights in state.items()}
    model.save_pretrained(out, **({"state_dict": state} if state is not None else {}), **adapters)
    if (config := out / "config.json").exists():  # the shards' type stands there where weights were gathered
        write_json(config, read_json(config) | {"dtype": str(dtype).removeprefix("torch.")})
    if adapters and (base := model.peft_config[POLICY].base_model_name_or_path):
        note_base(out, base)
    tokenizer.init_kwargs.pop("local_files_only", None)  # whether this process was offline
    tokenizer.save_pretrained(out)
