"""What is under way, for people: a bar with count, rate and time left on a terminal; elsewhere a line a minute and one at
the end of each stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as rich
from rich.console import Console

SIGN_OF_LIFE = 60.0
"""Seconds between two lines of a stage where there is no terminal."""


class Bar:
    """One stage's progress.

    Args:
        show: Told what is done, of how much, at which rate in 1/s, and a note.
    """

    def __init__(self, show: Callable[[int, int, float, str], object]) -> None:
        self.began = time.monotonic()
        self.done = self.total = 0
        self.note = ""
        self._show = show
        self._first: int | None = None

    def update(self, done: int, total: int, note: str) -> None:
        """So many of so many are done; the note is shown beside."""
        self.done, self.total, self.note = done, total, note
        self._first = done if self._first is None else self._first  # what was on file before was not done now
        self._show(done, total, (done - self._first) / max(self.seconds, 1e-9), note)

    @property
    def seconds(self) -> float:
        """Since when it is under way."""
        return time.monotonic() - self.began


class Progress:
    """Shows stages on a console.

    Args:
        console: Where; standard error by default, so that tables on standard output stay clean.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    @contextmanager
    def stage(self, what: str, *, notes: bool = False) -> Iterator[Bar]:
        """A stage under way. With `notes`, each new note is a line of its own where there is no terminal: what is waited for."""
        if not self.console.is_terminal:
            yield from self._told(what, notes)
            return
        text, rate, note = (
            rich.TextColumn(f"{{task.{field}}}", markup=False)
            for field in ("description", "fields[rate]", "fields[note]")
        )
        columns = (rich.SpinnerColumn(), text, rich.BarColumn(), rich.MofNCompleteColumn(), rate)
        left = (rich.TimeElapsedColumn(), rich.TimeRemainingColumn(), note)
        with rich.Progress(*columns, *left, console=self.console) as shown:
            task = shown.add_task(what, total=None, note="", rate="")

            def show(done: int, total: int, rate: float, note: str) -> None:
                told = _pace(rate) if bar.seconds > 1 else ""
                shown.update(task, completed=done, total=total, note=note, rate=told)

            yield (bar := Bar(show))

    def _told(self, what: str, notes: bool) -> Iterator[Bar]:
        """Without a terminal: says once a minute how far the stage is, and at its end what was done, if anything was."""
        said, heard, noted = 0.0, 0.0, ""

        def show(done: int, total: int, rate: float, note: str) -> None:
            nonlocal said, heard, noted
            heard = bar.seconds
            if notes and note not in ("", noted):
                noted = note
                self.say(note)
            elif bar.seconds - said >= SIGN_OF_LIFE and done < total:
                said = bar.seconds
                left = f", {(total - done) / rate / 60:.0f} min left" if rate else ""
                self.say(f"{what}: {done} of {total}, {_pace(rate)}{left} {note}")

        def alive() -> None:  # a batch of a language model's answers may take minutes, in which nothing is updated
            while not over.wait(SIGN_OF_LIFE):
                if bar.seconds - heard >= SIGN_OF_LIFE:
                    so_far = f"{bar.done} of {bar.total}, " if bar.total else ""
                    self.say(f"{what}: {so_far}{bar.seconds / 60:.0f} min so far {bar.note}")

        over = threading.Event()
        bar = Bar(show)
        thread = threading.Thread(target=alive, name="progress", daemon=True)
        thread.start()
        try:
            yield bar
        finally:
            over.set()
            thread.join()
        if bar.done:
            self.say(f"{what}: {bar.total} in {bar.seconds:.1f} s {bar.note}")

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text.rstrip(), soft_wrap=True, markup=False, emoji=False)


def _pace(rate: float) -> str:
    """A rate in 1/s; a slow one as the time that one takes."""
    return f"{1 / rate:.0f} s each" if 0 < rate < 0.1 else f"{rate:.1f}/s"
