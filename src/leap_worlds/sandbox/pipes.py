"""A program's standard input and output as pipes: read and written within limits of time and size."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import IO

from leap_worlds.sandbox import base

WRITE_TIMEOUT = 15.0
"""Seconds until a program that does not read its input is given up."""


def read_output(pipe: IO[bytes], deadline: float, max_output: int) -> tuple[bytes, bool]:
    """Reads until the end, the deadline (by `time.monotonic()`), or more bytes than a command may print. Returns what
    was read, which may be too long by a part, and whether the deadline came before the end."""
    output = bytearray()
    while len(output) <= max_output:
        left = deadline - time.monotonic()
        if left <= 0 or not _ready(pipe.fileno(), select.POLLIN, left):
            return bytes(output), True
        part = os.read(pipe.fileno(), 65536)
        if not part:
            break
        output += part
    return bytes(output), False


class PipeChannel(base.Channel):
    """A program's standard input and output as two pipe ends."""

    def __init__(self, stdin: int, stdout: int, *, kill: Callable[[], None]) -> None:
        self._stdin, self._stdout, self._kill = stdin, stdout, kill
        self._pending = b""
        for end in (stdin, stdout):  # a program that opens its own output to read may take what was ready
            os.set_blocking(end, False)

    def write(self, data: bytes) -> None:
        deadline = time.monotonic() + WRITE_TIMEOUT
        while data:
            left = deadline - time.monotonic()
            if left <= 0 or not _ready(self._stdin, select.POLLOUT, left):
                raise base.SandboxError("the program in the sandbox does not read its input")
            try:
                data = data[os.write(self._stdin, data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise base.SandboxError("the program in the sandbox is gone") from error

    def read_line(self, *, timeout: float, max_bytes: int = base.DEFAULT_MAX_OUTPUT) -> bytes | None:
        deadline = time.monotonic() + timeout
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or self._stdout < 0 or len(self._pending) > max_bytes:
                return None
            if not _ready(self._stdout, select.POLLIN, left):
                return None
            try:
                part = os.read(self._stdout, 65536)
            except BlockingIOError:
                continue
            if not part:
                return None
            self._pending += part
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def kill(self) -> None:
        if self._stdin >= 0:
            self._kill()
            self._close()

    def _close(self) -> None:
        os.close(self._stdin)
        os.close(self._stdout)
        self._stdin = self._stdout = -1

    def __del__(self) -> None:
        if self._stdin >= 0:
            self._close()


def _ready(fd: int, event: int, timeout: float) -> bool:
    """Whether a pipe end can be read or written within some seconds. By `poll`: a process with more than 1,023 open
    files cannot use `select`."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(timeout * 1000))
