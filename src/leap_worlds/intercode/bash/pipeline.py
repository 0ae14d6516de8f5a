"""A gold pipeline as stages that can be built up one after another: `a | b | c` is `a`, then `a | b`, then the whole."""

from __future__ import annotations

import re

_OPENERS = {"(": ")", "{": "}"}
_PIECES = re.compile(r"""\\.?|'[^']*'|"[^"]*"|['"]|[^\\'"]+""", re.DOTALL)


def prefixes(command: str) -> list[str]:
    """The command's beginnings up to each of its top-level pipes, the whole last.

    Pipes within quotes, substitutions, groups and behind a backslash are none; `||` is none; a command that is more
    than one pipeline (`;`, `&&`, `||`, a line break) is one stage, for a part of it would do something else.
    """
    cuts = []
    for position, separator in _separators(command):
        if separator in (";", "&&", "||", "\n") and command[position + len(separator) :].strip():
            return [command]
        if separator == "|":
            cuts.append(position)
    found = [command[:cut].strip() for cut in cuts]
    return [*(prefix for prefix in found if prefix), command]


def program(stage: str) -> str:
    """The program of the last stage of a pipeline, without its folder; empty where there is none."""
    pipes = [position for position, separator in _separators(stage) if separator == "|"]
    last = stage[pipes[-1] + 1 :] if pipes else stage
    words = [word for word in last.split() if not re.fullmatch(r"\w+=\S*", word)]
    return words[0].rpartition("/")[2].strip("'\"`$()") if words else ""


def single_quoted(command: str) -> str | None:
    """The command with single quotes in place of double ones, wherever that means the same to a shell.

    Returns:
        The command; None where nothing would change, or a quoted text needs its double quotes (`$`, a backquote, a
        backslash, a single quote within).
    """
    parts: list[str] = []
    for piece in _PIECES.findall(command):
        if piece in ("'", '"') or (piece[0] == '"' and any(special in piece[1:-1] for special in "$`\\'")):
            return None  # a quote without end, or double quotes that are needed
        parts.append(f"'{piece[1:-1]}'" if piece[0] == '"' else piece)
    mended = "".join(parts)
    return mended if mended != command else None


def _separators(command: str) -> list[tuple[int, str]]:
    """Positions of `|`, `||`, `;`, `&&` and line breaks that are outside of everything that quotes or groups."""
    found: list[tuple[int, str]] = []
    closers: list[str] = []
    position = 0
    while position < len(command):
        sign, pair = command[position], command[position : position + 2]
        top = closers[-1] if closers else ""
        step = 1
        if sign == "\\" and top != "'":
            step = 2
        elif top in ("'", '"', "`"):
            if sign == top:
                closers.pop()
            elif top == '"' and pair == "$(":
                closers.append(")")
                step = 2
            elif top == '"' and sign == "`":
                closers.append("`")
        elif sign in "'\"`":
            closers.append(sign)
        elif sign in _OPENERS and (sign == "(" or pair in ("{ ", "{\n") or command[position - 1 : position] == "$"):
            closers.append(_OPENERS[sign])
        elif closers and sign == top:
            closers.pop()
        elif not closers:
            if pair in ("||", "&&"):
                found.append((position, pair))
                step = 2
            elif sign in "|;\n":
                found.append((position, sign))
        position += step
    return found
