"""Products and the instructions that ask for them, drawn one by one: each depends on the seed and its own number only."""

from __future__ import annotations

import random
from dataclasses import dataclass

from leap_worlds.made import stream
from leap_worlds.webshop.generator.config import CatalogueConfig
from leap_worlds.webshop.generator.tables import Attribute, Kind, OptionGroup, kinds, some_kinds, tables

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBERS = len(_DIGITS) ** 8
_STEP = 1_000_003_567_891  # odd and no multiple of 3, so that no two products share a number
_SMALL_WORDS = frozenset({"and", "for", "the", "with", "of", "in", "to"})


@dataclass(frozen=True, slots=True)
class Drawn:
    """A product before it is put into words; the first two attributes can stand in its title."""

    kind: Kind
    attributes: tuple[Attribute, ...]
    options: tuple[tuple[OptionGroup, tuple[tuple[str, str], ...]], ...]
    title: str
    asin: str
    pricing: str


def the_kinds(config: CatalogueConfig) -> list[Kind]:
    """Returns the kinds that a catalogue has."""
    if isinstance(config.kinds, int):
        return some_kinds(config.kinds)
    return [kinds()[name] for name in config.kinds] if config.kinds else list(kinds().values())


def draw(config: CatalogueConfig, choices: list[Kind], number: int) -> Drawn:
    """Returns the product of that number."""
    rng = stream(config.seed, "product", number)
    kind = choices[number % len(choices)]
    wanted = min(rng.randint(*config.attributes), len(kind.attributes))
    attributes = tuple(rng.sample(kind.attributes, wanted))
    groups = rng.sample(kind.options, min(config.options, len(kind.options)))
    options = []
    for group in groups:
        count = min(rng.randint(*config.values), len(group.values))
        chosen = sorted(rng.sample(range(len(group.values)), count))
        options.append((group, tuple(group.values[place] for place in chosen)))
    return Drawn(
        kind, attributes, tuple(options), _title(config, kind, attributes, rng), _asin(config, number), _price(config, kind, rng)
    )


def entry(product: Drawn, rng: random.Random) -> dict[str, object]:
    """Returns the product as an element of `items_shuffle`, with the keys that the shop reads or drops on purpose."""
    kind, name = product.kind, product.kind.name
    praise = tables()["praise"]
    bullets = [f"this {name} {attribute.said}" for attribute in product.attributes]
    # The first line is searched, the others are read by whoever opens the page.
    rng.shuffle(bullets)
    bullets.append(rng.choice(praise))
    return {
        "name": product.title,
        "asin": product.asin,
        "pricing": product.pricing,
        "images": [],
        "small_description": [f"{line[0].upper()}{line[1:]}." for line in bullets],
        "full_description": f"{name.capitalize()} {rng.choice(kind.details)}, {rng.choice(praise)}.",
        "customization_options": {
            group.name.title(): [{"value": value, "image": None} for value, _ in values] for group, values in product.options
        },
        "category": kind.department,
        "query": name,
        "product_category": " › ".join((kind.department.title(), kind.section, name.title())),
        "average_rating": "",
    }


def instruction(config: CatalogueConfig, product: Drawn, number: int) -> dict[str, object]:
    """What a person who wants the product would write, and what it is judged by: an element of `items_human_ins`."""
    rng = stream(config.seed, "instruction", number)
    least, most = config.asked_attributes
    asked = rng.sample(product.attributes, min(rng.randint(least, most), len(product.attributes)))
    chosen = [
        (group, rng.choice(values)) for group, values in product.options if values and rng.random() < config.asked_options
    ]

    def other_words() -> bool:
        return rng.random() < config.people_words

    people = other_words()
    article = "a" if people and product.kind.article else product.kind.article
    kind = product.kind.people if people else product.kind.name
    if article and people:
        article = "an" if kind[0] in "aeiou" else "a"
    said = [rng.choice(attribute.people) if other_words() else attribute.said for attribute in asked]
    phrases = [group.phrase.format(value[1] if other_words() else value[0]) for group, value in chosen]
    wordings = tables()["wordings" if chosen else "bare_wordings"][: config.wordings]
    text = rng.choice(wordings).format(
        kind=f"{article} {kind}".strip(), attributes=" and ".join(said), options=" and ".join(phrases)
    )
    return {
        "asin": product.asin,
        "instruction": text,
        "attributes": [attribute.name for attribute in product.attributes],
        "options": [f"{group.name}: {value[0]}" for group, value in chosen],
        "instruction_attributes": [attribute.name for attribute in asked],
        "instruction_options": [value[0] for _, value in chosen],
        "assignment_id": "generated",
        "worker_id": "generated",
    }


def _title(config: CatalogueConfig, kind: Kind, attributes: tuple[Attribute, ...], rng: random.Random) -> str:
    """Two of the attributes, the kind and a detail: the last attributes are told on the product's own pages alone."""
    shown = [attribute.name for attribute in attributes[:2]]
    detail = rng.choice(kind.details)
    rest = f", {shown[1]}" if len(shown) > 1 else ""
    title = f"{shown[0]} {kind.name} {detail}{rest}"
    title = " ".join(word if word in _SMALL_WORDS else word.capitalize() for word in title.split())
    if config.brands:
        brand, line = rng.choice(tables()["brands"]), rng.choice(tables()["lines"])
        return f"{brand} {title} - {line} {rng.randint(1, 99)}"
    return f"{title}, No {rng.randint(1, 99)}"


def _asin(config: CatalogueConfig, number: int) -> str:
    left = (config.seed * 7_919 + number * _STEP) % _NUMBERS
    digits = ""
    for _ in range(8):
        left, digit = divmod(left, len(_DIGITS))
        digits += _DIGITS[digit]
    return f"B0{digits[::-1]}"


def _price(config: CatalogueConfig, kind: Kind, rng: random.Random) -> str:
    span = (kind.high - kind.low) * config.price_spread
    price = kind.low + rng.random() * span
    low = round(price, 2) if config.cents else float(round(price))
    if rng.random() < config.price_ranges:
        return f"${low:.2f} to ${low * rng.uniform(1.1, 1.8):.2f}"
    return f"${low:.2f}"
