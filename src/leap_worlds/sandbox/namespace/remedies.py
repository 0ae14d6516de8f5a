"""Why namespaces may not work on a machine, and the exact thing that mends it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NO_CGROUPS = (
    "no memory control group: memory is bounded for each process (512 MiB by default), not for all of a box together. "
    "Start leap under `systemd-run --user --scope -p Delegate=yes leap ...`."
)
DISK_UPPER = "this kernel is older than 6.6: what an episode writes goes to disk and is bounded file by file only"
USE_DOCKER = "or use `sandbox: docker`"


def kernel_version() -> tuple[int, int]:
    """Major and minor."""
    numbers = os.uname().release.split("-")[0].split(".")
    return int(numbers[0]), int(numbers[1])


def barred(proc: Path = Path("/proc")) -> str | None:
    """What is known to bar namespaces here, as one line with its remedy; None where nothing is known to.

    Args:
        proc: Where to look, for tests.
    """
    if not sys.platform.startswith("linux"):
        return f"namespaces are Linux's; on {sys.platform} use `sandbox: docker`"
    if os.uname().machine not in ("x86_64", "aarch64"):
        return f"no system call filter for {os.uname().machine}; use `sandbox: docker`"
    if kernel_version() < (5, 11):
        return f"Linux {os.uname().release} cannot mount an overlay without root (5.11 can); use `sandbox: docker`"
    if _number(proc / "sys/user/max_user_namespaces") == 0:
        return f"user namespaces are switched off: `sudo sysctl user.max_user_namespaces=15000`, {USE_DOCKER}"
    if os.geteuid() != 0 and _number(proc / "sys/kernel/unprivileged_userns_clone") == 0:
        return f"user namespaces are barred: `sudo sysctl kernel.unprivileged_userns_clone=1`, {USE_DOCKER}"
    if _number(proc / "sys/kernel/apparmor_restrict_unprivileged_userns") == 1:
        return (
            "AppArmor bars user namespaces (Ubuntu 23.10 and later): "
            "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, "
            f"or a profile with `userns,` for {sys.executable}, {USE_DOCKER}"
        )
    return None


def explain(problem: str) -> str:
    """A monitor's error with what to do about it, where that is known."""
    if "unshare" in problem or "uid_map" in problem:
        return f"{problem}. {barred() or f'Inside a container, its seccomp profile bars this; {USE_DOCKER}'}"
    if "No space left" in problem:
        return f"{problem}. Free some disk or memory"
    if "mount proc" in problem:
        return f"{problem}. /proc is masked here, as inside a container; {USE_DOCKER}"
    return problem


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
