"""What to generate."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from leap.config import Section
from leap_worlds.webshop.generator.tables import kinds as all_kinds


class CatalogueConfig(Section):
    """Settings of a generated catalogue. Equal settings give byte-identical files on every machine."""

    seed: int = Field(default=0, ge=0, description="Another seed is another shop.")
    products: int = Field(default=4000, ge=1, description="Products; those that people ask for are spread over all of them.")
    goals: int = Field(default=3500, ge=1, description="Products that an instruction is written for, one each.")
    kinds: int | tuple[str, ...] | None = Field(
        default=None, description="Kinds of products: so many of the departments in turn, or these; all if null."
    )
    attributes: tuple[int, int] = Field(default=(3, 5), description="Least and most attributes of a product.")
    asked_attributes: tuple[int, int] = Field(default=(1, 3), description="Least and most attributes that are asked for.")
    options: int = Field(default=2, ge=0, description="Most groups of options of a product.")
    values: tuple[int, int] = Field(default=(2, 6), description="Least and most values of an option.")
    asked_options: float = Field(default=0.7, ge=0, le=1, description="How often an option a product has is asked for.")
    people_words: float = Field(
        default=0.3, ge=0, le=1, description="How often a kind, attribute or value is said in other words than the shop's."
    )
    wordings: int = Field(default=8, ge=1, description="Sentences that instructions are made with, at most so many.")
    price_ranges: float = Field(default=0.1, ge=0, le=1, description="Share of products with a range of prices.")
    price_spread: float = Field(
        default=1.0, ge=0, le=1, description="Share of a kind's span of prices that its products are spread over."
    )
    cents: bool = Field(default=True, description="Prices with cents; whole dollars otherwise.")
    brands: bool = Field(default=True, description="Titles with a brand and a line, so that nearly all differ.")

    @field_validator("attributes", "asked_attributes", "values")
    @classmethod
    def _span(cls, span: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= span[0] <= span[1]:
            raise ValueError(f"a range needs 1 <= least <= most, not {list(span)}")
        return span

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: int | tuple[str, ...] | None) -> int | tuple[str, ...] | None:
        known = all_kinds()
        if isinstance(kinds, int) and not 1 <= kinds <= len(known):
            raise ValueError(f"there are {len(known)} kinds of products")
        if isinstance(kinds, tuple):
            if unknown := [name for name in kinds if name not in known]:
                raise ValueError(f"unknown kind {unknown[0]!r}; known: {', '.join(known)}")
            if not kinds or len(set(kinds)) != len(kinds):
                raise ValueError("name each kind once, and at least one")
        return kinds

    @model_validator(mode="after")
    def _possible(self) -> CatalogueConfig:
        if self.goals > self.products:
            raise ValueError(f"goals: {self.goals} products cannot be asked for, there are {self.products}")
        return self
