"""The boxes of file systems, and the worlds in them that are not a student's: for gold runs, roll-ins and going along."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from leap_worlds.intercode.bash.reward import Parts
from leap_worlds.intercode.bash.tasks import NOT_REPEATABLE, BashTask
from leap_worlds.intercode.bash.world import Compat, Limits, Shown, World, judge

if TYPE_CHECKING:
    from leap.core import Task
    from leap_worlds.sandbox.base import Sandbox


class Boxes:
    """Makes boxes of file systems, from any number of threads at once.

    Args:
        make: Makes a fresh box of a file system.
        description: What makes them, for the record.
        close: Frees what makes them.
    """

    def __init__(
        self, make: Callable[[int | str], Sandbox], description: str, close: Callable[[], None] = lambda: None
    ) -> None:
        self.open = make
        self.description = description
        self.close = close


class Rules(NamedTuple):
    """The rules of a world.

    Attributes:
        compat: Whose rules.
        limits: What a command may take.
    """

    compat: Compat
    limits: Limits

    def world(self, record: BashTask, box: Sandbox) -> World:
        """A task's world in a fresh box."""
        return World(box, compat=self.compat, limits=self.limits, query=record.query)


class Worlds:
    """Worlds for one thread at a time: one for gold runs, one to go along episodes in and one for roll-ins, each in a box of
    its own that is emptied before the next. The world that was asked for before is gone then.

    Args:
        boxes: Makes the boxes.
        rules: What the worlds are played by.
        record: Finds a task's record.
    """

    def __init__(self, boxes: Boxes, rules: Rules, record: Callable[[Task], BashTask]) -> None:
        self.record = record
        self._boxes = boxes
        self._rules = rules
        self._kept: dict[str, tuple[int | str, Sandbox]] = {}
        self._gold_run: tuple[str, World, Shown] | None = None

    def gold_world(self, record: BashTask) -> World:
        """A fresh world to run a gold command in."""
        self._gold_run = None
        return self._fresh(record, "gold")

    def walk_world(self, record: BashTask) -> World:
        """A fresh world to go along an episode in."""
        return self._fresh(record, "walk")

    def roll_in_world(self, record: BashTask) -> World:
        """A fresh world to try a proposal in."""
        return self._fresh(record, "roll-in")

    def gold_run(self, record: BashTask) -> tuple[World, Shown]:
        """The world in which the gold was run, and what came of it. Asking for the same task again at once gives the same
        run, but where the gold tells of the moment."""
        if self._gold_run is None or self._gold_run[0] != record.id or record.id in NOT_REPEATABLE:
            gold = self.gold_world(record)
            self._gold_run = (record.id, gold, gold.run_gold(record.gold))
        return self._gold_run[1:]

    def judge(self, world: World, record: BashTask) -> Parts:
        """The reward of a world as it is now. The gold runs in a fresh box."""
        return judge(world, *self.gold_run(record), self._rules.compat)

    def close(self) -> None:
        """Closes the boxes."""
        self._gold_run = None
        while self._kept:
            self._kept.popitem()[1][1].close()

    def _fresh(self, record: BashTask, use: str) -> World:
        of, box = self._kept.get(use, (None, None))
        if box is not None and of == record.file_system:
            box.reset()
        else:
            if box is not None:
                del self._kept[use]
                box.close()
            box = self._boxes.open(record.file_system)
            self._kept[use] = (record.file_system, box)
        return self._rules.world(record, box)
