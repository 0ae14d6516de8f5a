"""What the worlds make once and keep: seeded streams to draw from, folders that appear whole or not at all."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from leap.envs.base import Progress
from leap.files import temporary_directory

T = TypeVar("T")


def stream(*names: object) -> random.Random:
    """A random stream of its own for a name, the same on every machine and in every process."""
    return random.Random(int.from_bytes(sha256(repr(names).encode()).digest()[:16], "big"))


def counted(items: Iterable[T], total: int, progress: Progress | None, what: str) -> Iterator[T]:
    """Yields the items and tells the progress, after each thousand and at the end."""
    for done, item in enumerate(items):
        if progress is not None and done % 1000 == 0:
            progress(done, total, what)
        yield item
    if progress is not None:
        progress(total, total, what)


def put_in_place(folder: Path, fill: Callable[[Path], object], *, done: Sequence[str] = ("manifest.json",)) -> None:
    """Fills a folder that is not there under another name and moves it in place; of two at it, the first stays.

    Args:
        folder: Where it is to be. What stands there already, without the files `done`, is not finished, and is removed.
        fill: Fills the folder it is given.
        done: The files of which a finished folder has all.
    """

    def finished() -> bool:
        return all((folder / name).is_file() for name in done)

    if finished():
        return
    with temporary_directory(folder) as partial:
        fill(partial)
        if folder.is_dir() and not finished():
            shutil.rmtree(folder, ignore_errors=True)
        try:
            partial.rename(folder)
        except OSError:
            if not finished():
                raise
