"""A reader of nearly-JSON, as language models write it, that never guesses at a value.

Text that is JSON is read by the standard library. Of other text the objects of plain values are taken, wherever they stand
whole: within prose and fences, in an answer that was cut off, behind damage. They may be written in Python's way, with its
literals, quotes and escapes, with commas left over and line breaks inside strings. Anything else, above all a string that
does not end or that goes on behind its closing quote, is damage: it is skipped, never mended, for a mended value could be
another than was meant (json_repair 0.64 closes the last string of an answer that was cut off).
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

LIST = "trajectory"
"""The member whose list holds the objects that count."""

# No alternative of these can match in a second way, so they are possessive throughout: a hostile text costs linear time.
_ESCAPE = r"\\(?:[\"'\\/bfnrt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
_UNENDED = rf"(?:\"(?:[^\"\\]|{_ESCAPE})*+|'(?:[^'\\]|{_ESCAPE})*+)"
_STRING = rf"(?:\"(?:[^\"\\]|{_ESCAPE})*+\"|'(?:[^'\\]|{_ESCAPE})*+')"
_NUMBER = r"-?(?:0|[1-9]\d*+)(?:\.\d++)?+(?:[eE][+-]?\d++)?+(?![\w.])"
_SCALAR = rf"(?:{_STRING}|(?:true|false|null|True|False|None)\b|{_NUMBER})"
_MEMBER = rf"{_STRING}\s*+:\s*+{_SCALAR}\s*+"
_PAIR = re.compile(rf"({_STRING})\s*+:\s*+({_SCALAR})")
_OPENER = re.compile(r"[{\[]")
_OBJECT = re.compile(rf"\{{\s*+(?:{_MEMBER}(?:,\s*+|(?=\}})))*+\}}")
_HEAD = re.compile(rf"(?:\{{\s*+((?:{_MEMBER},\s*+)*+)[\"']{LIST}[\"']\s*+:\s*+)?+\[\s*+")
_COMMA = re.compile(r"\s*+,\s*+|\s*+(?=\])")
_TAIL = re.compile(rf"(?:{_SCALAR}\s*+,?+\s*+)*+\]\s*+(?:,\s*+((?:{_MEMBER}(?:,\s*+|(?=\}})))*+)\}}|(?=\}})|(?!,))")
_DAMAGED = re.compile(
    rf"(?:\]\s*+,\s*+|\{{\s*+)?+(?:{_MEMBER},\s*+)*+(?:{_SCALAR}\s*+,\s*+)*+"
    rf"(?:{_STRING}\s*+:\s*+)?+(?:{_SCALAR}\s*+|{_UNENDED})?+"
)
"""As much as can be read up to a damage, so that no string is looked into of which the beginning was read."""

_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


class Found(NamedTuple):
    """A whole object in a text.

    Attributes:
        members: Its members.
        certain: Whether it stands in a list that was read from its beginning, with no damage before. Elsewhere what looks
            like an object may stand in a string, and the caller has to know better.
    """

    members: dict[str, Any]
    certain: bool


def objects(text: str) -> Iterator[Found]:
    """Yields the whole objects in a text that stand alone or in a list, with what surrounds them (prose, fences) left out."""
    plain = _plain(text)
    if plain is not None:
        yield from plain
        return
    position, damaged = 0, False
    while opener := _OPENER.search(text, position):
        position = opener.start()
        if alone := _OBJECT.match(text, position):
            position = alone.end()
            yield from _found(alone[0], certain=False)
        elif head := _HEAD.match(text, position):
            position, begun = head.end(), head[1] is not None
            yield from _found(head[1] or "", certain=False)
            while entry := _OBJECT.match(text, position):
                position, begun = entry.end(), True
                yield from _found(entry[0], certain=not damaged)
                comma = _COMMA.match(text, position)
                if comma is None:
                    break
                position = comma.end()
            if tail := _TAIL.match(text, position):
                position = tail.end()
                yield from _found(tail[1] or "", certain=False)
            else:
                position = _readable(text, position)
                damaged = damaged or begun
        else:
            position = _readable(text, position)
            damaged = damaged or bool(text[opener.end() : position].strip())  # else it is a bracket in prose
        position = max(position, opener.end())


def _readable(text: str, position: int) -> int:
    """Where reading stops."""
    damage = _DAMAGED.match(text, position)
    return damage.end() if damage else position


def _plain(text: str) -> list[Found] | None:
    """What `objects` gives for a text that is JSON and nothing else; None for any other."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    if "\\ud" in text.lower():
        return None
    try:
        value = json.loads(text, strict=False, object_pairs_hook=members)
    except (ValueError, RecursionError):
        return None
    entries = value.get(LIST) if isinstance(value, dict) else value
    found = [Found(entry, certain=True) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [*found, Found(value, certain=False)] if isinstance(value, dict) else found


def _found(written: str, *, certain: bool) -> Iterator[Found]:
    """The members written in a text; nothing where a value cannot be read or a key stands twice: neither can be trusted."""
    members: dict[str, Any] = {}
    for key, value in _PAIR.findall(written):
        try:
            name, members[name] = _value(key), _value(value)
        except ValueError:
            return
    if members and len(members) == len(_PAIR.findall(written)):
        yield Found(members, certain)


def _value(token: str) -> Any:
    if token[0] not in "\"'":
        return _WORDS[token] if token in _WORDS else json.loads(token)
    text = re.sub(_ESCAPE, lambda m: "/" if m[0] == r"\/" else codecs.decode(m[0], "unicode_escape"), token[1:-1])
    return text.encode("utf-16", "surrogatepass").decode("utf-16")  # joins JSON's surrogate pairs; one alone is an error
