"""How an output is shortened for a prompt, and which names in a text the leak check looks at."""

from __future__ import annotations

import re

SUBMIT = "submit"
"""The action that ends an episode and is scored."""

_PATH = re.compile(r"(?<![\w.@^\\*/])(?:~?/|\.{1,2}/)?(?:[\w.-]+/)*[\w.-]*\w")
_FILE_NAME = re.compile(r"^\.?[\w-]+(?:\.[A-Za-z]\w{0,4})+$")


def shorten_output(text: str, limit: int) -> str:
    """The beginning and the end of a long text, with a line between them that says how much is left out."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]}\n[... {len(text) - head - tail:,} characters left out ...]\n{text[len(text) - tail :]}"


def paths_in(text: str) -> set[str]:
    """Names of files and folders in a text or a command: what has a slash, and what looks like a file's name.

    A pattern counts by the folder before its first special character; the root, `/dev/null` and numbers do not count.
    """
    found = set()
    for match in _PATH.finditer(text):
        name = match.group().rstrip(".")
        wild = text[match.end() : match.end() + 1] in ("*", "?", "[", "{", "$")
        if wild:
            name = name.rpartition("/")[0]
        slash = "/" in name.strip("/") or name.startswith(("/", "~/"))
        if (slash or _FILE_NAME.match(name)) and name.strip("/.~") and name != "/dev/null":
            found.add(name.rstrip("/"))
    return found
