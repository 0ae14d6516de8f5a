"""What generates for a student while it acts: this process, or an engine (vLLM, SGLang) that LoRA adapters are loaded into.
And what serves a teacher's weights on a cluster."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from leap.config import Options, Section
from leap.errors import suggest
from leap.models.base import name_of_variable, without_login

# Options of `vllm serve` that a recipe may state: how memory and processors are used. Left out is whatever leap sets itself,
# and whatever has the server run code, read files or listen elsewhere; who needs those starts the server and gives its address.
OPTIONS = {
    **dict.fromkeys(
        (
            "async_scheduling",
            "disable_cascade_attn",
            "disable_custom_all_reduce",
            "enable_chunked_prefill",
            "enable_expert_parallel",
            "enable_prefix_caching",
            "enforce_eager",
            "fully_sharded_loras",
            "language_model_only",
        ),
        "true or false",
    ),
    **dict.fromkeys(
        (
            "block_size",
            "cpu_offload_gb",
            "data_parallel_size",
            "gpu_memory_utilization",
            "kv_cache_memory_bytes",
            "max_cpu_loras",
            "max_loras",
            "max_model_len",
            "max_num_batched_tokens",
            "max_num_seqs",
            "num_gpu_blocks_override",
            "optimization_level",
            "pipeline_parallel_size",
            "seed",
            "tensor_parallel_size",
        ),
        "a number",
    ),
    **dict.fromkeys(
        (
            "attention_backend",
            "kv_cache_dtype",
            "lora_dtype",
            "model_impl",
            "moe_backend",
            "quantization",
            "tokenizer_mode",
        ),
        "a word",
    ),
}
"""Options that a recipe may state for a server that leap starts, and what they hold."""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _are_harmless(options: Options) -> Options:
    for name, value in options.items():
        if name not in OPTIONS:
            hint = suggest(name, OPTIONS) or f" There are {', '.join(sorted(OPTIONS))}."
            raise ValueError(f"no option {name!r} can be given to a server here.{hint}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        word = isinstance(value, str) and bool(_WORD.fullmatch(value))
        if not {"true or false": isinstance(value, bool), "a number": number, "a word": word}[OPTIONS[name]]:
            raise ValueError(f"{name} must be {OPTIONS[name]}")
    return options


ServerOptions = Annotated[Options, AfterValidator(_are_harmless)]
"""Options of a server of vLLM's."""


class _ByKind(Section):
    """A section for which its kind alone may stand: `engine: vllm`."""

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value


class EngineConfig(_ByKind):
    """Who generates for the student. Part of a recipe, under `student.engine`."""

    kind: Literal["hf", "vllm", "sglang"] = Field(
        default="hf",
        description="hf: transformers, in this process. vllm: a vLLM server that leap starts and stops or, with base_url, one "
        "that runs. sglang: an SGLang server that runs.",
    )
    base_url: str | None = Field(
        default=None, description="Address up to and with /v1 of a server that runs; it must see the run's folder."
    )
    model: str | None = Field(
        default=None,
        description="The base's name there; by default found in the server's list under that of student.model.",
    )
    api_key_env: Annotated[str | None, name_of_variable] = Field(
        default=None, description="Name of the environment variable that holds the server's key, where it asks for one."
    )
    timeout: float = Field(
        default=600.0, gt=0, description="Seconds for a whole answer, after which it is asked for again."
    )
    options: ServerOptions = Field(
        default_factory=dict,
        description="Options of the server that leap starts, such as {max_model_len: 8192, gpu_memory_utilization: 0.8}.",
    )
    devices: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9,-]+$",
        description="CUDA_VISIBLE_DEVICES of that server, such as '1,2'.",
    )
    keep: bool = Field(
        default=False, description="Whether that server runs on while the student trains: where it has GPUs of its own."
    )

    @property
    def address(self) -> str:
        """Address of a server that runs, for messages."""
        return without_login(self.base_url or "")

    @property
    def started(self) -> bool:
        """Whether leap starts a server."""
        return self.kind == "vllm" and self.base_url is None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kind == "sglang" and self.base_url is None:
            raise ValueError("base_url is missing: leap starts no SGLang server; start it and give its address")
        if self.kind == "hf" and (stated := sorted(_changed(self) - {"kind"})):
            raise ValueError(f"kind: hf generates in this process; {', '.join(stated)} belongs to kind: vllm or sglang")
        if not self.started and (stated := sorted({"options", "devices", "keep"} & _changed(self))):
            raise ValueError(
                f"{', '.join(stated)} is for a server that leap starts; this one is started by whoever runs it"
            )
        if self.started and (stated := sorted({"model", "api_key_env"} & _changed(self))):
            raise ValueError(f"{', '.join(stated)} is for a server at an address; give base_url, or leave it out")
        return self

    @property
    def flags(self) -> list[str]:
        """The options as a command line has them."""
        flags: list[str] = []
        for name, value in self.options.items():
            flag = name.replace("_", "-")
            flags += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", f"{value}"]
        return flags


def _changed(config: EngineConfig) -> set[str]:
    """Keys that do not hold their defaults."""
    return {
        name
        for name, field in type(config).model_fields.items()
        if getattr(config, name) != field.get_default(call_default_factory=True)
    }


_BY_GPUS = {"data_parallel_size", "pipeline_parallel_size", "tensor_parallel_size"}


class ServeConfig(_ByKind):
    """Replicas on the run's Ray cluster that answer for a model of `vllm/`. Part of a recipe, under `teacher.serve`."""

    kind: Literal["ray"] = Field(
        default="ray", description="ray: `ray.serve.llm`, started and stopped with the run. `serve: ray` is short for this."
    )
    replicas: int = Field(default=1, ge=1, description="How many hold the model.")
    gpus: int = Field(default=1, ge=1, description="GPUs of each; its weights are split among them.")
    port: int = Field(
        default=8000, ge=1, le=65535, description="Where the head node listens, unless Ray Serve runs there already."
    )
    timeout: float = Field(default=1800.0, gt=0, description="Seconds until all must be up; the first time it is downloaded.")
    options: ServerOptions = Field(
        default_factory=dict, description="Options of vLLM, such as {max_model_len: 32768, gpu_memory_utilization: 0.8}."
    )

    @model_validator(mode="after")
    def _is_split_by_gpus(self) -> Self:
        if stated := sorted(_BY_GPUS & self.options.keys()):
            raise ValueError(f"options: {', '.join(stated)} is what gpus and replicas say")
        return self
