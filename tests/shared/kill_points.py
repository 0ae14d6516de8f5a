"""Kills a run at any of its file operations, without a change in it: the kernel asks before each one (seccomp user notification).

    python tests/shared/kill_points.py FOLDER          a server of `leap run`s, which `Warm` starts and talks to

The server has imported everything once and forks for each run, so that a run starts at once; what is forked calls leap's own
`main`. Before that it installs a filter under which every system call that changes files waits until the server lets it go on:
in all threads, whatever library makes it, in whatever language. The server names each call that is about a file below FOLDER
("write iter-1/rows.jsonl", the third) and lets it go on; or it kills the process and its group there and then: before the call,
or after it has done the first half of a write itself. So the process never runs past the moment that was chosen.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import io
import json
import os
import platform
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_LIBC = ctypes.CDLL(None, use_errno=True)
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
# Number of each call, then which of its arguments are: a folder to start from (or None), a path; or a file.
_PATHS: dict[str, dict[str, tuple[int, list[tuple[int | None, int]]]]] = {
    "x86_64": {
        "open": (2, [(None, 0)]), "creat": (85, [(None, 0)]), "openat": (257, [(0, 1)]), "openat2": (437, [(0, 1)]),
        "rename": (82, [(None, 0), (None, 1)]), "renameat": (264, [(0, 1), (2, 3)]), "renameat2": (316, [(0, 1), (2, 3)]),
        "link": (86, [(None, 0), (None, 1)]), "linkat": (265, [(0, 1), (2, 3)]),
        "symlink": (88, [(None, 1)]), "symlinkat": (266, [(1, 2)]),
        "unlink": (87, [(None, 0)]), "unlinkat": (263, [(0, 1)]), "rmdir": (84, [(None, 0)]),
        "mkdir": (83, [(None, 0)]), "mkdirat": (258, [(0, 1)]),
        "chmod": (90, [(None, 0)]), "fchmodat": (268, [(0, 1)]), "truncate": (76, [(None, 0)]),
    },
    "aarch64": {
        "openat": (56, [(0, 1)]), "openat2": (437, [(0, 1)]),
        "renameat": (38, [(0, 1), (2, 3)]), "renameat2": (276, [(0, 1), (2, 3)]), "linkat": (37, [(0, 1), (2, 3)]),
        "symlinkat": (36, [(1, 2)]), "unlinkat": (35, [(0, 1)]), "mkdirat": (34, [(0, 1)]),
        "fchmodat": (53, [(0, 1)]), "truncate": (45, [(None, 0)]),
    },
}  # fmt: skip
_FILES: dict[str, dict[str, tuple[int, int]]] = {
    "x86_64": {
        "write": (1, 0), "pwrite": (18, 0), "writev": (20, 0), "pwritev": (296, 0), "pwritev2": (328, 0),
        "ftruncate": (77, 0), "fallocate": (285, 0), "fsync": (74, 0), "fdatasync": (75, 0), "fchmod": (91, 0),
        "sendfile": (40, 0), "copy_file_range": (326, 2), "close": (3, 0),
    },
    "aarch64": {
        "write": (64, 0), "pwrite": (68, 0), "writev": (66, 0), "pwritev": (70, 0), "pwritev2": (287, 0),
        "ftruncate": (46, 0), "fallocate": (47, 0), "fsync": (82, 0), "fdatasync": (83, 0), "fchmod": (52, 0),
        "sendfile": (71, 0), "copy_file_range": (285, 2), "close": (57, 0),
    },
}  # fmt: skip
_FLAGS = {"open": 1, "openat": 2}
"""Which argument says how a file is opened. Who opens one to read it is not asked about."""
_WRITES = {"write", "pwrite", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range"}
_IO_URING = 425
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ALLOW, _ASK, _UNKNOWN = 0x7FFF0000, 0x7FC00000, 0x00050000 | 38
_RECEIVE, _SEND = 0xC0502100, 0xC0182101


def supported() -> bool:
    """Whether this machine can do all that."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or not hasattr(os, "pidfd_open"):
        return False
    return _LIBC.syscall(_SECCOMP[platform.machine()], 3, 0, (ctypes.c_uint16 * 3)()) == 0


class Point(NamedTuple):
    """A moment of a run.

    Attributes:
        what: A file operation: its kind and its file, relative to the folder, without what chance gives.
        number: Which of this name, from 1.
        half: Whether the first half of what is written goes out.
    """

    what: str
    number: int
    half: bool = False

    def __str__(self) -> str:
        return f"{'half of ' if self.half else ''}{self.what} ({self.number})"


@dataclass
class Ended:
    """How a run ended.

    Attributes:
        code: Its exit status; that of a killed one is -9.
        output: What it said.
        points: Its file operations, in order.
        seconds: How long it took.
    """

    code: int
    output: str
    points: list[Point] = field(default_factory=list)
    seconds: float = 0.0


class Warm:
    """A server of runs, in a process of its own. A context manager.

    Args:
        folder: Where the runs work; only files below it count.
        modules: Modules that it imports beside the usual ones, such as one that registers an environment.
        under: A command that runs it, such as strace.
    """

    def __init__(self, folder: Path, modules: Sequence[str] = (), under: Sequence[str] = ()) -> None:
        self._folder, self._modules, self._under = folder, modules, under
        self.warm = False  # until a whole run has shown what it imports

    def __enter__(self) -> Warm:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [*self._under, sys.executable, __file__, str(self._folder), *self._modules]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # which ends it
        self._process.wait(60)

    def run(
        self,
        arguments: Sequence[str],
        *,
        kill: Point | None = None,
        after: float | None = None,
        environment: Mapping[str, str] | None = None,
        watch: bool = True,
    ) -> Ended:
        """`leap ARGUMENTS`, from its start to its end.

        Args:
            arguments: What follows `leap` on the command line.
            kill: Where it is killed.
            after: Seconds after which it is killed.
            environment: Environment variables beside those there are.
            watch: Whether the kernel asks about file operations; without, there are no points.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        asked = {"arguments": list(arguments), "kill": kill, "after": after, "environment": dict(environment or {})}
        print(json.dumps(asked | {"watch": watch or kill is not None}), file=self._process.stdin, flush=True)
        told = json.loads(self._process.stdout.readline())
        self.warm = self.warm or told["code"] == 0
        return Ended(**told | {"points": [Point(*point) for point in told["points"]]})


_WARMED = {"torch", "transformers", "accelerate", "tokenizers", "safetensors", "trl", "peft", "datasets", "numpy", "pandas"}
_WARMED |= {"leap", "leap_worlds", "leap_lab", "openai", "httpx2", "jinja2", "yaml", "rich", "sqlite3", "asyncio"}

# ---- the server ------------------------------------------------------------------------------------------------------


def serve(folder: Path, modules: Sequence[str]) -> None:
    """Reads what to run from standard input, a line of JSON each, and says how it ended, likewise."""
    for name in ("torch", "leap.cli.app", *modules):
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    known: set[str] = set()
    log = folder.parent / f"{folder.name}.log"
    for line in sys.stdin:
        asked = json.loads(line)
        gc.collect()
        gc.freeze()  # so that no run looks through what was imported for it
        kill = Point(*asked["kill"]) if asked["kill"] else None
        began = time.monotonic()
        ended = _one(folder, log, asked["arguments"], asked["environment"], kill, asked["after"], asked["watch"])
        ended.seconds = round(time.monotonic() - began, 3)
        answers.write(json.dumps(vars(ended)) + "\n")
        answers.flush()
        if ended.code == 0 and not known:  # what a whole run has imported, the next find here
            known = set(json.loads(log.with_suffix(".modules").read_text()))
            for name in sorted(known):
                if name.split(".")[0] in _WARMED:
                    with suppress(Exception):
                        importlib.import_module(name)


def _one(
    folder: Path,
    log: Path,
    arguments: list[str],
    environment: dict[str, str],
    kill: Point | None,
    after: float | None,
    watch: bool,
) -> Ended:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        _run(log, arguments, environment, theirs if watch else None)
    theirs.close()
    points: list[Point] = []
    code = _attend(folder, child, ours if watch else None, points, kill, after)
    ours.close()
    return Ended(code, log.read_text(errors="replace"), points)


def _run(log: Path, arguments: list[str], environment: dict[str, str], door: socket.socket | None) -> None:
    """The rest of a forked process's life."""
    code = 70
    try:
        os.setsid()
        os.environ.update(environment)
        nothing, told = os.open("/dev/null", os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(nothing, 0), os.dup2(told, 1), os.dup2(told, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), line_buffering=True, write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), line_buffering=True, write_through=True)
        if door is not None:
            listener = _filtered()
            socket.send_fds(door, [b"x"], [listener])
            os.close(listener)
            door.close()
        from leap.cli import main

        sys.argv = ["leap", *arguments]
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code == 0:
            log.with_suffix(".modules").write_text(json.dumps(list(sys.modules)))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _filtered() -> int:
    """Has the kernel ask about every call that changes files, of this process and of what it starts; returns where it asks."""
    machine = platform.machine()
    program: list[tuple[int, int, int, int]] = [(0x20, 0, 0, 4), (0x15, 1, 0, _ARCHITECTURES[machine]), (0x06, 0, 0, _ALLOW)]
    program.append((0x20, 0, 0, 0))
    for name, (number, *_) in (*_PATHS[machine].items(), *_FILES[machine].items()):
        if name in _FLAGS:
            low = 16 + 8 * _FLAGS[name]
            program += [(0x15, 0, 4, number), (0x20, 0, 0, low), (0x45, 0, 1, _TO_WRITE), (0x06, 0, 0, _ASK)]
            program.append((0x06, 0, 0, _ALLOW))
        else:
            program += [(0x15, 0, 1, number), (0x06, 0, 0, _ASK)]
    program += [(0x15, 0, 1, _IO_URING), (0x06, 0, 0, _UNKNOWN)]  # whose writes nobody could ask about
    program.append((0x06, 0, 0, _ALLOW))
    code = b"".join(struct.pack("HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filters = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    holder = ctypes.create_string_buffer(filters, len(filters))
    _LIBC.prctl(38, 1, 0, 0, 0)  # no new privileges
    listener = _LIBC.syscall(_SECCOMP[machine], 1, 1 << 3, holder)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "the kernel takes no filter")
    return listener


def _attend(
    folder: Path, child: int, door: socket.socket | None, points: list[Point], kill: Point | None, after: float | None
) -> int:
    """Answers the kernel until a run has ended or is killed; returns its exit status."""
    calls = {number: name for name, (number, *_) in (*_PATHS[_MACHINE].items(), *_FILES[_MACHINE].items())}
    deadline = None if after is None else time.monotonic() + after
    ended, listener, poll = os.pidfd_open(child), None, select.poll()
    poll.register(ended, select.POLLIN)
    if door is not None:
        _, (listener, *_), _, _ = socket.recv_fds(door, 1, 1)
        poll.register(listener, select.POLLIN)
    counts: Counter[str] = Counter()
    while True:
        ready = poll.poll(None if deadline is None else max(0.0, 1000 * (deadline - time.monotonic())))
        if not ready:
            os.killpg(child, signal.SIGKILL)
            deadline = None
        if any(fd == listener and event & select.POLLIN for fd, event in ready):
            asked = bytearray(80)
            try:
                fcntl.ioctl(listener, _RECEIVE, asked)  # type: ignore[arg-type]
            except OSError:  # whoever asked is dead
                continue
            number, thread, _, call, _, _, *arguments = struct.unpack("QIIiIQ6Q", asked)
            kind = calls[call]
            with suppress(OSError):
                if (what := _named(folder, thread, kind, arguments)) is not None:
                    counts[what] += 1
                    point = Point(what, counts[what])
                    points.append(point)
                    if kill is not None and (kill.what, kill.number) == (what, counts[what]):
                        if kill.half:
                            _write_half(thread, kind, arguments)
                        os.killpg(child, signal.SIGKILL)
                        kill = None
                        continue
            with suppress(OSError):
                fcntl.ioctl(listener, _SEND, struct.pack("QqiI", number, 0, 0, 1))  # type: ignore[arg-type]
        elif any(fd == ended for fd, _ in ready):
            os.close(ended)
            if listener is not None:
                os.close(listener)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        elif listener is not None and any(fd == listener for fd, _ in ready):
            poll.unregister(listener)


_MACHINE = platform.machine()
_CHANCE = (
    (re.compile(r"\.\d+(-[0-9a-f]{8})?\.tmp\b"), ".#.tmp"),
    (re.compile(r"\.tmp[A-Za-z0-9]{6}\b"), ".tmp#"),
    (re.compile(r"\b[0-9a-f]{24,64}\b(\.[a-z0-9_]{8}\.partial)?"), lambda found: "KEY" + (".partial" if found[1] else "")),
    (re.compile(r"\bcheckpoint-\d+"), "checkpoint-#"),
    (re.compile(r"/json_2\.1\.1/.*?(/[\w.-]*\.[\w-]+)?$"), r"/GAMES\1"),
    (re.compile(r"\bbaselines/[^/]+"), "baselines/#"),
    (re.compile(r"\biter-\d+/(?=training|\.?checkpoint)"), "iter-#/"),
)
"""What differs in the names of files from run to run, or counts games, steps and the like: operations that one place in the code
makes on files of one kind have one name."""


def _named(folder: Path, thread: int, kind: str, arguments: Sequence[int]) -> str | None:
    """Kind and file of a call; None of one that is about no file below the folder."""
    if kind in _FILES[_MACHINE]:
        number = arguments[_FILES[_MACHINE][kind][1]] & 0xFFFFFFFF
        path = str(Path(f"/proc/{thread}/fd/{number}").readlink())
        if not path.startswith(f"{folder}/"):
            return None
        if kind == "close" and not _writable(thread, number):
            return None
        return f"{kind} {_role(folder, path)}"
    paths = []
    for start, at in _PATHS[_MACHINE][kind][1]:
        path = _text(thread, arguments[at])
        if not path.startswith("/"):
            number = -100 if start is None else ctypes.c_int(arguments[start] & 0xFFFFFFFF).value
            path = str(Path(f"/proc/{thread}/{'cwd' if number == -100 else f'fd/{number}'}").readlink() / path)
        paths.append(os.path.normpath(path))
    if not any(path.startswith(f"{folder}/") for path in paths):
        return None
    return f"{kind} {' -> '.join(_role(folder, path) for path in paths)}"


def _role(folder: Path, path: str) -> str:
    role = path.removeprefix(f"{folder}/").removesuffix(" (deleted)")
    for pattern, by in _CHANCE:
        role = pattern.sub(by, role)
    return role


def _flags(thread: int, number: int) -> tuple[int, int]:
    """Place and flags of an open file."""
    told = dict(line.split(":\t") for line in Path(f"/proc/{thread}/fdinfo/{number}").read_text().splitlines()[:2])
    return int(told["pos"]), int(told["flags"], 8)


def _writable(thread: int, number: int) -> bool:
    return bool(_flags(thread, number)[1] & (os.O_WRONLY | os.O_RDWR))


def _memory(thread: int, address: int, length: int) -> bytes:
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(length) or b""


def _text(thread: int, address: int) -> str:
    found = b""
    while b"\0" not in found:  # a page at a time: the next may not be there
        found += _memory(thread, address + len(found), 4096 - (address + len(found)) % 4096)
    return os.fsdecode(found.split(b"\0", 1)[0])


def _write_half(thread: int, kind: str, arguments: Sequence[int]) -> None:
    """Does the first half of a write in a process's place."""
    number = arguments[_FILES[_MACHINE][kind][1]] & 0xFFFFFFFF
    place, flags = _flags(thread, number)
    match kind:
        case "write" | "pwrite":
            data = _memory(thread, arguments[1], arguments[2])
        case "writev" | "pwritev" | "pwritev2":
            vectors = struct.iter_unpack("QQ", _memory(thread, arguments[1], 16 * arguments[2]))
            data = b"".join(_memory(thread, address, length) for address, length in vectors)
        case _:  # from file to file
            source = (arguments[1] if kind == "sendfile" else arguments[0]) & 0xFFFFFFFF
            at = arguments[2] if kind == "sendfile" else arguments[1]
            begin = struct.unpack("q", _memory(thread, at, 8))[0] if at else _flags(thread, source)[0]
            with Path(f"/proc/{thread}/fd/{source}").open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), min(arguments[3 if kind == "sendfile" else 4], 1 << 30), begin)
    if kind.startswith("pwrite"):
        place = arguments[3]
    file = os.open(f"/proc/{thread}/fd/{number}", os.O_WRONLY | (flags & os.O_APPEND))
    os.pwrite(file, data[: len(data) // 2], place)
    os.close(file)


if __name__ == "__main__":
    sys.modules["kill_points"] = sys.modules["__main__"]
    serve(Path(sys.argv[1]).resolve(), sys.argv[2:])
