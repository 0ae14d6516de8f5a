"""What is under way, for people: a bar with count, rate and time left on a terminal; elsewhere a line a minute and one at
the end of each stage."""

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

SIGN_OF_LIFE = 60.0
"""Seconds between two lines of a stage where there is no terminal."""


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
            line = _Line(self.console, what)
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
    """A stage without a terminal: says once a minute how far it is."""

    def __init__(self, console: Console, what: str) -> None:
        self.done = self.total = 0
        self.note = ""
        self._console, self._what = console, what
        self._began = self._said = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, total: int, note: str) -> None:
        self.done, self.total, self.note = done, total, note
        self._first = done if self._first is None else self._first
        now = time.monotonic()
        if now - self._said < SIGN_OF_LIFE or done >= total:
            return
        self._said = now
        rate = (done - self._first) / (now - self._began)
        left = f", {(total - done) / rate / 60:.0f} min left" if rate else ""
        self._console.print(f"{self._what}: {done} of {total}, {rate:.1f}/s{left} {note}".rstrip(), soft_wrap=True)


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
