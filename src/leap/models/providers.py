"""Models by name, `provider/model`. To add a provider, derive from `Provider` and register the class by
`@leap.registry.model("my-provider")`, or in your own package's entry points:

    [project.entry-points."leap.models"]
    my-provider = "my_package.my_module:MyProvider"
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from leap import registry
from leap.config import Section
from leap.errors import LeapError, PrerequisiteError, RecipeError, suggest
from leap.models.base import Completion, EndpointConfig, Model, Sampling
from leap.models.metered import Booking, MeteredModel, NotedModel, check_price

BATCH = 64
"""Conversations held at once by a model on this machine, unless something else is said."""
Ask = Callable[[], Awaitable[Completion | None]]
"""Finds out whether calls can work, by asking; see `Model.check`."""


class Provider(ABC):
    """Where models come from.

    Class attributes:
        Config: Its own settings, under `endpoint` beside a model's name in a recipe.
        local: Whether its models run in this process: their calls cost nothing, and open conversations are answered together.
        weights: Whether a model's name is a checkpoint's folder or its name on the Hub, with weights that training can load,
            and `open` takes the folders that training leaves. Only such models can be students.
        needs: The packages that it needs, for the message where they are missing.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Section]] = Section
    local: ClassVar[bool] = False
    weights: ClassVar[bool] = False
    needs: ClassVar[str] = ""

    @abstractmethod
    def open(self, model: str, sampling: Sampling, *, config: Any, batch: int, dtype: str) -> Model:
        """Makes a model.

        Args:
            model: Its name, without `provider/`.
            sampling: How its answers are drawn.
            config: The provider's settings, an instance of `Config`. (Any: each provider has its own.)
            batch: Conversations held at once by a model on this machine.
            dtype: Its weights' type.

        Raises:
            PrerequisiteError: It cannot be had here; the message says what is missing.
        """

    def check(self, model: str, sampling: Sampling, *, config: Any) -> Ask | None:
        """Finds out what can be told of a model without loading weights or starting a server.

        Returns:
            What must still be asked of an endpoint, if anything.

        Raises:
            PrerequisiteError: A package, a key or a checkpoint is missing.
        """
        return None


class HFProvider(Provider):
    """Checkpoints of transformers, in this process."""

    local = True
    weights = True
    needs = "torch and transformers (pip install 'leap-agents[train]')"

    def open(self, model: str, sampling: Sampling, *, config: Section, batch: int, dtype: str) -> Model:
        from leap.models.hf import HFModel

        return HFModel(model, sampling, batch=batch, dtype=dtype)

    def check(self, model: str, sampling: Sampling, *, config: Section) -> None:
        from leap.models.checking import check_checkpoint

        check_checkpoint(model)


class _EndpointProvider(Provider):
    """Models whose address is looked at by asking."""

    Config = EndpointConfig

    def check(self, model: str, sampling: Sampling, *, config: EndpointConfig) -> Ask:
        return self.open(model, sampling, config=config, batch=1, dtype="auto").check


class OpenAIProvider(_EndpointProvider):
    """Whatever speaks OpenAI's protocol."""

    needs = "the openai client (pip install 'leap-agents[endpoints]')"

    def open(self, model: str, sampling: Sampling, *, config: EndpointConfig, batch: int, dtype: str) -> Model:
        from leap.models.openai import OpenAIModel

        return OpenAIModel(model, sampling, config)


class VLLMProvider(Provider):
    """A vLLM server that is started for the model."""

    Config = EndpointConfig
    needs = OpenAIProvider.needs

    def open(self, model: str, sampling: Sampling, *, config: EndpointConfig, batch: int, dtype: str) -> Model:
        from leap.models.vllm import VLLMModel

        return VLLMModel(model, sampling, config, batch=batch, dtype=dtype)

    def check(self, model: str, sampling: Sampling, *, config: EndpointConfig) -> None:
        from leap.models.vllm import OTHERWISE, vllm_program

        vllm_program(f"vllm/{model}", *OTHERWISE)

    @classmethod
    def doctor(cls) -> list[tuple[bool, str]]:
        """What is here of it."""
        if found := shutil.which("vllm"):
            return [(True, f"starts {found}, for student.engine too")]
        return [(False, "there is no `vllm` on the PATH (pip install vllm, on a machine with a GPU): none can be started")]


class MockProvider(_EndpointProvider):
    """Models made of rules, for tests."""

    def open(self, model: str, sampling: Sampling, *, config: EndpointConfig, batch: int, dtype: str) -> Model:
        from leap.models.mock import mock_model

        return mock_model(model, sampling, concurrency=config.concurrency)


def split_name(name: str) -> tuple[str, str]:
    """Provider and model of `provider/model`. Reads names alone; imports nothing.

    Raises:
        RecipeError: It is not of that form, or there is no such provider.
    """
    provider, slash, model = name.partition("/")
    known = registry.model.names()
    if slash and model and provider in known:
        return provider, model
    shapes = ", ".join(f"{one}/..." for one in known)
    meant = suggest(provider, known) if slash else f" Did you mean 'hf/{name}' or 'openai/{name}'?" if name else ""
    meant = meant or (f" Did you mean 'hf/{name}'?" if provider and model else "")
    raise RecipeError(f"{name!r} names no model; names look like provider/model, with one of {shapes}.{meant}")


def provider_of(name: str) -> Provider:
    """The provider of `provider/model`.

    Raises:
        RecipeError: There is none.
        PrerequisiteError: It cannot be imported.
    """
    return registry.model.get(split_name(name)[0])()


def open_model(
    name: str,
    sampling: Sampling,
    *,
    endpoint: Section | None = None,
    ledger: Booking | None = None,
    batch: int = BATCH,
    dtype: str = "auto",
) -> Model:
    """Makes a model by its name.

    Args:
        name: `provider/model`.
        sampling: How its answers are drawn.
        endpoint: The provider's settings; its defaults if None.
        ledger: Books every call of a model that is not in this process, keeps the budget and answers repeated requests; keeps
            those of others for people to read.
        batch: Conversations held at once by a model on this machine.
        dtype: Its weights' type.

    Returns:
        The model; close it when done.

    Raises:
        RecipeError: There is no such provider, or a cap in USD is set and the model's price is not known.
        PrerequisiteError: A package, a key, a server or a checkpoint is missing.
    """
    provider, model = provider_of(name), split_name(name)[1]
    if ledger is not None and not provider.local:
        check_price(name, ledger.prices, ledger.budget)  # before a server is started for nothing
    with _needs(provider, name):
        opened = provider.open(model, sampling, config=endpoint or provider.Config(), batch=batch, dtype=dtype)
    if ledger is None:
        return opened
    return NotedModel(opened, ledger) if provider.local else MeteredModel(opened, sampling, ledger)


@contextmanager
def _needs(provider: Provider, name: str) -> Iterator[None]:
    """Says which packages a model needs, where one is missing."""
    try:
        yield
    except ImportError as error:
        raise PrerequisiteError(f"{name} needs {provider.needs or 'a package'}: {error}") from error


class ModelSampling(Section):
    """How a model answers that is not the student."""

    temperature: float = Field(default=0.0, ge=0, description="0 takes the likeliest token.")
    max_tokens: int = Field(default=256, ge=1, description="Longest answer, in tokens.")

    def sampling(self) -> Sampling:
        """The same as models take it."""
        return Sampling(temperature=self.temperature, max_tokens=self.max_tokens)


class ModelConfig(Section):
    """A model by name, how it is reached and how it answers."""

    model: str = Field(description="`provider/model`: openai, vllm, hf, mock, or another package's provider.")
    endpoint: SerializeAsAny[Section] = Field(
        default_factory=dict, validate_default=True, description="The provider's own settings; of endpoints, where they are."
    )
    sampling: ModelSampling = Field(default_factory=ModelSampling, description="How it answers.")

    @property
    def paid(self) -> bool:
        """Whether its calls may cost something: it is not in this process."""
        return not provider_of(self.model).local

    def open(self, ledger: Booking | None = None) -> Model:
        """Makes the model; see `open_model`."""
        return open_model(self.model, self.sampling.sampling(), endpoint=self.endpoint, ledger=ledger)

    def check(self) -> Ask | None:
        """Finds out what can be told of the model without loading weights or starting a server.

        Returns:
            What must still be asked of an endpoint, if anything; see `Model.check`.

        Raises:
            RecipeError: There is no such model.
            PrerequisiteError: A package, a key or a checkpoint is missing.
        """
        provider, model = provider_of(self.model), split_name(self.model)[1]
        with _needs(provider, self.model):
            return provider.check(model, self.sampling.sampling(), config=self.endpoint)

    @field_validator("model")
    @classmethod
    def _has_a_provider(cls, name: str) -> str:
        try:
            provider_of(name)
        except LeapError as error:
            raise ValueError(str(error)) from error
        return name

    @field_validator("endpoint", mode="plain")
    @classmethod
    def _is_the_providers(cls, value: object, info: ValidationInfo) -> Section:
        if "model" not in info.data:  # no model, which is told already
            return Section()
        return provider_of(info.data["model"]).Config.model_validate(value)
