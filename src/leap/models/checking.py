"""Checkpoints looked at before anything is spent: whether they can be students or models here, told without their weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leap.errors import PrerequisiteError, first_line
from leap.models.checkpoints import (
    adapter_config,
    base_of,
    config_of,
    explained,
    load_chat,
    with_adapter,
)
from leap.models.gguf import check_gguf, folder_of, gguf_file
from leap.models.weights import load_weights, quiet

if TYPE_CHECKING:
    import torch


def check_checkpoint(path: str, *, merges: bool = False) -> int:
    """Whether a checkpoint directory or hub name can be a student or a model here, as far as that shows without weights.

    Args:
        path: Directory or name.
        merges: Whether adapters are to be added to its weights, which must not be quantized for that.

    Returns:
        Most tokens of its context.

    Raises:
        PrerequisiteError: A package is missing, nothing usable is there, or its weights are pickled.
    """
    try:
        if (file := gguf_file(path)) is not None and not folder_of(file).exists():
            check_gguf(file)
        _, context = load_chat(path, generates=True)
    except ImportError as error:
        raise PrerequisiteError(f"hf/{path} needs transformers (pip install 'leap-agents[train]'): {error}") from error
    except OSError as error:  # no permission, a name that is too long
        raise PrerequisiteError(f"hf/{path} cannot be read: {error.strerror or first_line(error)}.") from error
    for folder in {path, base_of(path)}:
        if Path(folder).is_dir() and gguf_file(folder) is None:
            _check_files(Path(folder))
    _check_fit(path, merges)
    return context


def _check_fit(path: str, merges: bool) -> None:
    """Builds the model of a folder without its weights, from their names and shapes alone.

    Raises:
        PrerequisiteError: They are not those of the architecture, the adapter is for another base, or the weights are quantized
            in a way that is not known here.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    if (file := gguf_file(base := base_of(path))) is not None:
        base = str(folder_of(file))
    if not Path(base).is_dir():  # not here, or not unpacked
        return
    with explained(f"the model {base!r}"):
        how = getattr(config_of(base), "quantization_config", None)
        with quiet():
            known = how is None or AutoHfQuantizer.supports_quant_method(how)
        if how is not None and not known:
            raise PrerequisiteError(f"{base} is quantized by {how.get('quant_method')!r}, which transformers cannot read.")
        try:
            model = load_weights(base, device_map="meta")
        except RuntimeError as error:
            if "meta" in str(error):  # it cannot be built so; loading tells
                return
            raise
    if merges and getattr(model, "is_quantized", False):
        raise PrerequisiteError(
            f"{base} is quantized, and adapters are added to plain weights: name the checkpoint that it was made from, and set "
            "training.quantize: 4bit for less memory."
        )
    if adapter_config(path) is not None:
        with explained(f"the adapter {path!r}"), warnings.catch_warnings(action="ignore"):  # that nothing is loaded
            with_adapter(model, path)


def _shapes(file: Path) -> dict[str, Sequence[int]]:
    """The shapes of the tensors that a file of safetensors holds.

    Raises:
        PrerequisiteError: It is damaged.
    """
    from safetensors import safe_open

    try:
        with safe_open(str(file), framework="np") as content:
            return {name: content.get_slice(name).get_shape() for name in content.keys()}  # noqa: SIM118
    except Exception as error:  # told by errors of several kinds
        raise PrerequisiteError(f"{file} is damaged or cut off: fetch it again ({first_line(error)}).") from error


def _check_files(folder: Path) -> None:
    """Looks whether the files of a folder's weights are all there, and whole.

    Raises:
        PrerequisiteError: They are not, they are pickled, or an adapter's are of another rank than it says.
    """
    files = {file.name for file in folder.glob("*.safetensors")}
    if not files:
        raise PrerequisiteError(f"the checkpoint {folder} has no *.safetensors (pickled weights are not read).")
    if (index := folder / "model.safetensors.index.json").is_file():
        with explained(f"the index {str(index)!r}"):
            missing = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()} - files)
        if missing:
            raise PrerequisiteError(f"the checkpoint {folder} lacks {len(missing)} files, such as {missing[0]}: fetch it again.")
    elif not files & {"model.safetensors", "adapter_model.safetensors"}:
        raise PrerequisiteError(f"the checkpoint {folder} lacks {index.name}, which tells its parts: fetch it again.")
    for name in sorted(files):
        shapes = _shapes(folder / name)
        if name == "adapter_model.safetensors" and (config := adapter_config(str(folder))) is not None:
            ranks = {shape[0] for tensor, shape in shapes.items() if ".lora_A." in tensor}
            if ranks and config.get("r") not in ranks and not config.get("rank_pattern"):
                raise PrerequisiteError(f"the adapter {folder} says rank {config.get('r')}, and its weights have {min(ranks)}.")


def check_targets(model: torch.nn.Module, targets: Sequence[str] | str | None) -> None:
    """Looks for the modules that LoRA is to adapt: PEFT passes over those that are not there, if one is. A word of PEFT's own
    names none.

    Raises:
        PrerequisiteError: One is not there, or is neither a linear layer nor an embedding.
    """
    named = dict(model.named_modules())
    for target in () if targets is None or isinstance(targets, str) else targets:
        meant = [module for name, module in named.items() if name == target or name.endswith(f".{target}")]
        if not meant or not all(_is_linear(module) or hasattr(module, "num_embeddings") for module in meant):
            what = f"training.lora.targets: the model has no {target!r}"
            if meant:
                what = f"training.lora does not fit this model: {target!r} is not supported, being no layer with weights to adapt"
            linear = sorted({name.rpartition(".")[2] for name, module in named.items() if _is_linear(module)})
            raise PrerequisiteError(f"{what}; its linear layers are called {', '.join(linear)}.")


def _is_linear(module: torch.nn.Module) -> bool:
    return hasattr(module, "in_features") or hasattr(module, "nf")  # `nf`: GPT-2's


def check_adaptable(path: str, targets: Sequence[str]) -> None:
    """Looks for the modules that LoRA is to adapt without loading weights.

    Raises:
        PrerequisiteError: One is not there.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(path))
    check_targets(model, targets)
