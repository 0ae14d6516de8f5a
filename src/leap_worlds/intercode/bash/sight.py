"""What a student has seen of the file system, and how to see more of it."""

from __future__ import annotations

import re

from leap.core import History
from leap_worlds.intercode.text import paths_in

_LOOKS = re.compile(r"^\s*(?:ls|find|tree|cat|head|tail|file|stat|pwd|du|wc|less|more)\b(?!.*(?:-delete|-exec|>|\brm\b|\bmv\b))")
_COMMON = frozenset(
    f"/{name}"
    for name in (
        *("etc", "usr", "var", "var/log", "bin", "home", "root", "tmp", "proc", "dev", "opt", "lib", "bin/echo", "bin/bash"),
        *("bin/sh", "etc/hosts", "etc/group", "etc/passwd", "etc/networks"),
    )
) | {"~"}
"""Places that are known to be on any such system."""


def is_look(action: str) -> bool:
    """Whether an action only looks at something."""
    return bool(_LOOKS.match(action)) and "|" not in action


def unseen(command: str, history: History) -> list[str]:
    """Paths that a command names and that the student can have neither read in the task nor seen, the shortest first."""
    text = _known_text(history)
    return sorted((p for p in paths_in(command) if not _known(p, text)), key=lambda path: (path.count("/"), path))


def look_for(command: str, history: History) -> str | None:
    """A look at where the first path that was not seen yet should be; None where all is known or was looked for already."""
    text = _known_text(history)
    for path in unseen(command, history):
        folder = _nearest_known(path, text)
        look = f"ls -la {folder}"
        if look not in history.actions:
            return look
    return None


def first_look(history: History) -> str | None:
    """A look at what the task is about, for someone who has not looked at anything yet."""
    if any(is_look(action) for action in history.actions):
        return None
    told = [path for path in paths_in(history.task.instruction) if path.startswith("/")]
    told.sort(key=lambda path: history.task.instruction.find(path))
    return f"ls -la {told[0] if told else '.'}"


def _known_text(history: History) -> str:
    return "\n".join([history.task.instruction, *history.actions, *(o.text for o in history.observations)])


def _known(path: str, text: str) -> bool:
    if path in _COMMON or path in text or path.lstrip("./") in text:
        return True
    parent, _, name = path.rpartition("/")
    return bool(re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text)) and (not parent or _known(parent, text))


def _nearest_known(path: str, text: str) -> str:
    parent = path.rpartition("/")[0]
    while parent and not _known(parent, text):
        parent = parent.rpartition("/")[0]
    return parent or ("/" if path.startswith("/") else ".")
