"""A reader of nearly-JSON, as language models write it, that never guesses at a value.

Beyond JSON it takes what can be read in one way only: Python's literals and quotes and its escapes, commas left over at
an end, line breaks inside strings. Anything else, above all a string that does not end or that goes on behind its closing
quote, is damage: it is skipped, never mended, for a mended value could be another than was meant. General repairers do
mend (json_repair 0.64 closes the last string of an answer that was cut off), which is why none is used here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

LIST = "trajectory"
"""The member whose list holds the objects that count."""

_DEEPEST = 12
_MOST_RESTARTS = 20_000
_SPACE = re.compile(r"\s*")
_OPENER = re.compile(r"[{\[]")
_PLAIN = re.compile(r"[^\\\"']*")
_WORD = re.compile(r"true|false|null|True|False|None")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_AFTER_WORD = re.compile(r"[\w.]")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"', "'": "'"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_HEX = {"x": 2, "u": 4, "U": 8}


class Damaged(Exception):
    """The text cannot be read on.

    Attributes:
        position: Where reading stopped: all before it was read consistently.
    """

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


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
    """The whole objects in a text that stand alone or in a list, with what surrounds them (prose, fences) left out.

    Those within a damaged or cut-off one are given too, and inner ones come before outer ones. An object that is a
    member's value is a part of that member; only the list named `LIST` holds objects of its own.
    """
    plain = _plain(text)
    if plain is not None:
        yield from plain
        return
    position, damaged, restarts = 0, False, 0
    while (opener := _OPENER.search(text, position)) and restarts < _MOST_RESTARTS:
        reader = _Reader(text, opener.start())
        intact = not damaged
        try:
            reader.value(0, own=True)
            position = reader.position
        except Damaged as damage:
            # Not into what was read: an opener in there that began no whole object stands in a string.
            position = max(damage.position, opener.end())
            damaged = damaged or reader.begun
            restarts += 1
        yield from (Found(members, intact and listed) for members, listed in reader.whole)


def _plain(text: str) -> list[Found] | None:
    """What `objects` gives for a text that is JSON and nothing else, the usual case, at the speed of the standard library;
    None for any other."""

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


class _Reader:
    """Reads one value.

    Attributes:
        whole: Objects that ended, and whether they stand in a list.
        begun: Whether this is more than a bracket in prose: a key or an object was read.
    """

    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.position = position
        self.whole: list[tuple[dict[str, Any], bool]] = []
        self.begun = False

    def value(self, depth: int, *, own: bool, listed: bool = False) -> Any:
        """The value that begins here; `own`: objects in it count for themselves, not as a part of what holds them."""
        self._skip_space()
        head = self.text[self.position : self.position + 1]
        if head in ("{", "["):
            if depth > _DEEPEST:
                raise Damaged(self.position)
            return self._object(depth, own, listed) if head == "{" else self._array(depth, own)
        if head in ('"', "'"):
            return self._string()
        return self._bare()

    def _object(self, depth: int, own: bool, listed: bool) -> dict[str, Any]:
        self.position += 1
        found: dict[str, Any] = {}
        while not self._at("}"):
            if self.text[self.position : self.position + 1] not in ('"', "'"):
                raise Damaged(self.position)
            self.begun = True
            key = self._string()
            if key in found or not self._at(":"):  # of two values of one key, neither can be trusted
                raise Damaged(self.position)
            found[key] = self.value(depth + 1, own=own and not listed and key == LIST)
            self._separator("}")
        if own:
            self.whole.append((found, listed))
        return found

    def _array(self, depth: int, own: bool) -> list[Any]:
        self.position += 1
        found: list[Any] = []
        while not self._at("]"):
            found.append(self.value(depth + 1, own=own, listed=True))
            self.begun = True
            self._separator("]")
        return found

    def _separator(self, closer: str) -> None:
        if not self._at(",") and self.text[self.position : self.position + 1] != closer:
            raise Damaged(self.position)
        self._skip_space()

    def _at(self, token: str) -> bool:
        """Whether the next token is this one, which is then read."""
        self._skip_space()
        if not self.text.startswith(token, self.position):
            return False
        self.position += 1
        return True

    def _skip_space(self) -> None:
        self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]

    def _bare(self) -> Any:
        found = _WORD.match(self.text, self.position) or _NUMBER.match(self.text, self.position)
        if found is None or _AFTER_WORD.match(self.text, found.end()):
            raise Damaged(self.position)
        self.position = found.end()
        token = found.group()
        if token in _WORDS:
            return _WORDS[token]
        return float(token) if len(token) > 18 or any(sign in token for sign in ".eE") else int(token)

    def _string(self) -> str:
        quote = self.text[self.position]
        self.position += 1
        parts: list[str] = []
        while True:
            plain = _PLAIN.match(self.text, self.position)
            assert plain is not None
            parts.append(plain.group())
            self.position = plain.end()
            if self.position == len(self.text):
                raise Damaged(self.position)
            sign = self.text[self.position]
            self.position += 1
            if sign == quote:
                break
            parts.append(self._escape() if sign == "\\" else sign)
        found = "".join(parts)
        if _SURROGATE.search(found):
            found = _joined(found)
            if found is None:
                raise Damaged(self.position)
        return found

    def _escape(self) -> str:
        sign = self.text[self.position : self.position + 1]
        self.position += 1
        if sign in _HEX:
            digits = self.text[self.position : self.position + _HEX[sign]]
            if len(digits) == _HEX[sign] and re.fullmatch(r"[0-9a-fA-F]+", digits) and int(digits, 16) < 0x110000:
                self.position += len(digits)
                return chr(int(digits, 16))
        elif sign in _ESCAPES and sign:
            return _ESCAPES[sign]
        raise Damaged(min(self.position, len(self.text)))


def _joined(text: str) -> str | None:
    """A text with JSON's surrogate pairs as the characters they stand for; None where one stands alone."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return None
