"""Control groups, where this process may make them: memory and processors of one box together.

Version 1 needs root; version 2 needs a delegated group (`systemd-run --user --scope -p Delegate=yes ...`), or root.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
V1 = {"memory": "memory.limit_in_bytes", "pids": "pids.max", "cpu": "cpu.cfs_quota_us"}
V2 = {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"}
SPARE_PROCESSES = 64  # the box's own limit is RLIMIT_NPROC; the group's must leave room to start what ends a fork bomb


class Groups:
    """Makes and removes one group for each box.

    Attributes:
        version: 1, 2, or 0 where no group can be made.
        controllers: Those that are used.
    """

    def __init__(self, root: Path = ROOT, membership: str | None = None) -> None:
        membership = Path("/proc/self/cgroup").read_text() if membership is None else membership
        entries = [line.split(":", 2) for line in membership.splitlines()]
        own = {name: path for _, names, path in entries for name in names.split(",")}
        self._folders: dict[str, Path] = {}
        unified = root / own.get("", "/").lstrip("/")
        if (root / "cgroup.controllers").exists() and _delegated(unified):
            version = 2
            enabled = (unified / "cgroup.subtree_control").read_text().split()
            self._folders = {name: unified for name in V2 if name in enabled}
        else:
            version = 1
            for name in V1:
                folder = root / name / own.get(name, "/").lstrip("/")
                if (folder / V1[name]).exists() and os.access(folder, os.W_OK):
                    self._folders[name] = folder
                elif (root / name / "cgroup.procs").exists() and os.access(root / name, os.W_OK):
                    self._folders[name] = root / name  # the root group has no limits of its own, but may have children
        self.version = version if self._folders else 0
        self.controllers = tuple(self._folders)

    def make(self, name: str, limits: dict[str, float]) -> list[Path]:
        """Makes a box's groups; returns the files that a process joins them by: it writes "0" to each."""
        values = {
            "memory": str(int(limits["memory"])),
            "pids": str(int(limits["processes"]) + SPARE_PROCESSES),
            "cpu": str(int(limits["cpus"] * 100_000)) + (" 100000" if self.version == 2 else ""),
        }
        doors = []
        for controller, parent in self._folders.items():
            folder = parent / name
            folder.mkdir(exist_ok=True)
            (folder / (V2 if self.version == 2 else V1)[controller]).write_text(values[controller])
            doors.append(folder / ("cgroup.procs" if self.version == 2 else "tasks"))
        return list(dict.fromkeys(doors))

    def remove(self, name: str) -> None:
        """Removes a box's groups once its processes are gone."""
        for folder in {parent / name for parent in self._folders.values()}:
            for _ in range(50):
                with contextlib.suppress(FileNotFoundError):
                    try:
                        folder.rmdir()
                    except OSError:
                        time.sleep(0.01)  # the last process is still on its way out
                        continue
                break


def _delegated(own: Path) -> bool:
    """Whether groups may be made below `own`, after moving what is in it one level down (a group with children that are
    limited may hold no processes itself)."""
    try:
        wanted = [name for name in V2 if name in (own / "cgroup.controllers").read_text().split()]
        enabled = (own / "cgroup.subtree_control").read_text().split()
        if not wanted or not os.access(own / "cgroup.procs", os.W_OK):
            return False
        if not set(wanted) <= set(enabled):
            if own.stat().st_uid != os.getuid() or os.getuid() == 0:
                return False  # not ours to rearrange
            leaf = own / "leap-main"
            leaf.mkdir(exist_ok=True)
            for pid in (own / "cgroup.procs").read_text().split():
                (leaf / "cgroup.procs").write_text(pid)
            (own / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
        return True
    except OSError:
        return False
