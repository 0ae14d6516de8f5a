"""Things that one thread at a time can use, as many of them as are used at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Lends things out, from any number of threads. Nobody waits: where none is free another is made.

    Args:
        make: Makes one.
        close: Frees what one holds.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], None]) -> None:
        self._make, self._close = make, close
        self._lock = threading.Lock()
        self._free: list[tuple[Hashable, T]] = []

    @contextmanager
    def lent(self, use: Hashable = None) -> Iterator[T]:
        """Lends one thing for the time of the `with` block: that which had the same use last, if it is free, else the one that
        was not used for longest. One that was being used when something went wrong is thrown away."""
        with self._lock:
            uses = [last for last, _ in self._free]
            found = self._free.pop(uses.index(use) if use in uses else 0)[1] if uses else None
        thing = self._make() if found is None else found
        try:
            yield thing
        except BaseException:
            self._close(thing)
            raise
        with self._lock:
            self._free.append((use, thing))

    def close(self) -> None:
        """Closes what is not lent out."""
        with self._lock:
            free, self._free = self._free, []
        for _, thing in free:
            self._close(thing)
