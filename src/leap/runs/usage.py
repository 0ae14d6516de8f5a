"""What a stage used beside the tokens that the ledger has: time, and sandboxes, which may be paid for by use."""

from __future__ import annotations

import time

from leap.envs.base import Environment
from leap.models.prices import dollars
from leap.progress import Bar


class Usage:
    """Time, and what an environment uses from now on in this process: boxes of worker processes are not in it.

    Args:
        environment: None where none is open.
    """

    def __init__(self, environment: Environment | None) -> None:
        self._began = time.monotonic()
        self._before = environment.used() if environment else {}

    def told(self, environment: Environment | None, bar: Bar) -> dict[str, float]:
        """By name, without what is nothing; the bar says it, too."""
        now = environment.used() if environment else {}
        used = {name: round(number - self._before.get(name, 0.0), 4) for name, number in now.items()}
        seconds, usd = used.get("box_seconds", 0.0), used.get("box_usd", 0.0)
        if seconds:
            boxes = f"{seconds:,.0f} box seconds{f' ({dollars(usd)})' if usd else ''}"
            bar.update(bar.done, bar.total, ", ".join(filter(None, (bar.note.strip(), boxes))))
        taken = round(time.monotonic() - self._began, 2)
        return {"seconds": taken, **{name: number for name, number in used.items() if number}}
