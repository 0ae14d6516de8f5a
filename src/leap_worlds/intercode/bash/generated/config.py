"""What to generate."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field, ValidationInfo, field_validator, model_validator

from leap.config import Section
from leap_worlds.intercode.bash.generated.words import ENDINGS, FOLDERS, RARE, ROOTS, STEMS, WORDS


class Select(StrEnum):
    """How a request says which file it is about."""

    TOLD = "told"
    """By its path."""
    NAMED = "named"
    """By its name alone: it has to be searched for."""
    MENTIONS = "mentions"
    """By what it holds: the contents have to be searched."""
    LARGEST = "largest"
    """The largest of a folder."""
    SMALLEST = "smallest"
    """The smallest of a folder."""
    LISTED = "listed"
    """Another file says its path, which has to be read."""


class Operation(StrEnum):
    """What is to be done with the file."""

    DELETE = "delete"
    MOVE = "move"
    COPY = "copy"
    RENAME = "rename"
    APPEND = "append"
    REPLACE = "replace"
    LINES = "lines"
    """Say how many lines it has."""
    HITS = "hits"
    """Say how many of its lines hold some words."""
    FIRST = "first"
    """Print its first line."""
    LAST = "last"
    """Print its last line."""
    COUNT = "count"
    """Say how many files of an ending a folder has. About no single file."""
    CREATE = "create"
    """Make a new file. About no single file."""


LONE = frozenset({Operation.COUNT, Operation.CREATE})
"""Operations that are about no file to be found."""


class Lexicon(NamedTuple):
    """The words of a family.

    Attributes:
        roots: Names of the folder at the root.
        folders: Names of the folders in it.
        stems: What names of files begin with.
        endings: What they end in.
        words: What files hold.
        rare: What is in one file of a file system at most.
    """

    roots: Sequence[str]
    folders: Sequence[str]
    stems: Sequence[str]
    endings: Sequence[str]
    words: Sequence[str]
    rare: Sequence[str]


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
