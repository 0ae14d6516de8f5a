"""What tests of hostile commands share: commands in a box, and what of the host and of other boxes must stay as it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

from leap_worlds.sandbox import ExecResult, Sandbox


def sh(box: Sandbox, command: str, timeout: float = 20, **more: int) -> ExecResult:
    return box.exec(["bash", "-c", command], timeout=timeout, **more)


def py(box: Sandbox, code: str, timeout: float = 20) -> str:
    return box.exec(["python3", "-I", "-S", "-c", code], timeout=timeout).output.decode(errors="replace")


ENGINES = (" overlay ", " nsfs ", " shm ")
"""What an engine mounts on the host for each container."""


def is_podman(box: Sandbox) -> bool:
    return b"container=podman" in sh(box, "cat /proc/1/environ").output


def host_state() -> dict[str, object]:
    mounts = [line.split(" ", 1)[1] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {
        "mounts": [mount for mount in mounts if not any(kind in mount for kind in ENGINES)],
        "hostname": os.uname().nodename,
        "passwd": Path("/etc/passwd").read_bytes(),
        "core": Path("/proc/sys/kernel/core_pattern").read_text(),
        "files": sorted(Path("/").iterdir()),
    }


def processes(box: Sandbox) -> int:
    return int(py(box, "import os; print(sum(e.isdigit() for e in os.listdir('/proc')))"))


def processes_left(box: Sandbox) -> int:
    """How many there are once those that were killed are gone: PID 1 and the counter. On a busy machine a killed process, which
    does nothing any more, takes a while until it is reaped."""
    until = time.monotonic() + 20
    while (count := processes(box)) > 2 and time.monotonic() < until:
        time.sleep(0.1)
    return count
