"""Which tasks of a data set are in which split: by a file, by patterns of names, by their folder, or by a hash of the name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from leap.config import Section
from leap.errors import suggest
from leap_worlds.tasks.format import TaskError

ALL = "all"
"""The split that holds every task. Never to be trained on where there are others."""


class SplitConfig(Section):
    """How tasks are divided."""

    by: Literal["hash", "glob", "folder", "file"] = Field(
        default="hash",
        description="hash: by a hash of the task's name, so that new tasks move no old one; folder: the first in its name; glob; "
        "file.",
    )
    shares: dict[str, float] = Field(
        default_factory=lambda: {"train": 0.7, "valid": 0.1, "test": 0.2},
        description="by: hash. The share of each split.",
    )
    seed: int = Field(default=0, description="by: hash. Another number, another division.")
    globs: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="by: glob. Patterns of the names of each split; the first split that matches has the task.",
    )
    file: Path | None = Field(
        default=None,
        description="by: file. YAML or JSON: the names of each split, patterns allowed; no task in two of them.",
    )
    test: tuple[str, ...] = Field(default=("test", "unseen"), description="Splits that nothing is trained or chosen on.")

    @model_validator(mode="after")
    def _complete(self) -> SplitConfig:
        if self.by == "glob" and not self.globs:
            raise ValueError("by: glob needs globs, such as {train: ['a-*'], test: ['b-*']}")
        if self.by == "file" and self.file is None:
            raise ValueError("by: file needs file")
        if self.by == "hash" and (
            not self.shares or min(self.shares.values()) < 0 or abs(sum(self.shares.values()) - 1) > 1e-6
        ):
            raise ValueError("shares must be positive and make 1 together")
        if ALL in {*self.shares, *self.globs}:
            raise ValueError(f"'{ALL}' is always the split of all tasks; call yours something else")
        return self


def divided(names: Sequence[str], config: SplitConfig) -> dict[str, list[str]]:
    """The names of each split, in order, and `all` of them.

    Raises:
        TaskError: The file of a division by file cannot be used.
    """
    if config.by == "hash":
        found: dict[str, list[str]] = {split: [] for split in config.shares}
        for name in names:
            found[_by_hash(name, config)].append(name)
    elif config.by == "glob":
        found = _first_match(names, config.globs)
    elif config.by == "folder":
        found = {}
        for name in names:
            if "/" in name:
                found.setdefault(name.partition("/")[0], []).append(name)
    else:
        assert config.file is not None
        found = _by_file(names, config.file)
    return {**found, ALL: list(names)}


def _by_hash(name: str, config: SplitConfig) -> str:
    digest = hashlib.sha256(f"{config.seed}/{name}".encode()).digest()
    place, upto = int.from_bytes(digest[:8]) / 2**64, 0.0
    for split, share in config.shares.items():
        upto += share
        if place < upto:
            return split
    return next(
        split for split in reversed(config.shares) if config.shares[split] > 0
    )  # shares that make a hair less than 1


def _first_match(names: Sequence[str], globs: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {split: [] for split in globs}
    for name in names:
        split = next(
            (split for split, patterns in globs.items() if any(fnmatchcase(name, each) for each in patterns)), None
        )
        if split is not None:
            found[split].append(name)
    return found


def _by_file(names: Sequence[str], file: Path) -> dict[str, list[str]]:
    try:
        lists = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TaskError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(lists, dict) or not all(isinstance(each, list) for each in lists.values()):
        raise TaskError(f"{file}: a list of task names for each split is needed")
    if ALL in lists:
        raise TaskError(f"{file}: {ALL}: is always the split of all tasks; call yours something else")
    found: dict[str, list[str]] = {}
    place: dict[str, str] = {}
    for split, patterns in lists.items():
        chosen: set[str] = set()
        for pattern in map(str, patterns):
            matched = [name for name in names if fnmatchcase(name, pattern)]
            if not matched:
                raise TaskError(f"{file}: {split}: there is no task {pattern!r}.{suggest(pattern, names)}")
            chosen.update(matched)
        for name in chosen:
            if place.setdefault(name, str(split)) != str(split):
                raise TaskError(f"{file}: {split}: task {name!r} is in {place[name]}, too")
        found[str(split)] = [name for name in names if name in chosen]
    return found
