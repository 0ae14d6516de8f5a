"""The file system of a box: an overlay over read-only layers, a small /dev, and /proc and /sys as Docker shows them.

Everything is named relative to the current folder (the layer store), so that a user who may not enter the folders above
it can still use it, and so that the box's mount table does not tell where it is.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from . import kernel

MOUNTPOINT = "mnt"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
HIDDEN_FILES = ("kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "kmsg", "sysrq-trigger")
HIDDEN_FOLDERS = ("acpi", "asound", "scsi", "tty/driver", "interrupts")
READ_ONLY = ("bus", "fs", "irq", "sys")
PER_BOX = {"max_inotify_instances": 1, "max_inotify_watches": 64, "max_fanotify_groups": 0}
"""Limits of a box's user namespace, in /proc/sys/user: all boxes together have those of the user that they run as (128
instances by default). One is what `tail -f` needs."""
_NO_EXEC = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC


def enter_box(layers: list[str], upper: str | None, limits: dict[str, int]) -> int:
    """Builds the box's file system and makes it the root. Called as PID 1 of a new mount and pid namespace, in the store.
    Returns the folder of what is changed, open: no path of the box leads there.

    Args:
        layers: Layer folders, topmost first, relative to the store.
        upper: Folder with `u` and `w` for the changes, relative to the store; None keeps them in memory, bounded.
        limits: `disk` and `inodes` bound the changes when they are in memory.
    """
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    size = f"size={limits['disk']},nr_inodes={limits['inodes']},mode=755"
    kernel.mount("tmpfs", MOUNTPOINT, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, size)
    if upper is None:
        upper = f"{MOUNTPOINT}/b"
        for name in ("", "/u", "/w"):
            Path(upper + name).mkdir()
    Path(upper, "u").chmod(0o755)  # the box's root folder: its users may enter it, whatever leap's umask
    root = f"{MOUNTPOINT}/r"
    Path(root).mkdir()
    options = f"lowerdir={':'.join(layers)},upperdir={upper}/u,workdir={upper}/w,userxattr"
    kernel.mount("overlay", root, "overlay", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    changed = os.open(f"{upper}/u", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(root)
    _fill_dev()
    # The new /proc comes before the old root goes: the kernel allows it only beside one that is fully visible.
    kernel.mount("proc", "proc", "proc", _NO_EXEC)
    bound_watches(Path("proc"))
    with contextlib.suppress(OSError):  # where the host's /sys is masked it stays an empty folder
        kernel.mount("sysfs", "sys", "sysfs", _NO_EXEC | kernel.MS_RDONLY)
        kernel.mount("tmpfs", "sys/firmware", "tmpfs", _NO_EXEC | kernel.MS_RDONLY, "size=0")
    kernel.pivot_to_cwd()
    _mask_proc()
    return changed


def bound_watches(proc: Path) -> None:
    """Sets the limits of the user namespace that this process is in."""
    for name, most in PER_BOX.items():
        with contextlib.suppress(FileNotFoundError):  # a kernel without it
            (proc / "sys/user" / name).write_text(str(most))


def _fill_dev() -> None:
    kernel.mount("tmpfs", "dev", "tmpfs", kernel.MS_NOSUID, "size=65536,nr_inodes=256,mode=755")
    for name in DEVICES:
        Path("dev", name).touch()
        kernel.mount(f"/dev/{name}", f"dev/{name}", None, kernel.MS_BIND)
    for name in ("pts", "shm", "mqueue"):
        Path("dev", name).mkdir()
    kernel.mount(
        "devpts", "dev/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,max=16"
    )
    kernel.mount("shm", "dev/shm", "tmpfs", _NO_EXEC, "size=8388608,nr_inodes=1024,mode=1777")
    with contextlib.suppress(OSError):
        kernel.mount("mqueue", "dev/mqueue", "mqueue", _NO_EXEC)
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("core", "/proc/kcore"),
    ):
        Path("dev", name).symlink_to(target)


def _mask_proc() -> None:
    for name in HIDDEN_FILES + HIDDEN_FOLDERS:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(Path("/proc", name).stat().st_mode):
                kernel.mount("tmpfs", f"/proc/{name}", "tmpfs", _NO_EXEC | kernel.MS_RDONLY, "size=0")
            else:
                kernel.mount("/dev/null", f"/proc/{name}", None, kernel.MS_BIND)
    for name in READ_ONLY:
        with contextlib.suppress(FileNotFoundError):
            kernel.mount(f"/proc/{name}", f"/proc/{name}", None, kernel.MS_BIND | kernel.MS_REC)
            kernel.mount(
                "none", f"/proc/{name}", None, kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY | _NO_EXEC
            )
