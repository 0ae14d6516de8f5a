"""What a stage used of sandboxes, on its line and on file."""

from __future__ import annotations

from leap.progress import Bar
from leap.runs.usage import Usage
from leap.testing.corridor import Corridor


class Paid(Corridor):
    """A world with boxes."""

    seconds = 100.0

    def used(self) -> dict[str, float]:
        return {"box_seconds": self.seconds, "box_usd": self.seconds / 3600}


def test_boxes_of_a_stage_are_told_and_noted_without_those_before_it() -> None:
    world, shown = Paid(), list[str]()
    bar = Bar(lambda done, total, rate, note: shown.append(note))
    bar.update(3, 3, "67% solved ")
    usage = Usage(world)
    world.seconds += 7200.0
    told = usage.told(world, bar)
    assert {name: number for name, number in told.items() if name != "seconds"} == {"box_seconds": 7200.0, "box_usd": 2.0}
    assert 0 <= told["seconds"] < 60
    assert shown[-1] == bar.note == "67% solved, 7,200 box seconds ($2.00)"


def test_without_boxes_nothing_is_said() -> None:
    bar = Bar(lambda *_: None)
    bar.update(1, 1, "as it was")
    assert Usage(Corridor()).told(Corridor(), bar).keys() == {"seconds"} and bar.note == "as it was"
    assert Usage(None).told(None, bar).keys() == {"seconds"}
    assert Usage(None).told(Paid(), bar)["box_seconds"] == 100.0  # the environment is opened within the stage
