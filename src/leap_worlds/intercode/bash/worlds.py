"""The worlds of a task that are not a student's: for gold runs, roll-ins and going along."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from leap_worlds.intercode.bash.reward import Parts
from leap_worlds.intercode.bash.tasks import NOT_REPEATABLE, BashTask
from leap_worlds.intercode.bash.world import Rules, Shown, World, judge

if TYPE_CHECKING:
    from leap.core import Task
    from leap_worlds.intercode.base import Boxes
    from leap_worlds.sandbox.base import Sandbox

Use = Literal["gold", "walk", "roll-in"]


class Worlds:
    """Worlds for one thread at a time, one for each use, each in a box of its own that is emptied before the next."""

    def __init__(self, boxes: Boxes, rules: Rules, record: Callable[[Task], BashTask]) -> None:
        self.record = record
        self._boxes = boxes
        self._rules = rules
        self._kept: dict[Use, tuple[int | str, Sandbox]] = {}
        self._gold_run: tuple[str, World, Shown] | None = None

    def fresh(self, record: BashTask, use: Use) -> World:
        """A world to run a gold command in, to go along an episode in or to try a proposal in. The one before is gone then."""
        if use == "gold":
            self._gold_run = None
        of, box = self._kept.get(use, (None, None))
        if box is not None and of == record.file_system:
            box.reset()
        else:
            if box is not None:
                del self._kept[use]
                box.close()
            box = self._boxes.open(record.file_system)
            self._kept[use] = (record.file_system, box)
        return World(box, self._rules, record.query)

    def gold_run(self, record: BashTask) -> tuple[World, Shown]:
        """The world in which the gold was run, and what came of it. Asking for the same task again at once gives the
        same run, but where the gold tells of the moment."""
        if self._gold_run is None or self._gold_run[0] != record.id or record.id in NOT_REPEATABLE:
            gold = self.fresh(record, "gold")
            self._gold_run = (record.id, gold, gold.run_gold(record.gold))
        return self._gold_run[1:]

    def judge(self, world: World, record: BashTask) -> Parts:
        """The reward of a world as it is now. The gold runs in a fresh box."""
        return judge(world, *self.gold_run(record))

    def close(self) -> None:
        """Closes the boxes."""
        self._gold_run = None
        while self._kept:
            self._kept.popitem()[1][1].close()
