"""From an action to the command that is run: upstream's rules, and the true ones.

Source: princeton-nlp/intercode, `intercode/envs/bash/bash_env.py` (`clean_cmd`, `exec_action`, `simplify_path`).
Upstream puts the action between double quotes and lets docker-py split the whole by the shell's rules, so a double
quote within the action is eaten, and what follows a quoted space is no part of the command any more. That moves scores,
so it is kept.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """What to run."""

    argv: tuple[str, ...]
    cwd: str  # absolute
    moves_to: str | None = None  # the working directory from then on, if the command succeeds; None where it stays


class Malformed(ValueError):
    """An action of which no command can be made; upstream answers "Malformed command", or falls over."""


def is_submit(action: str) -> bool:
    """Whether the action submits. Upstream's rule: it begins with the word."""
    return action.startswith("submit")


def read_action(action: str, cwd: str) -> Command:
    """The command of an action by upstream's rules.

    Args:
        action: Any text.
        cwd: The present working directory, absolute; after a `cd` with more behind it, no directory at all.

    Raises:
        Malformed: No command can be made of it: an unbalanced quote, a `cd` without a blank behind it, a NUL.
    """
    if not action.startswith("cd"):
        return Command(upstream_argv(action), cwd)
    _, found, argument = action.partition("cd ")
    if not found:
        raise Malformed("cd without a directory")  # upstream: ValueError out of step
    target = simplify_path(cwd, argument.strip())
    return Command(upstream_argv(f"cd {target}"), "/", moves_to=target)


def upstream_argv(command: str) -> tuple[str, ...]:
    """`/bin/bash -c "<command>"`, split as docker-py does; raises `Malformed` where it cannot be."""
    _check_text(command)
    try:
        return tuple(shlex.split(f'/bin/bash -c "{command.strip()}"'))
    except ValueError as error:
        raise Malformed(str(error)) from error


def true_argv(command: str) -> tuple[str, ...]:
    """The command as it stands, for `compat: fixed`; raises `Malformed` where no program can be given it."""
    _check_text(command)
    return ("/bin/bash", "-c", command)


def simplify_path(current: str, changed: str) -> str:
    """Where `cd changed` leads by upstream's rule: by the text alone, with no `~`, no variables and no links followed."""
    if not changed:
        return current
    parts: list[str] = []
    for part in (changed if changed.startswith("/") else f"{current}/{changed}").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _check_text(command: str) -> None:
    if "\0" in command:
        raise Malformed("a NUL character")
    try:
        command.encode()
    except UnicodeEncodeError as error:
        raise Malformed(str(error)) from error
