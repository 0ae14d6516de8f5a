"""A reader of nearly-JSON, as language models write it, that never guesses at a value.

Beyond JSON it takes what can be read in one way only: Python's literals and quotes and its escapes, commas left over at
an end, line breaks inside strings. Anything else, above all a string that does not end or that goes on behind its closing
quote, is damage: it is skipped, never mended, for a mended value could be another than was meant. General repairers do
mend (json_repair 0.64 closes the last string of an answer that was cut off), which is why none is used here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

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
_HEX = {"x": 2, "u": 4, "U": 8}


class Damaged(Exception):
    """The text cannot be read on.

    Attributes:
        position: Where reading stopped: all before it was read consistently.
    """

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def objects(text: str) -> Iterator[dict[str, Any]]:
    """All objects in a text that are whole, with what surrounds them (prose, fences) and what is damaged left out.

    An object is given even where one that holds it is damaged or cut off, and inner objects come before outer ones. What
    stands inside a string is never taken for an object.
    """
    position, restarts = 0, 0
    while (opener := _OPENER.search(text, position)) and restarts < _MOST_RESTARTS:
        reader = _Reader(text, opener.start())
        try:
            reader.value(0)
            position = reader.position
        except Damaged as damage:
            # Not into what was read: an opener in there that began no whole object stands in a string.
            position = max(damage.position, opener.end())
            restarts += 1
        yield from reader.whole


class _Reader:
    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.position = position
        self.whole: list[dict[str, Any]] = []

    def value(self, depth: int) -> Any:
        self._skip_space()
        head = self.text[self.position : self.position + 1]
        if head in ("{", "["):
            if depth > _DEEPEST:
                raise Damaged(self.position)
            return self._object(depth) if head == "{" else self._array(depth)
        if head in ('"', "'"):
            return self._string()
        return self._bare()

    def _object(self, depth: int) -> dict[str, Any]:
        self.position += 1
        found: dict[str, Any] = {}
        while not self._at("}"):
            start = self.position
            if self.text[start : start + 1] not in ('"', "'"):
                raise Damaged(start)
            key = self._string()
            if key in found or not self._at(":"):  # of two values of one key, neither can be trusted
                raise Damaged(self.position)
            found[key] = self.value(depth + 1)
            self._separator("}")
        self.whole.append(found)
        return found

    def _array(self, depth: int) -> list[Any]:
        self.position += 1
        found: list[Any] = []
        while not self._at("]"):
            found.append(self.value(depth + 1))
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
        if any("\ud800" <= sign <= "\udfff" for sign in found):
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
