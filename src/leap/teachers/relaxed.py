"""A reader of nearly-JSON, as language models write it, that never guesses at a value.

What is JSON is read by the standard library, wherever it stands whole: within prose and fences, in an answer that was cut
off, behind damage. Beyond that, objects of plain values may be written in Python's way, with its literals, quotes and
escapes, with commas left over and line breaks inside strings. Anything else, above all a string that does not end or that
goes on behind its closing quote, is damage: it is skipped, never mended, for a mended value could be another than was meant
(json_repair 0.64 closes the last string of an answer that was cut off).
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

_MOST_FAILURES = 200  # more than an answer has steps
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
    """Yields the whole objects in a text that stand alone or in a list, with what surrounds them (prose, fences) left out. An
    object that is a member's value is a part of that member; only the list named `LIST` holds objects of its own."""
    position, damaged, reader = 0, False, _JSON()
    while opener := _OPENER.search(text, position):
        position = opener.start()
        if json_value := reader.at(text, position):
            value, position = json_value
            entries = value.get(LIST) if isinstance(value, dict) else value
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, dict):
                    yield Found(entry, not damaged)
            if isinstance(value, dict):
                yield Found(value, certain=False)
        elif alone := _OBJECT.match(text, position):
            position = alone.end()
            yield from _found(alone[0], certain=False)
        elif head := _HEAD.match(text, position):
            position, begun = head.end(), head[1] is not None
            yield from _found(head[1] or "", certain=False)
            while entry := _entry(reader, text, position, certain=not damaged):
                found, position = entry
                begun = True
                yield from found
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


def _entry(reader: _JSON, text: str, position: int, *, certain: bool) -> tuple[list[Found], int] | None:
    """The object that begins here, if it is whole, and where it ends."""
    if text.startswith("{", position) and (whole := reader.at(text, position)):
        return [Found(whole[0], certain)], whole[1]
    written = _OBJECT.match(text, position)
    return (list(_found(written[0], certain=certain)), written.end()) if written else None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("of two values of one key, neither can be trusted")
    for text in (text for pair in pairs for text in pair if isinstance(text, str)):
        text.encode()  # an error where it holds half of a surrogate pair
    return members


class _JSON:
    """Reads JSON with the standard library. After many failures it tries no more: each may take as long as the text is."""

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder(strict=False, object_pairs_hook=_members)
        self._failures = 0

    def at(self, text: str, position: int) -> tuple[Any, int] | None:
        """The value that begins here and where it ends; None where it is not JSON from its beginning to its end."""
        if self._failures < _MOST_FAILURES:
            try:
                return self._decoder.raw_decode(text, position)
            except (ValueError, RecursionError):
                self._failures += 1
        return None


def _readable(text: str, position: int) -> int:
    """Where reading stops."""
    damage = _DAMAGED.match(text, position)
    return damage.end() if damage else position


def _found(written: str, *, certain: bool) -> Iterator[Found]:
    """The members written in a text; nothing where there is none or a value cannot be read."""
    try:
        members = _members([(_value(key), _value(value)) for key, value in _PAIR.findall(written)])
    except ValueError:
        return
    if members:
        yield Found(members, certain)


def _value(token: str) -> Any:
    if token[0] not in "\"'":
        return _WORDS[token] if token in _WORDS else json.loads(token)
    text = re.sub(_ESCAPE, lambda m: "/" if m[0] == r"\/" else codecs.decode(m[0], "unicode_escape"), token[1:-1])
    return text.encode("utf-16", "surrogatepass").decode("utf-16")  # joins JSON's surrogate pairs; one alone is an error
