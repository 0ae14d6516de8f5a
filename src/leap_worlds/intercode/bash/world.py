"""One task's two boxes: the student's, and the one in which the gold command shows what should have come of it.

By upstream's rules (princeton-nlp/intercode, `BashEnv`) with three deliberate deviations, wherever `compat` is `intercode`:

1. Every episode and every gold run begins in a fresh box. Upstream resets with git, so that what is written where git
   does not look, and changed modes and times, leak from one episode into the next.
2. A command that runs into the time limit is killed, the gold too. Upstream stops waiting, and it runs on.
3. Nothing that a student does raises. Upstream falls over a bare `cd` (here: "Malformed command") and over the names of
   some new files (here: the reward is told from `git status -z`, and `Parts.upstream_error` says so).

`compat: fixed` is another benchmark: the command is what the student wrote, `cd` works as in a shell, and all that
changed is compared, by path and by content.
"""

from __future__ import annotations

import json
import logging
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from leap_worlds.intercode.bash.quoting import Command, Malformed, read_action, true_argv, upstream_argv
from leap_worlds.intercode.bash.reward import (
    CHECKED,
    Change,
    Parts,
    answer_part,
    content_part,
    diff_part,
    parse_short_status,
    parse_z_status,
    similarity,
)
from leap_worlds.sandbox.base import ExecResult, SandboxGone

if TYPE_CHECKING:
    from leap_worlds.sandbox.base import Sandbox

log = logging.getLogger(__name__)

Compat = Literal["intercode", "fixed"]

TIMED_OUT = "Command timed out"
MALFORMED = "Malformed command"
_CANNOT_START = "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown\r\n"
_WHERE = "/dev/shm/.cwd"  # a file system of its own, which git does not look at
_TELL_WHERE = f"trap 'pwd -P >{_WHERE}' EXIT\n"


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that a world is played by."""

    compat: Compat = "intercode"  # whose they are
    command: float = 10.0  # seconds for a student's command; upstream's limit is 10
    gold: float = 30.0  # seconds for the gold command; upstream has no limit
    output: int = 4 * 2**20  # bytes after which a command is stopped, as one that never ends


@dataclass(frozen=True, slots=True)
class Shown:
    """The outcome of one command."""

    text: str  # upstream's observation
    executed: bool  # whether it ran and ended with exit status 0 (upstream's `action_executed`)
    readable: bool = True  # whether it ended by itself, within the limits, and its output is text


class World:
    """The student's box and what is known of it. Not for two threads at once.

    Attributes:
        gone: Whether a command ended the box itself. That one was stopped, and so is any other: nothing runs any more.

    Args:
        box: A fresh box; closed by whoever gave it. Its image sets upstream's environment variables.
        rules: What it is played by.
        query: What is asked: upstream's first observation, and so the answer of a student that only submits.
    """

    def __init__(self, box: Sandbox, rules: Rules, query: str) -> None:
        self.rules = rules
        self.cwd = "/"
        self.last = query
        self.gone = False
        self._box = box
        self._told: dict[tuple[str, ...], str] = {}  # what git and md5sum said since the last command

    def act(self, action: str) -> Shown:
        """Runs a student's action."""
        self._told.clear()
        try:
            command = self._read(action)
        except Malformed:
            shown = Shown(MALFORMED, executed=False)
        else:
            shown = _shown(self._exec(command.argv, command.cwd, self.rules.command), command)
            if command.moves_to is not None and shown.executed:
                self.cwd = command.moves_to
            if self.rules.compat == "fixed":
                self._follow()
        self.last = shown.text
        return shown

    def run_gold(self, gold: str, *, as_student: bool = False) -> Shown:
        """Runs a gold command, in a box of its own: at the root, and with its own time limit or a student's."""
        self._told.clear()
        try:
            argv = upstream_argv(gold) if self.rules.compat == "intercode" else true_argv(gold)
        except Malformed:
            return Shown(MALFORMED, executed=False, readable=False)
        seconds = self.rules.command if as_student else self.rules.gold
        return _shown(self._exec(argv, "/", seconds), Command(argv, "/"))

    def in_lost_folder(self) -> bool:
        """Whether nothing can start any more, for the working directory does not exist."""
        return self.cwd != "/" and self._exec(("true",), self.cwd, self.rules.command).exec_error == "cwd"

    def short_status(self) -> str:
        """Returns git's short status: what changed."""
        return self._text("/bin/bash", "-c", "git status --short;")

    def z_status(self) -> list[Change]:
        """Returns git's whole status: what changed, file by file."""
        return parse_z_status(self._text("git", "status", "--porcelain", "-z", "--untracked-files=all"))

    def hash(self, change: Change) -> str:
        """Returns what upstream compares of a new file. Of a path without a dot it asks a program that its image does
        not have, so that all of those are alike.

        Raises:
            ValueError: The path cannot be split by the shell's rules; upstream falls over.
        """
        program = "md5sum" if "." in change.path else "md5deep -r"
        return self._text(*shlex.split(f"{program} {change.path}"))

    def content(self, path: str) -> str:
        """The checksum of a file or a link, for `compat: fixed`."""
        link = self._exec(("readlink", "--", path), "/", self.rules.gold)
        return link.output.decode("utf-8", "replace") or self._text("sha256sum", "--", path)

    def _read(self, action: str) -> Command:
        if self.rules.compat == "intercode":
            return read_action(action, self.cwd)
        argv = true_argv(action)
        return Command((*argv[:2], _TELL_WHERE + argv[2]), self.cwd)

    def _follow(self) -> None:
        """Sets the working directory to where the shell was when it ended; it stays where the shell did not say."""
        told = self._exec(("cat", _WHERE), "/", self.rules.command)
        where = told.output.decode("utf-8", "replace").removesuffix("\n")
        if told.exit_code == 0 and where.startswith("/"):
            self.cwd = where

    def _text(self, *argv: str) -> str:
        """What a program prints at the root, or printed since the last command."""
        if argv not in self._told:
            self._told[argv] = _shown(self._exec(argv, "/", self.rules.gold), Command(argv, "/")).text
        return self._told[argv]

    def _exec(self, argv: tuple[str, ...], cwd: str, timeout: float) -> ExecResult:
        if not self.gone:
            try:
                return self._box.exec(list(argv), cwd=cwd, timeout=timeout, max_output=self.rules.output)
            except SandboxGone as error:
                log.warning("%s, by %.200r", error, argv[-1])
                self.gone = True
        return ExecResult(exit_code=137, timed_out=True)


def _shown(result: ExecResult, command: Command) -> Shown:
    if result.exec_error == "cwd":
        problem = f"chdir to cwd ({_quoted(command.cwd)}) set in config.json failed: no such file or directory"
        return Shown(_CANNOT_START.format(problem), executed=False)
    if result.exec_error is not None:
        problem = f"exec: {_quoted(command.argv[0])}: executable file not found in $PATH"
        return Shown(_CANNOT_START.format(problem), executed=False)
    if result.timed_out or result.output_capped:
        return Shown(TIMED_OUT, executed=False, readable=False)
    try:
        return Shown(result.output.decode("utf-8"), executed=result.exit_code == 0)
    except UnicodeDecodeError:
        return Shown(MALFORMED, executed=False, readable=False)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def judge(student: World, gold: World, shown: Shown) -> Parts:
    """The reward of the student's box as it is now, beside the one in which the gold was run and what was shown there."""
    output = shown.text if shown.readable else None
    cosine = similarity(student.last, output)
    compare = _strict if student.rules.compat == "fixed" else _upstream
    missing, extra, common, unlike, error = compare(student, gold)
    return Parts(
        diff=diff_part(len(missing) + len(extra)),
        content=content_part(len(common) - len(unlike), len(common)),
        answer=answer_part(cosine),
        missing=tuple(sorted(missing)),
        extra=tuple(sorted(extra)),
        unlike=tuple(sorted(unlike)),
        similarity=cosine,
        upstream_error=error,
    )


_Compared = tuple[set[Change], set[Change], set[Change], set[Change], str]


def _upstream(student: World, gold: World) -> _Compared:
    try:
        mine, theirs = set(parse_short_status(student.short_status())), set(parse_short_status(gold.short_status()))
        common = {change for change in mine & theirs if change.status in CHECKED}
        unlike = {change for change in common if student.hash(change) != gold.hash(change)}
    except (IndexError, ValueError) as error:
        missing, extra, common, unlike, _ = _strict(student, gold)
        return missing, extra, common, unlike, f"{type(error).__name__}: {error}"
    return theirs - mine, mine - theirs, common, unlike, ""


def _strict(student: World, gold: World) -> _Compared:
    mine, theirs = set(student.z_status()), set(gold.z_status())
    common = {change for change in mine & theirs if "D" not in change.status}
    unlike = {change for change in common if student.content(change.path) != gold.content(change.path)}
    return theirs - mine, mine - theirs, common, unlike, ""
