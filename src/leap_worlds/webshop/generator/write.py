"""Writes a catalogue as the official files, one product at a time, so that a million of them take no memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from leap.core import content_key
from leap.envs.base import Progress
from leap_worlds.made import counted, put_in_place, stream
from leap_worlds.webshop.generator.config import CatalogueConfig
from leap_worlds.webshop.generator.products import Drawn, draw, entry, instruction, the_kinds
from leap_worlds.webshop.generator.tables import tables

GENERATOR = 1
"""Version of the generator: raised whenever the same settings come to give other files."""
FILES = ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json")


def fingerprint(config: CatalogueConfig) -> str:
    """Names what the settings generate."""
    return content_key("webshop catalogue", GENERATOR, tables(), config.model_dump(mode="json"))


def write_catalogue(config: CatalogueConfig, folder: Path, *, progress: Progress | None = None) -> Path:
    """Writes the three files into a folder, unless it holds them; it appears whole or not at all."""

    def products(progress: Progress | None = None) -> Iterator[tuple[int, Drawn]]:
        choices = the_kinds(config)
        numbers = counted(range(config.products), config.products, progress, "generating products")
        return ((number, draw(config, choices, number)) for number in numbers)

    def fill(partial: Path) -> None:
        step = config.products / config.goals
        asked = {int(place * step) for place in range(config.goals)}  # spread over all products
        entries = (entry(product, stream(config.seed, "texts", number)) for number, product in products(progress))
        _write(partial / FILES[0], "[]", map(_json, entries))
        known = ((product.asin, _attributes(product)) for _, product in products())
        _write(partial / FILES[1], "{}", (f"{_json(asin)}: {_json(value)}" for asin, value in known))
        wanted = ((number, product) for number, product in products() if number in asked)
        people = ((product.asin, [instruction(config, product, number)]) for number, product in wanted)
        _write(partial / FILES[2], "{}", (f"{_json(asin)}: {_json(value)}" for asin, value in people))
        (partial / "catalogue.json").write_text(
            json.dumps({"generator": GENERATOR, "config": config.model_dump(mode="json")}, indent=1), encoding="utf-8"
        )

    put_in_place(folder, fill, done=FILES)
    return folder


def _attributes(product: Drawn) -> dict[str, object]:
    """Returns an entry of `items_ins_v2`: what is known, and an instruction as the original's are made up."""
    known = [attribute.name for attribute in product.attributes]
    return {
        "attributes": known,
        "instruction": f"Find me {', '.join(known[:2])} {product.kind.name}",
        "instruction_attributes": known[:2],
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write(path: Path, brackets: str, items: Iterable[str]) -> None:
    """Writes a list or a mapping, an item a line."""
    with path.open("w", encoding="utf-8") as file:
        file.write(brackets[0])
        for place, item in enumerate(items):
            file.write((",\n" if place else "\n") + item)
        file.write(f"\n{brackets[1]}\n")
