"""Writes a catalogue as the official files, one product at a time, so that a million of them take no memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from leap.core import content_key
from leap.envs.base import Progress
from leap.files import atomic_directory
from leap_worlds.webshop.generator.config import CatalogueConfig
from leap_worlds.webshop.generator.products import Drawn, draw, entry, instruction, stream, the_kinds
from leap_worlds.webshop.generator.tables import tables

GENERATOR = 1
"""Version of the generator: raised whenever the same settings come to give other files."""
FILES = ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json")


def fingerprint(config: CatalogueConfig) -> str:
    """Names what the settings generate."""
    return content_key("webshop catalogue", GENERATOR, tables(), config.model_dump(mode="json"))


def write_catalogue(config: CatalogueConfig, folder: Path, *, progress: Progress | None = None) -> Path:
    """Writes the three files, unless the folder holds them already.

    Args:
        config: The catalogue's settings.
        folder: Made if missing; appears whole or not at all.
        progress: Optional callable `(done, total, what)`.

    Returns:
        The folder.
    """
    if all((folder / name).is_file() for name in FILES):
        return folder
    with atomic_directory(folder) as partial:
        choices, step = the_kinds(config), config.products / config.goals
        asked = {int(place * step) for place in range(config.goals)}  # spread over all products

        def products() -> Iterator[tuple[int, Drawn]]:
            return ((number, draw(config, choices, number)) for number in range(config.products))

        def entries() -> Iterator[Any]:
            for number, product in products():
                if progress is not None and number % 500 == 0:
                    progress(number, config.products, "generating products")
                yield entry(product, stream(config.seed, "texts", number))

        _write_list(partial / FILES[0], entries())
        _write_mapping(partial / FILES[1], ((product.asin, _attributes(product)) for _, product in products()))
        _write_mapping(
            partial / FILES[2],
            ((product.asin, [instruction(config, product, number)]) for number, product in products() if number in asked),
        )
        (partial / "catalogue.json").write_text(
            json.dumps({"generator": GENERATOR, "config": config.model_dump(mode="json")}, indent=1), encoding="utf-8"
        )
    return folder


def _attributes(product: Drawn) -> dict[str, Any]:
    """Returns an entry of `items_ins_v2`: what is known, and an instruction as the original's are made up."""
    known = [attribute.name for attribute in product.attributes]
    return {
        "attributes": known,
        "instruction": f"Find me {', '.join(known[:2])} {product.kind.name}",
        "instruction_attributes": known[:2],
    }


def _write_list(path: Path, values: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for place, value in enumerate(values):
            file.write((",\n" if place else "\n") + json.dumps(value, ensure_ascii=False))
        file.write("\n]\n")


def _write_mapping(path: Path, items: Iterable[tuple[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("{")
        for place, (key, value) in enumerate(items):
            file.write((",\n" if place else "\n") + json.dumps(key) + ": " + json.dumps(value, ensure_ascii=False))
        file.write("\n}\n")
