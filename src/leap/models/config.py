"""A section of a recipe that names a model and says how it is reached and asked."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from leap.config import Section
from leap.errors import LeapError
from leap.models.base import Model, Sampling
from leap.models.ledger import Ledger
from leap.models.providers import Ask, check_model, open_model, provider_of


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

    def open(self, ledger: Ledger | None = None) -> Model:
        """Makes the model; see `open_model`."""
        return open_model(self.model, self.sampling.sampling(), endpoint=self.endpoint, ledger=ledger)

    def check(self) -> Ask | None:
        """Finds out what can be told of the model without making it; see `check_model`."""
        return check_model(self.model, self.sampling.sampling(), endpoint=self.endpoint)

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
    def _is_the_providers(cls, value: Any, info: ValidationInfo) -> Section:
        if "model" not in info.data:  # no model, which is told already
            return Section()
        return provider_of(info.data["model"]).Config.model_validate(value)
