"""Models by name, `provider/model`. To add a provider, write a function with the parameters of `Opener` and name it in
your own package's entry points:

    [project.entry-points."leap.models"]
    my_provider = "my_package.my_module:open_my_model"
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.metadata import entry_points
from typing import Any, Protocol

from leap.errors import PrerequisiteError, RecipeError
from leap.models.base import Completion, Model, Sampling
from leap.models.endpoint_config import EndpointConfig
from leap.models.ledger import Ledger, MeteredModel

ENTRY_POINT_GROUP = "leap.models"


class Opener(Protocol):
    """Makes a provider's models."""

    def __call__(
        self, model: str, sampling: Sampling, *, endpoint: EndpointConfig, batch: int, dtype: str
    ) -> Model:
        """Makes the model of that name (without `provider/`).

        Raises:
            PrerequisiteError: It cannot be had here; the message says what is missing.
        """
        ...


def _open_hf(model: str, sampling: Sampling, *, endpoint: EndpointConfig, batch: int, dtype: str) -> Model:
    from leap.models.hf import HFModel

    return HFModel(model, sampling, batch=batch, dtype=dtype)


def _open_openai(model: str, sampling: Sampling, *, endpoint: EndpointConfig, batch: int, dtype: str) -> Model:
    from leap.models.openai import OpenAIModel

    return OpenAIModel(model, sampling, endpoint)


def _open_vllm(model: str, sampling: Sampling, *, endpoint: EndpointConfig, batch: int, dtype: str) -> Model:
    from leap.models.vllm import VLLMModel

    return VLLMModel(model, sampling, endpoint, batch=batch, dtype=dtype)


def _open_mock(model: str, sampling: Sampling, *, endpoint: EndpointConfig, batch: int, dtype: str) -> Model:
    from leap.models.mock import mock_model

    return mock_model(model, sampling, concurrency=endpoint.concurrency)


# Provider to how it is made and the packages that it needs.
_SHIPPED: dict[str, tuple[Opener, str]] = {
    "hf": (_open_hf, "torch and transformers (pip install 'leap-agents[train]')"),
    "openai": (_open_openai, "the openai client (pip install 'leap-agents[endpoints]')"),
    "vllm": (_open_vllm, "the openai client (pip install 'leap-agents[endpoints]')"),
    "mock": (_open_mock, "nothing"),
}
_IN_PROCESS = {"hf"}


def provider_names() -> list[str]:
    """All providers: those that ship and those of other packages."""
    return sorted({*_SHIPPED, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def split_name(name: str) -> tuple[str, str]:
    """Provider and model of `provider/model`. Reads names alone; imports nothing.

    Raises:
        RecipeError: It is not of that form, or there is no such provider.
    """
    provider, slash, model = name.partition("/")
    if not slash or not model or provider not in provider_names():
        known = ", ".join(f"{known}/..." for known in provider_names())
        raise RecipeError(f"{name!r} names no model; names look like provider/model, with one of {known}.")
    return provider, model


def in_process(name: str) -> bool:
    """Whether `provider/model` runs in this process: its calls cost nothing, and open conversations are answered together."""
    return name.partition("/")[0] in _IN_PROCESS


def open_model(
    name: str,
    sampling: Sampling,
    *,
    endpoint: EndpointConfig | None = None,
    ledger: Ledger | None = None,
    batch: int = 64,
    dtype: str = "auto",
) -> Model:
    """Makes a model by its name.

    Args:
        name: `provider/model`.
        sampling: How its answers are drawn.
        endpoint: How an endpoint is reached; OpenAI's own by default.
        ledger: Books every call of a model that is not in this process, keeps the budget and answers repeated requests.
        batch: Conversations held at once by a model on this machine.
        dtype: Its weights' type.

    Returns:
        The model; close it when done.

    Raises:
        RecipeError: There is no such provider, or a cap in USD is set and the model's price is not known.
        PrerequisiteError: A package, a key, a server or a checkpoint is missing.
    """
    provider, model = split_name(name)
    metered = None if in_process(name) else ledger
    if metered is not None:
        metered.check_price(name)  # before a server is started for nothing
    opened = _opener(provider)(model, sampling, endpoint=endpoint or EndpointConfig(), batch=batch, dtype=dtype)
    return opened if metered is None else MeteredModel(opened, sampling, metered)


def check_model(
    name: str, sampling: Sampling, *, endpoint: EndpointConfig | None = None
) -> Callable[[], Coroutine[Any, Any, Completion | None]] | None:
    """Finds out what can be told of a model without loading weights or starting a server.

    Returns:
        What must still be asked of an endpoint, if anything; see `Model.check`.

    Raises:
        RecipeError: There is no such provider or model.
        PrerequisiteError: A package, a key or a checkpoint is missing.
    """
    provider, model = split_name(name)
    if provider == "hf":
        from leap.models.checkpoints import check_checkpoint

        check_checkpoint(model)
    elif provider == "vllm":
        from leap.models.vllm import vllm_program

        vllm_program(model)
    elif provider in ("openai", "mock"):
        return _opener(provider)(model, sampling, endpoint=endpoint or EndpointConfig(), batch=1, dtype="auto").check
    else:
        _opener(provider)
    return None


def _opener(provider: str) -> Opener:
    if provider not in _SHIPPED:
        point = next(point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == provider)
        try:
            return point.load()
        except ImportError as error:
            raise PrerequisiteError(f"model provider {provider!r} cannot be imported: {error}") from error
    opener, needs = _SHIPPED[provider]

    def explained(model: str, sampling: Sampling, *, endpoint: EndpointConfig, batch: int, dtype: str) -> Model:
        try:
            return opener(model, sampling, endpoint=endpoint, batch=batch, dtype=dtype)
        except ImportError as error:
            raise PrerequisiteError(f"{provider}/{model} needs {needs}: {error}") from error

    return explained
