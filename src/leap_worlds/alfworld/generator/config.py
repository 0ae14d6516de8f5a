"""What to generate: the settings, and which rooms each split may use."""

from __future__ import annotations

import random
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from leap.config import Section
from leap.errors import LeapError
from leap_worlds.alfworld.generator.tables import ROOM_KINDS, SCENES, TASK_TYPES, room_kind

SPLITS = ("train", "valid", "seen", "unseen")
TEST_SCENES = (10, 219, 308, 424)
VALID_SCENES = (5, 12, 20, 27, 205, 212, 221, 227, 303, 311, 319, 326, 403, 411, 418, 426)
"""Rooms kept for choosing models: train-side rooms, four of each kind, that no training game uses."""


class GeneratorError(LeapError, ValueError):
    """A set of games that cannot be generated as asked."""

    exit_code = 2


class GeneratorConfig(Section):
    """Settings of a generated set of games. Equal settings give byte-identical games on every machine.

    Attributes:
        seed: Seeds rooms and games. Another seed is another world: other rooms behind the same scene numbers.
        games: Number of games of each split. `train` and `seen` share rooms, never games; `valid` has rooms of its own
            for choosing models; `unseen` has the test rooms.
        task_types: Task types to draw from.
        balanced: All task types and room kinds equally often (in turn), rather than as often as in the official games.
        rooms: Kinds of rooms to use.
        receptacles: Least and most receptacles per room; None for full rooms (15 in a bedroom, 34 in a kitchen, on
            average). A smaller room is a sample of the full one that keeps sink, microwave, fridge and a place for a
            lamp, and prefers places that hold much.
        objects: Least and most portable things per game; None for the official number, in a smaller room reduced by
            the share of things that lay in the receptacles left out. Things the task needs are always there; where
            a room's own types do not come to the least number, there are fewer.
        traps: Have things that no receptacle can hold, so that taking one spoils the game for good; in the official
            proportion (such a thing is in about half of the official games).
        dialect: Commands and texts of ALFWorld's json_2.1.1 games ("put mug 1 in/on desk 1", as in the papers) or of
            those of 2.1.2 and later ("move mug 1 to desk 1").
        layout_per_game: Splits in which each game has a room of its own, a fresh variant of its kind, rather than the
            fixed room of its scene. With it, no room of `unseen` is ever seen twice.
    """

    gone: ClassVar[dict[str, Any]] = {"shared_locations": True, "doubles": True, "test_scenes": list(TEST_SCENES)}

    seed: int = 0
    games: dict[str, int] = Field(default_factory=lambda: {"train": 200, "valid": 50, "seen": 50, "unseen": 50})
    task_types: tuple[str, ...] = TASK_TYPES
    balanced: bool = False
    rooms: tuple[str, ...] = ROOM_KINDS
    receptacles: tuple[int, int] | None = None
    objects: tuple[int, int] | None = None
    traps: bool = True
    dialect: Literal["put", "move"] = "put"
    layout_per_game: tuple[str, ...] = ("unseen",)

    @field_validator("games")
    @classmethod
    def _known_splits(cls, games: Mapping[str, int]) -> dict[str, int]:
        for split, number in games.items():
            if split not in SPLITS:
                raise ValueError(f"unknown split {split!r}; splits are {', '.join(SPLITS)}")
            if number < 0:
                raise ValueError(f"{number} games of split {split!r}: give 0 or more")
        return dict(games)

    @field_validator("task_types")
    @classmethod
    def _known_tasks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _subset(names, TASK_TYPES, "task type")

    @field_validator("rooms")
    @classmethod
    def _known_rooms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _subset(names, ROOM_KINDS, "kind of room")

    @field_validator("layout_per_game")
    @classmethod
    def _known_layouts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _subset(names, SPLITS, "split", empty=True)

    @field_validator("receptacles", "objects")
    @classmethod
    def _ranges(cls, span: tuple[int, int] | None) -> tuple[int, int] | None:
        if span is not None and not 1 <= span[0] <= span[1]:
            raise ValueError(f"a range needs 1 <= least <= most, not {list(span)}")
        return span

    @model_validator(mode="after")
    def _possible(self) -> GeneratorConfig:
        if self.receptacles and self.receptacles[1] < 6:
            raise ValueError("receptacles: fewer than 6 cannot hold what the tasks need; raise the upper bound")
        return self

    def scenes(self, split: str, kind: str) -> tuple[int, ...]:
        """The scenes a split may use for a kind of room."""
        if split == "unseen":
            return tuple(scene for scene in TEST_SCENES if room_kind(scene) == kind)
        if split == "valid":
            return tuple(scene for scene in VALID_SCENES if room_kind(scene) == kind)
        return tuple(scene for scene in SCENES[kind] if scene not in TEST_SCENES + VALID_SCENES)


def _subset(names: tuple[str, ...], known: tuple[str, ...], what: str, *, empty: bool = False) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
    if len(set(names)) != len(names) or not (names or empty):
        raise ValueError(f"give each {what} once, and at least one")
    return names


def stream(*names: object) -> random.Random:
    """A random stream of its own for a name, the same on every machine and in every process."""
    return random.Random(int.from_bytes(sha256(repr(names).encode()).digest()[:16], "big"))
