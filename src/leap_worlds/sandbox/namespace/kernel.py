"""The few system calls Python's standard library lacks (some are there from 3.12 on), by ctypes."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
ALL_NAMESPACES = (
    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

# Docker's default capabilities, so that a command that needs one behaves as there.
DOCKER_CAPS = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
LAST_CAP = 63

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    names = os.fsencode(source), os.fsencode(target), kind and kind.encode()
    done = _libc.mount(*names, ctypes.c_ulong(flags), data and os.fsencode(data))
    _check(done, f"mount {kind or source} on {target}")


def pivot_to_cwd() -> None:
    """Makes the current folder (a mount point) the root and detaches the old root."""
    number = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    _check(_libc.syscall(ctypes.c_long(number), b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "detaching the old root")
    os.chdir("/")


def close_range(first: int, last: int) -> None:
    """Closes file descriptors from first to last. (Python's own function may try a million numbers one by one.)"""
    if first <= last:
        _check(_libc.syscall(ctypes.c_long(436), ctypes.c_uint(first), ctypes.c_uint(last), 0), "close_range")


def prctl(option: int, *args: int) -> int:
    padded = [ctypes.c_ulong(value) for value in (*args, 0, 0, 0, 0)][:4]
    return _check(_libc.prctl(option, *padded), f"prctl {option}")


def sethostname(name: str) -> None:
    raw = name.encode()
    _check(_libc.sethostname(raw, ctypes.c_size_t(len(raw))), "sethostname")


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(sock, 0x8914, request)  # SIOCSIFFLAGS


def map_single_uid(uid: int, gid: int) -> None:
    """The caller becomes root of the user namespace it has just made; no other user exists in it."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def become(uid: int, gid: int, groups: Sequence[int] = ()) -> None:
    """Gives up root for good."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def set_dumpable(dumpable: bool) -> None:
    """Whether processes with the same rights may look into this one and its forks, until they execute a program."""
    prctl(PR_SET_DUMPABLE, int(dumpable))


def drop_capabilities() -> None:
    """Leaves Docker's default capabilities, in every set they could come back from."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for cap in range(LAST_CAP + 1):
        if cap not in DOCKER_CAPS:
            try:
                prctl(PR_CAPBSET_DROP, cap)
            except OSError:
                break  # past the kernel's last capability
    low = sum(1 << cap for cap in DOCKER_CAPS)
    header = struct.pack("Ii", 0x20080522, 0)
    _check(_libc.capset(header, struct.pack("6I", low, low, 0, 0, 0, 0)), "capset")


def reset_signals() -> None:
    """Gives signals their default effect: Python ignores SIGPIPE and SIGXFSZ, which children would inherit."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def raise_open_files() -> None:
    """Lifts the soft limit of open files to the hard one. Files on their way through sockets are counted for a user, all
    boxes together, against the limit of who sends: a monitor must be able to send while boxes hold as many as they may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_limits(limits: dict[str, int]) -> None:
    """Resource limits of one command."""
    for name, value in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_FSIZE, limits["disk"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (
            resource.RLIMIT_CORE,
            1,
        ),  # of bytes: none is written; with 0 the host's own program for crashes would be started
        (resource.RLIMIT_MEMLOCK, 65536),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 1024),
    ):
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))
