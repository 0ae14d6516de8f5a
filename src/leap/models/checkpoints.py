"""Checkpoints: what can be told of one without its weights, what tells it from others, and how it is loaded."""

from __future__ import annotations

import ctypes
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap.core import JsonObject, content_key
from leap.errors import LeapError, PrerequisiteError, first_line
from leap.files import digest, write_json
from leap.models.attention import check_kinds
from leap.models.chat import ChatTokens
from leap.models.gguf import folder_of, gguf_file, unpacked
from leap.models.weights import load_weights

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.utils.quantization_config import QuantizationConfigMixin

# transformers has a newer name for gradient checkpointing, and PEFT and TRL ask by the old one.
warnings.filterwarnings("ignore", message=r".*gradient_checkpointing", category=FutureWarning)

# PyTorch's products of matrices on a CPU keep the code that was made for each shape, 1,024 at most, and texts have all lengths:
# 0.6 GB more after 14 steps of training, and no second gained (benchmarks/memory_llm.log).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

SMALL = 20_000_000
"""Weights. A model with fewer gains little from a second thread, and loses manyfold where another program needs the core: at
every operation each thread waits for the slowest (benchmarks/threads.log)."""
_CONTENT = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
BASE_NOTE = "base.json"
"""In an adapter's folder: the name of its base, and the content that the base had in training."""
_NOTES = {"leap.json", "training.json", BASE_NOTE}
"""What training notes of a checkpoint, times among it."""
_PLACES: dict[str, None] = {}
"""Checkpoints that this process works with: an adapter whose base is not where it was may be for one of them."""


def load_chat(path: str, *, generates: bool = False) -> tuple[ChatTokens, int]:
    """How a checkpoint's tokens are made and how many of them fit into its context, without its weights.

    Args:
        path: Checkpoint directory or hub name.
        generates: Whether it is to generate in this process.

    Raises:
        PrerequisiteError: Nothing usable is at that path or name.
    """
    from transformers import AutoTokenizer

    if path.startswith((".", "/", "~")) and not Path(path).exists():
        raise PrerequisiteError(f"there is no folder {path!r}.")
    with explained(f"the tokenizer of {path!r}"):
        config = config_of(path)
        _check_tokenizer(path)
        tokenizer = AutoTokenizer.from_pretrained(**_source(path))
        tokenizer.name_or_path = path  # of a GGUF file transformers knows the folder
        if generates:
            check_kinds(config, f"hf/{path}")
        check_tokens(tokenizer, getattr(config.get_text_config(), "vocab_size", None), path)
        return ChatTokens(tokenizer, end_tokens(path)), context_of(config)


def _check_tokenizer(path: str) -> None:
    """Looks for a folder's tokenizer: of one that is not there transformers says what it tried.

    Raises:
        PrerequisiteError: There is none.
    """
    kinds = ("tokenizer*", "*vocab*", "*.model", "*.tiktoken", "tekken.json")
    if Path(path).is_dir() and gguf_file(path) is None and not any(any(Path(path).glob(kind)) for kind in kinds):
        raise PrerequisiteError(f"{path} has no tokenizer: put its files there, tokenizer.json among them.")


def _source(path: str) -> dict[str, Any]:
    """Where transformers finds a checkpoint's configuration and tokens: a GGUF file need not be unpacked for that."""
    found: dict[str, Any] = {"pretrained_model_name_or_path": path, "trust_remote_code": False}
    if (file := gguf_file(path)) is None:
        return found
    if (folder := folder_of(file)).exists():
        return found | {"pretrained_model_name_or_path": str(folder)}
    return found | {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}


def config_of(path: str, *, local_files_only: bool = False) -> PretrainedConfig:
    """The configuration of a checkpoint, or of an adapter's base; with `local_files_only` nothing is fetched for it.

    Raises:
        PrerequisiteError: It is that of no language model that writes from left to right.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, AutoConfig

    config: Any = AutoConfig.from_pretrained(**_source(base_of(path)), local_files_only=local_files_only)
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_decoder
    if config.is_encoder_decoder or masked or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise PrerequisiteError(f"{path} is a model of the kind {config.model_type!r}, and students are causal language models.")
    return config


def load_causal_lm(
    path: str,
    *,
    dtype: torch.dtype | str = "auto",
    device: str | None = None,
    quantization: QuantizationConfigMixin | None = None,
    merge: bool = False,
) -> tuple[Any, Any]:
    """Loads a model and its tokenizer from a checkpoint directory or a hub name; a LoRA adapter is put on its base.

    Args:
        path: Checkpoint directory or hub name.
        dtype: The weights' type; "auto" takes the checkpoint's.
        device: Torch device; the best there is by default.
        quantization: A configuration of transformers.
        merge: Add an adapter to the base's weights. Answers are then computed as fast as the base's.

    Raises:
        PrerequisiteError: Nothing usable is at that path or name.
    """
    from transformers import AutoTokenizer

    path = unpacked(path)
    device = device or best_device()
    quantized = {"quantization_config": quantization, "device_map": {"": device}} if quantization is not None else {}
    with explained(f"the model {path!r}"):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model = load_weights(base := base_of(path), dtype=dtype, **quantized)
        if base != path:
            model = with_adapter(model, path)
            model = merged(model) if merge else model
        check_tokens(tokenizer, model.get_input_embeddings().weight.shape[0], path)
    model = model if quantized else model.to(device)
    settle_threads(model)
    return model, tokenizer


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Tells in one line what cannot be loaded; a package that is missing is told by whoever knows how to install it.

    Raises:
        PrerequisiteError: Whatever was raised within, unless it is meant for people already.
    """
    try:
        yield
    except (LeapError, ModuleNotFoundError):
        raise
    except Exception as error:  # damaged files are told in many ways, by errors of several libraries
        raise PrerequisiteError(f"cannot load {what}: {first_line(error)}") from error


def with_adapter(model: PreTrainedModel, path: str) -> Any:
    """A model with the LoRA adapter of a checkpoint directory.

    Raises:
        PrerequisiteError: The adapter was made for another base: its weights have other shapes or belong to other layers.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    foreign = f"the LoRA adapter {path!r} does not fit the model it names as its base; give it the base that it was made for"
    try:
        adapted = PeftModel.from_pretrained(model, path)
    except RuntimeError as error:  # other shapes
        raise PrerequisiteError(f"{foreign}.") from error
    # Layers that only one of the two has pass PEFT without an error.
    with safe_open(str(Path(path) / "adapter_model.safetensors"), framework="pt") as file:
        given = {name for name in file.keys() if "lora_" in name}  # noqa: SIM118
    expected = {name for name in get_peft_model_state_dict(adapted) if "lora_" in name}
    if given != expected:
        raise PrerequisiteError(f"{foreign}: {len(given ^ expected)} of its matrices have no counterpart.")
    return adapted


def merged(adapted: Any) -> Any:
    """The base of an adapted model with the adapter in its weights; each is computed in float32 and rounded once to the base's
    type. Embeddings that are tied to the output layer are parted from it where only one of the two is adapted.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in [one for one in adapted.modules() if isinstance(one, BaseTunerLayer)]:
        base: Any = layer.get_base_layer()
        weight = getattr(base, "weight", None)  # experts of a mixture are parameters of other names
        if weight is not None:
            base.weight = torch.nn.Parameter(weight.detach().float(), requires_grad=False)
        layer.merge()
        if weight is not None:
            base.weight = torch.nn.Parameter(rounded(base.weight.detach(), weight.dtype), requires_grad=False)
    model = adapted.unload()
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if ends[1] is not None and ends[0].weight is not ends[1].weight:
        model.config.get_text_config().tie_word_embeddings = False
    return model


def rounded(weights: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Weights in float32 in a shorter type: each becomes one of the two numbers beside it, the nearer one more often, so that
    they are right on average. To the nearest, a training of small steps would be undone (benchmarks/merging.log)."""
    import torch

    if dtype != torch.bfloat16:
        return weights.to(dtype)
    bits = weights.view(torch.int32)
    noise = torch.empty_like(bits).random_(1 << 16, generator=torch.Generator(bits.device).manual_seed(0))
    up = ((bits + noise) & ~0xFFFF).view(torch.float32)
    return torch.where(weights.isfinite() & up.isfinite(), up, weights).to(dtype)


def best_device() -> str:
    """The fastest device there is."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def is_small(model: torch.nn.Module) -> bool:
    """Whether a model has fewer than SMALL weights."""
    return sum(weights.numel() for weights in model.parameters()) < SMALL


def settle_threads(model: torch.nn.Module) -> None:
    """Has a small model on a CPU compute in one thread, so that its numbers are also the same on every machine; larger ones in a
    thread for each core that this process may use. OMP_NUM_THREADS overrides both."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ and next(model.parameters()).device.type == "cpu":
        torch.set_num_threads(1 if is_small(model) else usable_cores())


def usable_cores(limits: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: those it is bound to, and no more than its container's share of time is worth."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or `max`
        quota, period = map(int, limits.read_text().split())
        cores = min(cores, max(1, round(quota / period)))
    return cores


def model_dtype(path: str) -> str:
    """The type of a checkpoint's weights, or of an adapter's base; empty where its configuration does not say."""
    return str(config_of(path).dtype or "").removeprefix("torch.")


def release_memory() -> None:
    """Returns to the system what is free in this process: glibc keeps what lies between pieces in use, which for a pretrained
    student are gigabytes (benchmarks/smollm2-quickstart.md)."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def context_of(config: PretrainedConfig) -> int:
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


def end_tokens(path: str) -> list[int]:
    """Tokens at which a checkpoint, or an adapter's base, ends an answer by its generation_config, or else by its config."""
    from transformers import GenerationConfig

    try:
        settings = GenerationConfig.from_pretrained(_source(base_of(path))["pretrained_model_name_or_path"])
    except OSError:  # there is none
        settings = GenerationConfig.from_model_config(config_of(path))
    ends = settings.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def identity(path: str) -> str:
    """Names a checkpoint by what it holds: of a folder the content of its files and of the base that an adapter in it is for, of
    a hub name the revision that was fetched. A name alone where there is nothing of it here.
    """
    folder = Path(path)
    with suppress(PrerequisiteError):
        if (file := gguf_file(path)) is not None:
            return content_key(digest(file))
    if folder.is_dir():
        files = sorted({file for pattern in _CONTENT for file in folder.glob(pattern) if file.name not in _NOTES})
        content = [(file.name, digest(file)) for file in files]
        base = path
        with suppress(PrerequisiteError):  # whoever loads it is told
            base = base_of(path)
        return content_key(content, *([identity(base)] if base != path else []))
    with suppress(ImportError, ValueError):  # not a hub name
        from huggingface_hub import try_to_load_from_cache

        if isinstance(found := try_to_load_from_cache(path, "config.json"), str):
            return f"{path}@{Path(found).parent.name}"
    return path


def model_identity(name: str) -> str:
    """`provider/model` with the model named by what it holds, where it is a checkpoint that is loaded here."""
    provider, _, path = name.partition("/")
    return f"{provider}/{identity(path)}" if provider in ("hf", "vllm") and path else name


def adapter_config(path: str) -> JsonObject | None:
    """The settings of a LoRA adapter, its base among them; None for any other checkpoint.

    Raises:
        PrerequisiteError: They are damaged or those of an adapter of another kind, or the adapter's weights are missing.
    """
    file = Path(path) / "adapter_config.json"
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not config["base_model_name_or_path"]:
            raise KeyError("base_model_name_or_path")
    except (ValueError, KeyError, TypeError) as error:
        raise PrerequisiteError(f"{file} is damaged or names no base model ({error!r}).") from error
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise PrerequisiteError(f"{path} is an adapter of the kind {kind}; leap knows LoRA's alone.")
    if not file.with_name("adapter_model.safetensors").is_file():
        raise PrerequisiteError(f"{path} has no adapter_model.safetensors (pickled weights are not read).")
    return config


def base_of(path: str) -> str:
    """The checkpoint that a LoRA adapter was trained on, wherever it lies now; any other checkpoint is its own.

    Looked for by its content: under the name that it had, among the checkpoints that this process works with, and in the
    folders that LEAP_MODELS names, of which each may be a checkpoint or hold some.

    Raises:
        PrerequisiteError: It is not there.
    """
    if (adapter := adapter_config(path)) is None:
        return path
    named, note = str(adapter["base_model_name_or_path"]), Path(path) / BASE_NOTE
    with explained(f"the note {str(note)!r}"):
        content = json.loads(note.read_text(encoding="utf-8"))["content"] if note.is_file() else ""
    if not content:  # of the Hub, or not trained by leap
        if adapter_config(named) is not None:
            raise PrerequisiteError(f"the base of the LoRA adapter {path}, {named}, is an adapter itself: merge it first.")
        if Path(named).is_absolute() and not Path(named).exists():
            raise PrerequisiteError(
                f"the base of the LoRA adapter {path}, {named}, is not there: put it back, or correct base_model_name_or_path in "
                "adapter_config.json."
            )
        return named
    places = [Path(place) for place in os.environ.get("LEAP_MODELS", "").split(os.pathsep) if place]
    within = (inner for place in places for inner in (place, *(sorted(place.iterdir()) if place.is_dir() else ())))
    for place in (named, *_PLACES, *map(str, within)):
        if Path(place).is_dir() and identity(place) == content:
            return place
    at = "holds another model now" if Path(named).is_dir() else "is not there"
    raise PrerequisiteError(
        f"the base of the LoRA adapter {path}, {named}, {at}: put it back, or name the folder that it lies in by LEAP_MODELS."
    )


def note_base(adapter: Path, base: str) -> None:
    """Notes beside an adapter what its base is."""
    here = Path(base).is_dir()
    write_json(adapter / BASE_NOTE, {"base": Path(base).name if here else base, "content": identity(base) if here else ""})


def look_in(path: str) -> str:
    """Has a checkpoint looked at where an adapter's base is not in its place any more; returns it."""
    _PLACES[path] = None
    return path
