"""A terminal in a box: commands with a working directory that stays, files written and read, and what is shown of them."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from leap_worlds.intercode.text import shorten_output
from leap_worlds.sandbox.base import DEFAULT_MAX_OUTPUT, ExecResult, Sandbox, SandboxGone

SHELL = 'trap \'leap_code=$?; printf "\\n%s%s\\n" "$0" "$PWD"; exit $leap_code\' EXIT; eval "$1"'
"""Runs a text as a shell would, then tells the working directory behind a mark that is new each time. A text that ends the shell
in another way leaves the working directory as it was."""
WRITE = 'mkdir -p -- "$(dirname -- "$1")" && cat > "$1"'
READ = 'if [ -d "$1" ]; then echo "$1: is a folder"; exit 1; fi; cat -- "$1"'
GONE = "The terminal has ended, and all that was in it is lost."


@dataclass(frozen=True)
class Shown:
    """What came of one action.

    Attributes:
        text: What a student is shown.
        exit_code: The exit status.
        seconds: How long it took.
        gone: Whether the box has ended.
    """

    text: str
    exit_code: int = 0
    seconds: float = 0.0
    gone: bool = False


class Terminal:
    """One student's terminal. Each command is a shell of its own: files, the working directory and what runs in the background
    stay, variables do not.

    Args:
        box: Where it runs.
        workdir: The working directory at first.
        env: The environment of each command.
        limit: Longest output shown, in characters.
        seconds: Most that one command may take.
    """

    def __init__(self, box: Sandbox, workdir: str, env: Mapping[str, str], *, limit: int, seconds: float) -> None:
        self.box, self.cwd, self.env = box, workdir, dict(env)
        self.user = ""
        self._limit, self._seconds = limit, seconds

    def moved(self, box: Sandbox) -> Terminal:
        """The same terminal in another box."""
        made = copy.copy(self)
        made.box = box
        return made

    def bash(self, command: str, seconds: float | None = None) -> Shown:
        """Runs a command of any number of lines."""
        mark = f"leap-{secrets.token_hex(8)}:"
        limit = self._seconds if seconds is None else min(seconds, self._seconds)
        return self._shown(["/bin/bash", "-c", SHELL, mark, command], limit, mark)

    def write(self, path: str, content: str) -> Shown:
        """Writes a file, with the folders above it."""
        shown = self._shown(
            ["/bin/sh", "-c", WRITE, "sh", self._whole(path)], self._seconds, given=content.encode(errors="replace")
        )
        done = f"{len(content.encode(errors='replace')):,} bytes were written to {path}."
        return Shown(done, 0, shown.seconds) if shown.exit_code == 0 and not shown.gone else shown

    def read(self, path: str) -> Shown:
        """Shows a file."""
        return self._shown(["/bin/sh", "-c", READ, "sh", self._whole(path)], self._seconds)

    def _whole(self, path: str) -> str:
        return str(PurePosixPath(self.cwd) / path)

    def _shown(self, argv: list[str], seconds: float, mark: str = "", given: bytes = b"") -> Shown:
        begun = time.monotonic()

        def run(cwd: str) -> ExecResult:
            return self.box.exec(argv, cwd=cwd, env=self.env, timeout=seconds, input=given, user=self.user)

        try:
            result, lost = run(self.cwd), ""
            if result.exec_error == "cwd":  # the student may have removed it
                lost, self.cwd = self.cwd, "/"
                result = run("/")
        except SandboxGone:
            return Shown(GONE, 137, time.monotonic() - begun, gone=True)
        taken = time.monotonic() - begun
        text = result.output.decode(errors="replace")
        if mark:
            text, found, told = text.rpartition(f"\n{mark}")
            text = text if found else told
            if found:
                self.cwd = told.partition("\n")[0] or self.cwd
                text += told.partition("\n")[2]  # what something in the background has said since
        text = shorten_output(text, self._limit).rstrip("\n")
        lines = [text] if text.strip() else []
        if lost:
            lines.append(f"[{lost} is gone; the working directory is / now]")
        lines.append(_status(result, seconds, taken))
        return Shown("\n".join(lines), result.exit_code, taken)


def _status(result: ExecResult, seconds: float, taken: float) -> str:
    """The last line of an observation: how the command ended."""
    if result.timed_out:
        return f"[stopped after {seconds:g} s; everything that was running has ended]"
    if result.output_capped:
        return f"[stopped after {DEFAULT_MAX_OUTPUT // 2**20} MiB of output; everything that was running has ended]"
    if result.exec_error:
        return "[the command could not be started]"
    return f"[exit code {result.exit_code}{f', {taken:.0f} s' if taken >= 1.5 else ''}]"


def wait_until_healthy(
    run: Callable[[float], int], *, interval: float, timeout: float, start: float, retries: int
) -> bool:
    """Waits until a check succeeds.

    Args:
        run: Runs the check with a time limit and returns its exit status.
        interval: Seconds between checks.
        timeout: Seconds for one check.
        start: Seconds at the beginning in which a failure does not count.
        retries: Failures that end the waiting.
    """
    begun, failures = time.monotonic(), 0
    while run(timeout) != 0:
        if time.monotonic() - begun >= start:
            failures += 1
            if failures >= max(retries, 1):
                return False
        time.sleep(interval)
    return True
