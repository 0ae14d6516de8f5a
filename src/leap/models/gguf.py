"""GGUF files as checkpoints: one is unpacked once, into a folder of safetensors in leap's cache that is named by its content."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap.core import content_key
from leap.errors import LeapError, PrerequisiteError, first_line
from leap.files import atomic_directory, digest
from leap.models.weights import load_weights
from leap.paths import cache_dir

if TYPE_CHECKING:
    import torch

_FORM = 1
"""Of what is unpacked; another number has every file unpacked again."""


def gguf_file(path: str) -> Path | None:
    """The GGUF file that a path names, itself or the only one in a folder without another checkpoint; None for all else.

    Raises:
        PrerequisiteError: There is no such file, or the folder holds several.
    """
    place = Path(path)
    if place.suffix.lower() == ".gguf" and not place.is_dir():
        if not place.is_file():
            raise PrerequisiteError(f"there is no file {path!r}.")
        return place
    if not place.is_dir() or any((place / name).exists() for name in ("config.json", "adapter_config.json")):
        return None
    files = sorted(file for file in place.glob("*.gguf") if not file.name.startswith("mmproj"))
    if len(files) > 1:
        raise PrerequisiteError(f"{path} holds {len(files)} GGUF files; name one of them, such as {files[0].name}.")
    return files[0] if files else None


def folder_of(file: Path) -> Path:
    """Where a GGUF file is unpacked, or will be."""
    return cache_dir() / "gguf" / content_key(_FORM, digest(file))[:16]


def unpacked(path: str) -> str:
    """The checkpoint's folder, in which a GGUF file is unpacked if it is not yet; any other path or name as it is.

    Raises:
        PrerequisiteError: It cannot be unpacked here; the message says why and what to do.
    """
    if (file := gguf_file(path)) is None:
        return path
    folder = folder_of(file)
    if not (folder / "config.json").exists():
        _unpack(file, folder, check_gguf(file))
    return str(folder)


def check_gguf(file: Path) -> torch.dtype:
    """Looks whether a GGUF file can be unpacked here, as far as that shows without its weights.

    Returns:
        The type its weights get: its own, or bfloat16 where they are quantized.

    Raises:
        PrerequisiteError: It cannot.
    """
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, dequantize
    except ImportError as error:
        raise PrerequisiteError(f"{file} needs the package gguf: pip install 'leap-agents[train]'") from error
    import numpy as np
    import torch

    with file.open("rb") as content:
        if content.read(4) != b"GGUF":
            raise PrerequisiteError(f"{file} is no GGUF file.")
    try:
        reader = GGUFReader(file)
        about: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items() if len(field.data) == 1}
    except Exception as error:  # cut off or damaged anywhere
        if "QuantizationType" in str(error):
            raise PrerequisiteError(f"{file} is quantized in a way that is not known here ({first_line(error)}).") from error
        raise PrerequisiteError(f"{file} is damaged or cut off: fetch it again ({first_line(error)}).") from error
    kind, parts = about.get("general.type", "model"), about.get("split.count", 1)
    if about.get("general.architecture") == "clip" or kind != "model":
        raise PrerequisiteError(f"{file} holds no language model ({'a vision projector' if kind == 'model' else kind}).")
    if parts > 1:
        raise PrerequisiteError(f"{file} is one of {parts} parts: join them by `llama-gguf-split --merge`.")
    if "tokenizer.ggml.tokens" not in reader.fields or not reader.tensors:
        what = "weights" if "tokenizer.ggml.tokens" in reader.fields else "tokenizer"
        raise PrerequisiteError(f"{file} has no {what}.")
    kinds = {tensor.tensor_type for tensor in reader.tensors}
    for one in kinds:
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[one][1]), dtype=np.uint8), one)
        except Exception as error:
            raise PrerequisiteError(f"{file} is quantized as {one.name}, which cannot be read; use another file.") from error
    plain = {
        GGMLQuantizationType.F32: torch.float32,
        GGMLQuantizationType.F16: torch.float16,
        GGMLQuantizationType.BF16: torch.bfloat16,
    }
    types = {plain.get(one, torch.bfloat16) for one in kinds}  # norms are in float32 everywhere
    dtype = next((one for one in (torch.bfloat16, torch.float16) if one in types), torch.float32)
    needed = sum(int(tensor.n_elements) for tensor in reader.tensors) * dtype.itemsize
    if not folder_of(file).exists():
        _check_room(file, needed)
    return dtype


def _check_room(file: Path, needed: int) -> None:
    cache = cache_dir()
    free = shutil.disk_usage(next(path for path in (cache, *cache.absolute().parents) if path.exists())).free
    if free < needed * 1.1:
        raise PrerequisiteError(
            f"unpacking {file} takes {needed / 1e9:.1f} GB in {cache}, and {free / 1e9:.1f} GB are free: make room, or set "
            "LEAP_CACHE to another folder."
        )


def _unpack(file: Path, folder: Path, dtype: torch.dtype) -> None:
    import transformers

    dense = {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    try:
        with atomic_directory(folder) as temporary, redirect_stderr(io.StringIO()):  # a bar of transformers' own
            model = load_weights(str(file.parent), str(file), dtype=dtype, gguf_file=file.name, **dense)
            if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
                raise PrerequisiteError(f"{file} holds numbers that are not finite: fetch it again.")
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(temporary)
            tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
            tokenizer.save_pretrained(temporary)
    except LeapError:
        raise
    except Exception as error:  # of an architecture or a tokenizer that transformers does not know, or half knows
        raise PrerequisiteError(f"cannot unpack {file}: {first_line(error)}") from error
