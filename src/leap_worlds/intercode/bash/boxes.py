"""The boxes that an environment's episodes, gold runs and roll-ins happen in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leap_worlds.sandbox.base import Sandbox


class Boxes:
    """Hands out boxes of file systems.

    Args:
        make: Makes a fresh box of a file system.
        description: What makes them, for the record.
        close: Frees what makes them.
    """

    def __init__(
        self, make: Callable[[int | str], Sandbox], description: str, close: Callable[[], None] = lambda: None
    ) -> None:
        self.description = description
        self._close = close
        self._make = make
        self._spare: dict[str, tuple[int | str, Sandbox]] = {}

    def open(self, file_system: int | str) -> Sandbox:
        """A fresh box; who asks for it closes it."""
        return self._make(file_system)

    def spare(self, file_system: int | str, use: str) -> Sandbox:
        """A fresh box for a moment: the one and only of its use, emptied before each."""
        of, box = self._spare.get(use, (None, None))
        if box is not None and of == file_system:
            box.reset()
            return box
        if box is not None:
            del self._spare[use]
            box.close()
        box = self._make(file_system)
        self._spare[use] = (file_system, box)
        return box

    def close(self) -> None:
        """Closes the spare boxes, and what makes boxes."""
        while self._spare:
            self._spare.popitem()[1][1].close()
        self._close()
