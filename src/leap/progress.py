"""What is under way, for people: a bar with count, rate and time left on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress


class Bar(Protocol):
    """One stage's progress."""

    def update(self, done: int, total: int, note: str) -> None:
        """So many of so many are done; the note is shown beside."""
        ...


class Progress:
    """Shows stages on a console.

    Args:
        console: Where; standard error by default, so that tables on standard output stay clean.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    @contextmanager
    def stage(self, what: str) -> Iterator[Bar]:
        """A stage under way."""
        began = time.monotonic()
        if not self.console.is_terminal:
            line = _Line()
            yield line
            if line.done:
                text = f"{what}: {line.total} in {time.monotonic() - began:.1f} s {line.note}"
                self.console.print(text.rstrip(), soft_wrap=True)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=self.console) as progress:
            yield _RichBar(progress, what)


class _Line:
    def __init__(self) -> None:
        self.done = self.total = 0
        self.note = ""

    def update(self, done: int, total: int, note: str) -> None:
        self.done, self.total, self.note = done, total, note


class _RichBar:
    def __init__(self, progress: RichProgress, what: str) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=None, note="", rate="")
        self._began = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, total: int, note: str) -> None:
        if self._first is None:
            self._first = done
        elapsed = time.monotonic() - self._began
        rate = f"{(done - self._first) / elapsed:.1f}/s" if elapsed > 1 else ""
        self._progress.update(self._task, completed=done, total=total, note=note, rate=rate)
