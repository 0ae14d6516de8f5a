"""The measured proportions (`tables.json`, by `benchmarks/alfworld_measure.py`) and the rules of the six task types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from leap.core import JsonObject

NOWHERE = ""
"""Stands for a thing that lies in no receptacle, so that nobody can ever see it."""
ROOM_KINDS = ("kitchen", "livingroom", "bedroom", "bathroom")
SCENES: dict[str, tuple[int, ...]] = {
    kind: tuple(range(first, first + 30)) for kind, first in zip(ROOM_KINDS, (1, 201, 301, 401), strict=True)
}
"""AI2-THOR's scene numbers of each kind of room."""
LAMP = "DeskLamp"


def room_kind(scene: int) -> str:
    """The kind of room a scene number stands for."""
    return ROOM_KINDS[0] if scene <= 30 else ROOM_KINDS[scene // 100 - 1]


@dataclass(frozen=True)
class TaskRule:
    """One task type.

    Attributes:
        sentences: The two official goal sentences; `{o}` is the thing's type, `{r}` the receptacle's or lamp's.
        needs, mark: Attribute a thing must have to be asked for, and predicate that must come true of it.
        appliance: Type of receptacle that makes it true; never the destination as well.
        count: How many things must end in the destination.
    """

    sentences: tuple[str, str]
    needs: str | None = None
    mark: str | None = None
    appliance: str | None = None
    count: int = 1


# The sentences are the benchmark's data: a policy trained on generated games must understand the official ones.
TASKS: dict[str, TaskRule] = {
    "pick_and_place_simple": TaskRule(("put a {o} in {r}", "put some {o} on {r}")),
    "look_at_obj_in_light": TaskRule(("look at {o} under the {r}", "examine the {o} with the {r}")),
    "pick_clean_then_place_in_recep": TaskRule(
        ("put a clean {o} in {r}", "clean some {o} and put it in {r}"), "cleanable", "isClean", "SinkBasin"
    ),
    "pick_heat_then_place_in_recep": TaskRule(
        ("put a hot {o} in {r}", "heat some {o} and put it in {r}"), "heatable", "isHot", "Microwave"
    ),
    "pick_cool_then_place_in_recep": TaskRule(
        ("put a cool {o} in {r}", "cool some {o} and put it in {r}"), "coolable", "isCool", "Fridge"
    ),
    "pick_two_obj_and_place": TaskRule(("put two {o} in {r}", "find two {o} and put them in {r}"), count=2),
}
TASK_TYPES = tuple(TASKS)


class Tables:
    """Typed access to the measured proportions.

    Attributes:
        can_contain: Types of things that may be put in each type of receptacle.
        attributes: What each type of thing is: cleanable, heatable, coolable, sliceable, isReceptacleObject.
        rooms: The measurements of each kind of room; `benchmarks/alfworld_measure.py` says what they are.
        traps: Types of things that no receptacle at all can hold.
    """

    def __init__(self, data: JsonObject) -> None:
        self.games: int = data["games"]
        self.can_contain: dict[str, frozenset[str]] = {r: frozenset(o) for r, o in data["can_contain"].items()}
        self.attributes: dict[str, frozenset[str]] = {o: frozenset(a) for o, a in data["attributes"].items()}
        self.rooms: dict[str, JsonObject] = data["rooms"]
        portable = (o for room in self.rooms.values() for o, row in room["things"].items() if row["portable"])
        self.traps = frozenset(portable).difference(*self.can_contain.values())

    def is_a(self, thing: str, attribute: str | None) -> bool:
        """Whether a type of thing has an attribute (None is had by all)."""
        return attribute is None or attribute in self.attributes.get(thing, ())

    def content(self, kind: str) -> dict[str, float]:
        """Expected number of portable things in all receptacles of each type, where such a type is in the room."""
        total: dict[str, float] = {}
        for row in self.rooms[kind]["things"].values():
            counts = {int(n): games for n, games in row["counts"].items()}
            mean = row["present"] * sum(n * g for n, g in counts.items()) / sum(counts.values())
            for place, weight in row["places"].items():
                total[place] = total.get(place, 0.0) + mean * weight * row["portable"]
        return total


@cache
def tables() -> Tables:
    """The shipped table, read once."""
    return Tables(
        json.loads(files("leap_worlds.alfworld.generator").joinpath("tables.json").read_text(encoding="utf-8"))
    )
