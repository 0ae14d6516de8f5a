"""What to generate: the settings, and which rooms each split may use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from leap.config import Section
from leap.errors import LeapError
from leap_worlds.alfworld.data import TEST_SCENES
from leap_worlds.alfworld.generator.tables import ROOM_KINDS, SCENES, TASK_TYPES, room_kind

SPLITS = ("train", "valid", "seen", "unseen")
VALID_SCENES = (5, 12, 20, 27, 205, 212, 221, 227, 303, 311, 319, 326, 403, 411, 418, 426)
"""Rooms kept for choosing models: train-side rooms, four of each kind, that no training game uses."""
_NAMES = {
    "task_types": (TASK_TYPES, "task type"),
    "rooms": (ROOM_KINDS, "kind of room"),
    "layout_per_game": (SPLITS, "split"),
}
"""What the lists of names may hold."""


class GeneratorError(LeapError, ValueError):
    """A set of games that cannot be generated as asked."""

    exit_code = 2


class GeneratorConfig(Section):
    """Settings of a generated set of games. Equal settings give byte-identical games on every machine."""

    gone: ClassVar[dict[str, object]] = {"shared_locations": True, "doubles": True, "test_scenes": list(TEST_SCENES)}

    seed: int = Field(default=0, description="Another seed is another world: other rooms behind the scene numbers.")
    games: dict[str, int] = Field(
        default_factory=lambda: {"train": 200, "valid": 50, "seen": 50, "unseen": 50},
        description="Games of each split: train and seen share rooms, never games; valid has rooms of its own for "
        "choosing models; unseen has the test rooms.",
    )
    task_types: tuple[str, ...] = Field(default=TASK_TYPES, description="Task types to draw from.")
    balanced: bool = Field(default=False, description="Task types and kinds of rooms in turn, not as often as measured.")
    rooms: tuple[str, ...] = Field(default=ROOM_KINDS, description="Kinds of rooms to use.")
    receptacles: tuple[int, int] | None = Field(
        default=None,
        description="Least and most receptacles of a room; full rooms (15 in a bedroom, 34 in a kitchen, on average) if "
        "null. A smaller room keeps sink, microwave, fridge and a place for a lamp, and prefers places that hold much.",
    )
    objects: tuple[int, int] | None = Field(
        default=None,
        description="Least and most portable things of a game, beside those that the task needs; if null the official "
        "number, in a smaller room less in proportion. Fewer where the room's types do not come to the least.",
    )
    traps: bool = Field(default=True, description="Things that nothing holds, in half of the games: taking one spoils it.")
    dialect: Literal["put", "move"] = Field(
        default="put", description="Texts of ALFWorld's json_2.1.1 games, as in the papers, or of 2.1.2 and later."
    )
    layout_per_game: tuple[str, ...] = Field(
        default=("unseen",), description="Splits in which each game has a fresh room of its kind, not its scene's."
    )

    @field_validator("games")
    @classmethod
    def _known_splits(cls, games: Mapping[str, int]) -> dict[str, int]:
        for split, number in games.items():
            if split not in SPLITS:
                raise ValueError(f"unknown split {split!r}; splits are {', '.join(SPLITS)}")
            if number < 0:
                raise ValueError(f"{number} games of split {split!r}: give 0 or more")
        return dict(games)

    @field_validator("task_types", "rooms", "layout_per_game")
    @classmethod
    def _known_names(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known, what = _NAMES[str(info.field_name)]
        for name in names:
            if name not in known:
                raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
        if len(set(names)) != len(names) or not (names or info.field_name == "layout_per_game"):
            raise ValueError(f"give each {what} once, and at least one")
        return names

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
        if split in ("unseen", "valid"):
            own = TEST_SCENES if split == "unseen" else VALID_SCENES
            return tuple(scene for scene in own if room_kind(scene) == kind)
        return tuple(scene for scene in SCENES[kind] if scene not in TEST_SCENES + VALID_SCENES)
