"""Episodes and corrections of journals in brief, for pages that have thousands at hand. A look at a file that has grown reads
what was added."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from leap.core import Correction, Episode, StopReason, open_action
from leap.files import read_records

R = TypeVar("R", bound=BaseModel)

CIRCLES = 3
"""From so many steps on that repeat an action where it was taken before, an episode goes in circles."""


@dataclass(frozen=True, slots=True)
class Brief:
    """What is kept of an episode, about a hundredth of it.

    Attributes:
        key, task: Content keys of the episode and of its task.
        title: The beginning of the task's instruction.
        checkpoint: Key of the student's weights.
        actions: In order.
        unread: Steps in which no action could be read from the answer.
        odd: Steps whose action was not admissible.
        again: Steps that repeat an action where the same was shown before.
        error: The beginning of the error that ended it.
        place: Where in the file its line begins.
    """

    key: str
    task: str
    title: str
    id: str
    kind: str
    success: bool
    score: float
    stop: StopReason
    horizon: int
    checkpoint: str
    actions: tuple[str, ...]
    unread: int
    odd: int
    again: int
    error: str
    place: int

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(self.actions)


def in_brief(episode: Episode, place: int = 0) -> Brief:
    """An episode in brief."""
    task, steps, intern = episode.task, episode.steps, sys.intern
    return Brief(
        key=episode.key,
        task=task.key,
        title=task.instruction[:160],
        id=task.id,
        kind=intern(task.kind),
        success=episode.success,
        score=round(episode.score, 4),
        stop=episode.stop,
        horizon=episode.horizon,
        checkpoint=intern(episode.actor.checkpoint),
        actions=tuple(intern(step.action) for step in steps),
        unread=sum(not step.parsed for step in steps),
        odd=sum(inadmissible(episode, t) for t in range(len(steps))),
        again=len(steps) - len({(step.observation.text, step.action) for step in steps}),
        error=episode.error.strip().split("\n")[0][:160],
        place=place,
    )


def inadmissible(episode: Episode, t: int) -> bool:
    """Whether the action of step t was none of those that were listed there."""
    action, offered = episode.steps[t].action, episode.steps[t].observation.admissible
    if offered is None or action in offered:
        return False
    return not any(
        action.startswith(ends[0]) and action.endswith(ends[1]) for one in offered if (ends := open_action(one))
    )


@dataclass(slots=True)
class Taught:
    """What a teacher made of an episode.

    Attributes:
        places: Where in the file the correction of each step stands; -1 of a step without one.
        kept: Corrections that may train.
        differs: Those that name another action than was taken, rejected or not.
        rejected: Why the others may not, each cause once.
    """

    places: array[int] = field(default_factory=lambda: array("q"))
    kept: int = 0
    differs: int = 0
    rejected: tuple[str, ...] = ()

    def knows(self, t: int) -> bool:
        """Whether the correction of step t is counted in."""
        return t < len(self.places) and self.places[t] >= 0

    def add(self, correction: Correction, one: Brief, place: int = 0) -> Counter[str]:
        """Counts a correction of that episode in; returns what it adds to the sums of all."""
        action, t = correction.action, correction.t
        same = one.actions[t : t + 1] == (action,)
        self.places.extend([-1] * (t + 1 - len(self.places)))
        self.places[t] = place
        self.kept += correction.kept
        self.differs += bool(action) and not same
        if correction.rejected and correction.rejected.value not in self.rejected:
            self.rejected += (correction.rejected.value,)
        kept, acted = correction.kept, bool(action)
        counts = {"corrections": 1, "kept": kept, "kept_same": kept and same, "acted": acted, "agreed": acted and same}
        return Counter({**counts, "leaked": bool(correction.leaked)})


@dataclass
class Corrections:
    """A journal of corrections: sums, those that were rejected by cause, those that were measured, and what was made of each
    episode, by its key."""

    counts: Counter[str] = field(
        default_factory=lambda: Counter(corrections=0, kept=0, kept_same=0, acted=0, agreed=0, leaked=0)
    )
    rejected: Counter[str] = field(default_factory=Counter)
    measured: list[Correction] = field(default_factory=list)
    of: dict[str, Taught] = field(default_factory=dict)


class _None(set[str]):
    """No keys: corrections are known by their places."""

    def add(self, key: str) -> None: ...


@dataclass
class _Read:
    """A journal as far as it was read: which file it was, where the last record begins, the keys of all, and what is kept."""

    number: int
    place: int = 0
    seen: set[str] = field(default_factory=set)
    episodes: list[Brief] = field(default_factory=list)
    corrections: Corrections = field(default_factory=Corrections)

    def more(self, path: Path, record: type[R]) -> Iterator[R]:
        """What was added."""
        for place, one in read_records(path, record, place=self.place, seen=self.seen):
            self.place = place
            yield one


class Index:
    """Journals in brief. One thread at a time."""

    def __init__(self) -> None:
        self._read: dict[Path, _Read] = {}

    def episodes(self, path: Path) -> list[Brief]:
        """The episodes of a journal, in its order.

        Raises:
            RunError: A line is damaged.
        """
        read = self._at(path)
        read.episodes += (in_brief(episode, read.place) for episode in read.more(path, Episode))
        return read.episodes

    def corrections(self, path: Path, episodes: Iterable[Brief]) -> Corrections:
        """What a journal of corrections says of these episodes.

        Raises:
            RunError: A line is damaged.
        """
        read, known = self._at(path, _None()), {one.key: one for one in episodes}
        found = read.corrections
        for correction in read.more(path, Correction):
            if (one := known.get(correction.episode)) is None:
                continue
            taught = found.of.setdefault(one.key, Taught())
            if not taught.knows(correction.t):
                found.counts.update(taught.add(correction, one, read.place))
                found.rejected.update([correction.rejected.value] if correction.rejected else ())
                found.measured += [correction] if correction.measured else ()
        return found

    def _at(self, path: Path, seen: set[str] | None = None) -> _Read:
        """How far a file was read; from its beginning again where another has taken its place."""
        there = path.stat() if path.exists() else None
        number, size = (there.st_ino, there.st_size) if there else (0, 0)
        read = self._read.get(path)
        if read is None or read.number != number or size < read.place:
            read = self._read[path] = _Read(number, seen=set() if seen is None else seen)
        return read


COLUMNS = (
    *("place", "key", "task", "title", "id", "kind", "success", "score", "stop", "steps", "unread", "odd", "again"),
    *("kept", "differs", "rejected"),
)
"""What the list of episodes on a page knows of each."""
_OF_EPISODE = attrgetter(*COLUMNS[:13])


def row(one: Brief, taught: Taught | None) -> list[object]:
    """An episode's values of the columns; the last three are None where nobody corrected it."""
    made = (taught.kept, taught.differs, taught.rejected) if taught else (None, None, None)
    return [*_OF_EPISODE(one), *made]
