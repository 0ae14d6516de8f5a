"""Reads a run's journals without holding them: a line at a time, and of each record only what the page needs.

A run may be under way: a last line that is still being written is left out, and nothing is repaired.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from leap.core import Correction, Episode
from leap.core.record import Record
from leap.errors import RunError

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Brief:
    """What is kept of an episode: about a hundredth of it.

    Attributes:
        key, id, kind: As in the episode and its task.
        success: Whether it was solved.
        actions: What the student did, in order.
        offset: Where in the file its line begins.
    """

    key: str
    id: str
    kind: str
    success: bool
    actions: tuple[str, ...]
    offset: int


def records(path: Path, record: type[R]) -> Iterator[tuple[int, R]]:
    """Yields the records of a journal with their offsets, each key once.

    Raises:
        RunError: A line is damaged.
    """
    if not path.exists():
        return
    seen: set[int] = set()
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            one = _record(path, number, line, record)
            key = int(one.key, 16)  # type: ignore[attr-defined]
            if key not in seen:
                seen.add(key)
                yield offset, one
            offset += len(line)


def briefs(path: Path, wanted: Callable[[Episode], bool] = lambda episode: True) -> list[Brief]:
    """Returns the episodes of a journal, in brief.

    Raises:
        RunError: A line is damaged.
    """
    return [
        Brief(
            key=episode.key,
            id=episode.task.id,
            kind=sys.intern(episode.task.kind),
            success=episode.success,
            actions=tuple(sys.intern(step.action) for step in episode.steps),
            offset=offset,
        )
        for offset, episode in records(path, Episode)
        if wanted(episode)
    ]


def episodes_at(path: Path, chosen: list[Brief]) -> list[Episode]:
    """Returns the chosen episodes whole, in the given order."""
    found = []
    with path.open("rb") as file:
        for brief in chosen:
            file.seek(brief.offset)
            found.append(_record(path, 0, file.readline(), Episode))
    return found


def corrections(path: Path) -> Iterator[Correction]:
    """Yields the corrections of a journal, one after the other.

    Raises:
        RunError: A line is damaged.
    """
    for _, correction in records(path, Correction):
        yield correction


def _record(path: Path, number: int, line: bytes, record: type[R]) -> R:
    try:
        return record.model_validate_json(line)
    except ValidationError as error:
        where = f"{path} line {number}" if number else str(path)
        raise RunError(f"{where} is damaged: {error.errors()[0]['msg']}") from error
