"""The words that catalogues are made of: kinds of products, attributes, options, each in the shop's words and in people's."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from leap.core import JsonObject


class Attribute(NamedTuple):
    """What a product can be known for: the shop's name, its words after "it" ("is washable"), and people's words."""

    name: str
    said: str
    people: tuple[str, ...]


class OptionGroup(NamedTuple):
    """Something to choose: its name, how an instruction asks for it, each value in the shop's words and people's."""

    name: str
    phrase: str
    values: tuple[tuple[str, str], ...]


class Kind(NamedTuple):
    """A kind of product.

    Attributes:
        name, people: The shop's word and another.
        department: One of WebShop's five.
        section: What it is sold beside; kinds of a section share their attributes.
        attributes, options: What its products can be known for, and what there can be to choose.
        article: "a", "an", or "" for what is many.
        low, high: Span of prices, in US dollars.
        details: What titles say beside.
    """

    name: str
    people: str
    department: str
    section: str
    attributes: tuple[Attribute, ...]
    options: tuple[OptionGroup, ...]
    article: str
    low: int
    high: int
    details: tuple[str, ...]


@cache
def tables() -> JsonObject:
    """Returns the tables as they are on file."""
    return json.loads((Path(__file__).parent / "tables.json").read_text(encoding="utf-8"))


@cache
def kinds() -> dict[str, Kind]:
    """Returns all kinds by name, the departments one after the other."""
    data = tables()
    attributes = {
        pool: tuple(Attribute(name, said, tuple(people)) for name, said, people in entries)
        for pool, entries in data["attributes"].items()
    }
    groups = {
        name: OptionGroup(name, group["phrase"], tuple((shop, people) for shop, people in group["values"]))
        for name, group in data["options"].items()
    }
    found = {}
    for name, people, department, section, pool, options, article, low, high, details in data["kinds"]:
        chosen = tuple(groups[option.replace("_", " ")] for option in options.split())
        found[name] = Kind(
            name, people, department, section, attributes[pool], chosen, article, low, high, tuple(details.split("; "))
        )
    return found


def some_kinds(number: int) -> list[Kind]:
    """Returns so many kinds, of the sections in turn, so that few share their attributes."""
    sections: dict[str, list[Kind]] = {}
    for kind in kinds().values():
        sections.setdefault(kind.section, []).append(kind)
    # One of each department first: sections are listed department by department.
    by_department: dict[str, list[list[Kind]]] = {}
    for members in sections.values():
        by_department.setdefault(members[0].department, []).append(members)
    turns = [lists[turn] for turn in range(9) for lists in by_department.values() if turn < len(lists)]
    chosen = [members[place] for place in range(9) for members in turns if place < len(members)]
    return chosen[:number]
