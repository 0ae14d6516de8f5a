"""A product as the shop shows and scores it, made from an entry of the official files.

Source: `load_products` of WebShop's `web_agent_site/engine/engine.py` (princeton-nlp/WebShop 64fa2a5, MIT).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

DEFAULT_PRICE = 100.0
"""Price of a product without one, in US dollars."""
NO_ATTRIBUTES = ("DUMMY_ATTR",)
"""Attributes of a product of which none are known."""
LONGEST_ASIN = 10


class RawOption(msgspec.Struct):
    """One value of an option, as in `items_shuffle`."""

    value: str


class RawProduct(msgspec.Struct):
    """An element of `items_shuffle`: the keys that matter."""

    asin: str
    name: str
    full_description: str
    small_description: list[str] | str
    category: str
    query: str
    product_category: str
    pricing: str | None = None
    customization_options: dict[str, list[RawOption] | None] | str | None = None


class RawAttributes(msgspec.Struct):
    """An entry of `items_ins_v2`."""

    attributes: list[str] | None = None
    instruction: str | None = None
    instruction_attributes: list[str] | None = None


class RawInstruction(msgspec.Struct):
    """What one person wrote for a product: an element of an entry of `items_human_ins`."""

    instruction: str
    instruction_attributes: list[str]
    instruction_options: list[str]


class Product(msgspec.Struct, frozen=True, array_like=True):
    """A product on sale.

    Attributes:
        asin: Amazon's number, at most 10 characters.
        description, bullets: Text of the Description page, which may be empty, and lines of the Features page.
        price: What the page shows, for example "$20.0" or "$33.53 to $40.0".
        pricing: One price, or the two ends of the range that the true price is drawn from, in US dollars.
        options: Values to choose from, by name, both in lower case and in the page's order.
        attributes: What is known about it; goals ask for some of these.
        category: One of the shop's five departments.
        query: The search that led to the product when it was collected, in lower case.
        product_category: Amazon's path of categories, with "›" between.
    """

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    price: str
    pricing: tuple[float, ...]
    options: dict[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    category: str
    query: str
    product_category: str

    @property
    def contents(self) -> str:
        """What the search engine indexes of it (upstream: search_engine/convert_product_file_format.py)."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        return " ".join([self.title, self.description, self.bullets[0] if self.bullets else "", options]).lower()


def on_sale(raws: Iterator[RawProduct] | list[RawProduct]) -> Iterator[RawProduct]:
    """Yields the products the shop takes: of several with one number the first, and none whose number is no ASIN."""
    seen: set[str] = set()
    for raw in raws:
        if raw.asin != "nan" and len(raw.asin) <= LONGEST_ASIN and raw.asin not in seen:
            seen.add(raw.asin)
            yield raw


def make_product(raw: RawProduct, attributes: RawAttributes | None) -> Product:
    """Returns a product from its entries; a `ValueError` says that its price cannot be read."""
    pricing, price = read_pricing(raw.pricing)
    bullets = raw.small_description
    known = attributes.attributes if attributes is not None else None
    return Product(
        asin=raw.asin,
        title=raw.name,
        description=raw.full_description,
        bullets=tuple(bullets) if isinstance(bullets, list) else (bullets,),
        price=price,
        pricing=pricing,
        options=_options(raw),
        attributes=NO_ATTRIBUTES if known is None else tuple(known),
        category=raw.category,
        query=raw.query.lower().strip(),
        product_category=raw.product_category,
    )


def read_pricing(text: str | None) -> tuple[tuple[float, ...], str]:
    """Returns the prices in a text like "$12.50" or "$3.00$7.99" (`ValueError` if none), and as the page shows them."""
    if not text:
        return (DEFAULT_PRICE,), f"${DEFAULT_PRICE}"
    try:
        prices = [float(re.sub(r"[^\d.]", "", part)) for part in text.split("$")[1:]]
    except ValueError:
        prices = []
    if not prices:
        raise ValueError(f"no price can be read from {text!r}")
    if len(prices) == 1:
        return (prices[0],), f"${prices[0]}"
    return (prices[0], prices[1]), f"${prices[0]} to ${prices[1]}"


def _options(raw: RawProduct) -> dict[str, tuple[str, ...]]:
    """Two names that differ in case only are one; the later stands, in the place of the first."""
    if not isinstance(raw.customization_options, dict):
        return {}
    return {
        name.lower(): tuple(option.value.strip().replace("/", " | ").lower() for option in values)
        for name, values in raw.customization_options.items()
        if values is not None
    }
