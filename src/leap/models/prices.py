"""What tokens cost: the shipped table, a recipe's own entries over it, and the cost of a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import yaml
from pydantic import Field

from leap.config import Section
from leap.models.base import Completion

_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def dollars(value: float) -> str:
    """US dollars for people: cents, or as many places as a small sum needs."""
    if value == 0 or value >= 0.995:
        return f"${value:,.2f}"
    return f"${value:.4f}" if value >= 0.00005 else "< $0.0001"


class Price(Section):
    """What a model costs, in USD per million tokens."""

    input: float = Field(ge=0, description="Tokens of the prompt.")
    output: float = Field(ge=0, description="Tokens generated, those of hidden reasoning included.")
    cached_input: float | None = Field(
        default=None, ge=0, description="Tokens of the prompt found in a cache; as input if null."
    )
    cache_write: float | None = Field(default=None, ge=0, description="Tokens put into a cache; as input if null.")

    def of(self, completion: Completion) -> float:
        """What a call cost, in USD."""
        cached = min(completion.cached_tokens, completion.prompt_tokens)
        written = min(completion.cache_write_tokens, completion.prompt_tokens - cached)
        plain = completion.prompt_tokens - cached - written
        rate = self.input
        return (
            plain * rate
            + cached * (rate if self.cached_input is None else self.cached_input)
            + written * (rate if self.cache_write is None else self.cache_write)
            + completion.completion_tokens * self.output
        ) / 1e6


class Prices:
    """Prices by `provider/model`.

    A dated snapshot without an entry of its own costs what its model costs; `provider/*` prices all else of a provider.

    Args:
        own: Entries that go before the shipped ones, as in a recipe.
    """

    def __init__(self, own: Mapping[str, Price] | None = None) -> None:
        self._table = shipped_prices() | dict(own or {})

    def get(self, name: str) -> Price | None:
        """The price of `provider/model`; None where it is unknown."""
        for key in (name, _DATED.sub("", name), f"{name.partition('/')[0]}/*"):
            if key in self._table:
                return self._table[key]
        return None


@cache
def shipped_prices() -> dict[str, Price]:
    """The table that comes with leap."""
    table = yaml.safe_load(files("leap.models").joinpath("prices.yaml").read_text(encoding="utf-8"))
    return {name: Price.model_validate(entry) for name, entry in table.items()}
