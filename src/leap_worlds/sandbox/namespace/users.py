"""Users other than root in a box: a range of the host's ids that nobody has, mapped to those from 1 on.

Who maps more than one id must stay outside of the user namespace and have the right to: root, or `newuidmap` for an ordinary
user with subordinate ids (`/etc/subuid`). So a process is forked for it before the namespace is made.

Used by the training process and, without leap, by the zygote and by `main`: imports nothing of leap.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import kernel

COUNT = 65_535
"""Users beside root, and groups."""
FREE = 0x7000_0000
"""Where root takes them from: ids that no distribution assigns (systemd's table UIDS-GIDS)."""
_MAPPERS = ("newuidmap", "newgidmap")
_MOST = 2**20
"""Bytes of a box's /etc/passwd that are read."""


def found(proc: Path = Path("/proc/self"), etc: Path = Path("/etc")) -> tuple[dict[str, Any] | None, str]:
    """The ids that boxes may have beside root's, as `Mapping` takes them; or None, and why not with the remedy.

    Args:
        proc, etc: Where to look, for tests.
    """
    if os.geteuid() == 0:
        try:
            if all(_covers((proc / f"{kind}_map").read_text()) for kind in ("uid", "gid")):
                return {"uids": FREE, "gids": FREE, "mappers": None}, ""
        except OSError:
            pass
        return None, "this place has too few user ids, as inside a container"
    mappers = [shutil.which(name) for name in _MAPPERS]
    if not all(mappers):
        return None, "no newuidmap and newgidmap: `sudo apt-get install uidmap`"
    name = pwd.getpwuid(os.getuid()).pw_name
    first = [_subordinate(etc / file, name) for file in ("subuid", "subgid")]
    if None in first:
        return None, (
            f"{name} has no {COUNT} subordinate ids: "
            f"`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}`"
        )
    return {"uids": first[0], "gids": first[1], "mappers": mappers}, ""


def _covers(table: str) -> bool:
    """Whether one line of a uid_map has all of the ids that root would take."""
    lines = (tuple(map(int, line.split())) for line in table.splitlines())
    return any(first <= FREE and first + count >= FREE + COUNT for first, _, count in lines)


def _subordinate(file: Path, name: str) -> int | None:
    """The first of a user's subordinate ids."""
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            owner, _, rest = line.partition(":")
            first, _, count = rest.partition(":")
            if owner in (name, str(os.getuid())) and first.isdigit() and count.isdigit() and int(count) >= COUNT:
                return int(first)
    return None


class Mapping:
    """A process that stays outside while its parent makes a user namespace, and then maps the ids there.

    Args:
        write: Maps the ids of a process.
    """

    def __init__(self, write: Callable[[int], None]) -> None:
        parent = os.getpid()
        turn, self._go = os.pipe()
        self._told, tell = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._go)
                if os.read(turn, 1):
                    write(parent)
            except BaseException as error:
                os.write(tell, os.fsencode(str(error) or type(error).__name__))
            os._exit(0)
        os.close(turn)
        os.close(tell)

    def do(self) -> None:
        """Has them mapped; raises `OSError` where it could not be done."""
        os.write(self._go, b"\0")
        problem = os.read(self._told, 4096)
        os.waitpid(self._pid, 0)
        os.close(self._go)
        os.close(self._told)
        if problem:
            raise OSError(f"uid_map: {os.fsdecode(problem)}")


def outer(ids: dict[str, Any], drop_to: list[int] | None) -> Mapping:
    """Maps root to the boxes' user, and the others to the range. Called before root is given up."""
    own = drop_to or [os.getuid(), os.getgid()]

    def write(pid: int) -> None:
        for kind, mine, first, at in (("uid", own[0], ids["uids"], 0), ("gid", own[1], ids["gids"], 1)):
            lines = [[0, mine, 1], [1, first, COUNT]]
            if ids["mappers"]:
                words = [ids["mappers"][at], *(str(word) for word in (pid, *lines[0], *lines[1]))]
                if os.waitpid(os.posix_spawn(words[0], words, {}), 0)[1]:
                    raise OSError(f"{words[0]} failed")
            else:
                Path(f"/proc/{pid}/{kind}_map").write_text("".join(f"{a} {b} {c}\n" for a, b, c in lines))

    return Mapping(write)


def same() -> Mapping:
    """Maps all ids to themselves: for a namespace in the one that has the range."""

    def write(pid: int) -> None:
        for kind in ("uid", "gid"):
            Path(f"/proc/{pid}/{kind}_map").write_text(f"0 0 1\n1 1 {COUNT}\n")  # no line may be of two of the outer one's

    return Mapping(write)


def bound_all(processes: int) -> None:
    """Bounds what the kernel counts for a user, for all users of a box together: of the namespace that is made next.
    (Linux 5.14; the limits of each command bound what one user has.)"""
    for name, most in ((resource.RLIMIT_NPROC, processes), (resource.RLIMIT_SIGPENDING, 1024)):
        hard = resource.getrlimit(name)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(name, (most, most))


def enter(ids: dict[str, Any], drop_to: list[int] | None) -> None:
    """Becomes root of a user namespace that has the boxes' users, and nothing else of a box: what unpacks and removes their
    files."""
    mapping = outer(ids, drop_to)
    if drop_to is not None:
        kernel.become(drop_to[0], drop_to[1])
        kernel.set_dumpable(True)  # else /proc/self/uid_map belongs to the former user
    kernel.unshare(kernel.CLONE_NEWUSER)
    mapping.do()


class Identity(NamedTuple):
    """A user of a box, in numbers, and its home."""

    uid: int
    gid: int
    groups: list[int]
    home: str


def identity(user: str) -> Identity:
    """A user of the box at hand, as Docker finds it: `name`, `number`, either with `:group`. Raises `LookupError` where there
    is none of that name."""
    name, _, group = user.partition(":")
    accounts, groups = _entries("/etc/passwd", 7), _entries("/etc/group", 4)
    account = next((each for each in accounts if each[0] == name), None)
    account = account or next((each for each in accounts if name.isdigit() and each[2] == name), None)
    if account is None and not name.isdigit():
        raise LookupError(f"no user {name} in /etc/passwd")
    uid, gid, home = (int(account[2]), int(account[3]), account[5]) if account else (int(name), 0, "/")
    if group:
        known = next((each[2] for each in groups if each[0] == group), group)
        if not known.isdigit():
            raise LookupError(f"no group {group} in /etc/group")
        gid, groups = int(known), []
    if not (uid <= COUNT and gid <= COUNT):  # the last number there is would leave the command root
        raise LookupError(f"{user} has a number over {COUNT}")
    more = [int(each[2]) for each in groups if account and account[0] in each[3].split(",")]
    return Identity(uid, gid, [each for each in more if each <= COUNT], home)


def _entries(path: str, size: int) -> list[list[str]]:
    """The lines of one of these tables. A box's own root may have put anything there: a pipe, a device, no end."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        raw = os.read(file, _MOST)
    except OSError:
        raw = b""
    finally:
        os.close(file)
    lines = (line.split(":") for line in raw.decode(errors="replace").splitlines())
    return [line for line in lines if len(line) == size and line[2].isdigit() and (size < 7 or line[3].isdigit())]


def main() -> None:
    """`python3 -c ... SETTINGS PROGRAM [ARGUMENT ...]`: runs a program of the host's as root of the
    boxes' users, in the current folder."""
    settings = json.loads(sys.argv[1])
    enter(settings["ids"], settings["drop_to"])
    os.execvp(sys.argv[2], sys.argv[2:])
