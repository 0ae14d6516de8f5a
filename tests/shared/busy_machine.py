"""For tests that measure time."""

from __future__ import annotations

import time
from pathlib import Path


def waited() -> float:
    """The seconds that this thread was ready to run and got no core; endless where the system does not tell."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return time.monotonic() * 1e9
