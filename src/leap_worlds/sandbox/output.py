"""Reading what a program prints, within limits."""

from __future__ import annotations

import os
import select
import time
from typing import IO


def read_output(pipe: IO[bytes], deadline: float, max_output: int) -> tuple[bytes, bool]:
    """Reads until the end, the deadline, or more bytes than a command may print.

    Args:
        pipe: The program's output; closed by whoever opened it.
        deadline: As `time.monotonic()` tells it, in seconds.
        max_output: Bytes after which no more is read; what comes back may be longer by a part.

    Returns:
        What was read, and whether the deadline came before the end.
    """
    output = bytearray()
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while len(output) <= max_output:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return bytes(output), True
        part = os.read(pipe.fileno(), 65536)
        if not part:
            break
        output += part
    return bytes(output), False
