"""What to generate."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field, ValidationInfo, field_validator, model_validator

from leap.config import Section

# Words of file systems and requests. None of contents is part of another one.
# ruff: noqa: SIM905
ROOTS = "depot vault archive office studio garden harbor station market museum library workshop".split()
FOLDERS = (
    "notes plans bills letters photos drafts reports lists maps recipes songs books orders forms tests papers tables "
    "tools trips games clips tasks stores parts"
).split()
STEMS = (
    "apple anchor badge banner basket beacon bottle branch bridge bucket budget button cabin camera candle canvas "
    "carpet castle cherry circle cloud coffee copper corner cotton desert dinner dragon drawer engine fabric falcon "
    "feather fence filter flower folder forest fossil galaxy garlic ginger guitar hammer helmet insect island jacket "
    "jungle kettle ladder lantern lemon lesson lizard magnet marble meadow melody mirror monkey motor mountain needle "
    "nephew noodle novel orange orchid oxygen paddle palace parrot pepper piano picnic pillow planet pocket poster "
    "potato puzzle rabbit ribbon rocket saddle salmon school shadow silver sponge spring summer sunset tablet temple "
    "ticket tiger timber tomato tunnel turtle umbrella valley velvet violin walnut window winter wizard zipper"
).split()
ENDINGS = "txt log csv md cfg".split()
WORDS = (
    "amber azure brave brisk calm clean clever cold cosy crisp curly damp deep dusty eager early empty faint fancy "
    "fast firm fresh gentle glad grand great green happy heavy hollow honest huge jolly kind large lazy light lively "
    "lone lucky mellow mild narrow neat noble odd pale plain polite proud quick quiet rapid rare ripe rough round "
    "sharp shiny short shy silent sleepy slim smooth soft solid sour spicy steep strong sweet swift tall thick tidy "
    "tiny vast warm wide wild wise young"
).split()
RARE = (
    "acorn bamboo cactus dolphin eclipse ferry glacier hazel igloo jasmine kayak lotus mango nectar otter pollen "
    "quartz raven saffron thistle urchin vinegar wagon xenon yogurt zebra comet pebble"
).split()
"""Words that are in one file of a file system at most."""


class Select(StrEnum):
    """How a request says which file it is about."""

    TOLD = "told"  # by its path
    NAMED = "named"  # by its name alone: it has to be searched for
    MENTIONS = "mentions"  # by what it holds: the contents have to be searched
    LARGEST = "largest"  # of a folder
    SMALLEST = "smallest"  # of a folder
    LISTED = "listed"  # another file says its path, which has to be read


class Operation(StrEnum):
    """What is to be done with the file."""

    DELETE = "delete"
    MOVE = "move"
    COPY = "copy"
    RENAME = "rename"
    APPEND = "append"
    REPLACE = "replace"
    LINES = "lines"  # say how many it has
    HITS = "hits"  # say how many of its lines hold some words
    FIRST = "first"  # print its first line
    LAST = "last"  # print its last line
    COUNT = "count"  # say how many files of an ending a folder has: about no single file
    CREATE = "create"  # make a new file: about no single file


LONE = frozenset({Operation.COUNT, Operation.CREATE})
"""Operations that are about no file to be found."""


class Lexicon(NamedTuple):
    """The words of a family."""

    roots: Sequence[str]  # names of the folder at the root
    folders: Sequence[str]  # names of the folders in it
    stems: Sequence[str]  # what names of files begin with
    endings: Sequence[str]  # what they end in
    words: Sequence[str]  # what files hold
    rare: Sequence[str]  # what is in one file of a file system at most


class BashFamilyConfig(Section):
    """Settings of a generated family. Equal settings give the same file systems and tasks on every machine."""

    seed: int = Field(default=0, ge=0, description="Another seed is another family.")
    file_systems: dict[str, int] = Field(
        default_factory=lambda: {"train": 200, "valid": 30, "unseen": 50},
        description="File systems of each split; no split has a file system of another.",
    )
    tasks: int = Field(default=20, ge=1, description="Tasks on each file system.")
    folders: tuple[int, int] = Field(default=(4, 6), description="Least and most folders of a file system.")
    files: tuple[int, int] = Field(default=(3, 5), description="Least and most files of a folder.")
    lines: tuple[int, int] = Field(default=(1, 9), description="Least and most lines of a file.")
    select: tuple[Select, ...] = Field(default=tuple(Select), min_length=1, description="How requests name a file.")
    operations: tuple[Operation, ...] = Field(default=tuple(Operation), min_length=1, description="What requests ask for.")
    two_words: float = Field(
        default=0.5, ge=0, le=1, description="How often a text or a pattern is of two words, so that its quotes matter."
    )
    stems: int = Field(default=len(STEMS), ge=1, le=len(STEMS), description="So many words begin the names of files.")
    endings: int = Field(default=len(ENDINGS), ge=2, le=len(ENDINGS), description="Endings of files, so many.")
    words: int = Field(default=len(WORDS), ge=8, le=len(WORDS), description="So many words are in files; rare ones apart.")
    wordings: int = Field(default=3, ge=1, description="Ways of saying each thing, at most so many.")

    @field_validator("folders", "files", "lines")
    @classmethod
    def _span(cls, span: tuple[int, int], field: ValidationInfo) -> tuple[int, int]:
        least, most = {"folders": (2, 12), "files": (2, 8)}.get(str(field.field_name), (1, 10**6))
        if not least <= span[0] <= span[1] <= most:
            raise ValueError(f"a range needs {least} <= least <= most <= {most}, not {list(span)}")
        return span

    @model_validator(mode="after")
    def _enough_stems(self) -> BashFamilyConfig:
        least = self.folders[1] * self.files[1] + 1
        if self.stems < least:
            raise ValueError(f"stems: {self.stems} are too few for {self.folders[1]} folders of {self.files[1]} files: {least}")
        return self

    @property
    def lexicon(self) -> Lexicon:
        """The words that these settings use."""
        return Lexicon(ROOTS, FOLDERS, STEMS[: self.stems], ENDINGS[: self.endings], WORDS[: self.words], RARE)

    @field_validator("file_systems")
    @classmethod
    def _some(cls, counts: dict[str, int]) -> dict[str, int]:
        if not counts or any(count < 1 for count in counts.values()):
            raise ValueError("each split needs at least one file system")
        return counts
