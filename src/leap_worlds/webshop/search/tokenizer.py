"""Lucene's StandardTokenizer: the word breaks of Unicode Standard Annex 29, as Lucene 8.11 draws them.

The classes of the code points are frozen in `word_classes.tsv`: Lucene's come from Unicode 9 and emoji 11, and Python's
own tables differ from one version to the next. A text becomes a string of class letters, one for each character, and a
small grammar over those letters finds the tokens. Texts of ASCII, most of them, take one regular expression instead.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from importlib.resources import files
from itertools import accumulate

MAX_TOKEN_UNITS = 255
"""UTF-16 units after which Lucene's scanner cuts a token and starts the next one."""

_BREAK = " "


def read_classes() -> list[tuple[int, int, str]]:
    """Returns the table that ships with leap: first code point, last code point, class letter; sorted, disjoint."""
    text = (files("leap_worlds.webshop.search") / "word_classes.tsv").read_text(encoding="utf-8")
    ranges = []
    for line in text.splitlines():
        if "\t" not in line or line.startswith("# "):
            continue
        letter, spans, _ = line.split("\t")
        for span in spans.split():
            first, _, last = span.partition("-")
            ranges.append((int(first, 16), int(last or first, 16), letter))
    return sorted(ranges)


class _Letters(dict[int, str]):
    """For `str.translate`: code point to class letter, looked up once for each."""

    def __init__(self) -> None:
        super().__init__()
        self._ranges = read_classes()
        self._firsts = [first for first, _, _ in self._ranges]

    def __missing__(self, point: int) -> str:
        at = bisect_right(self._firsts, point) - 1
        inside = at >= 0 and point <= self._ranges[at][1]
        letter = self[point] = self._ranges[at][2] if inside else _BREAK
        return letter


LETTERS = _Letters()
"""The class letter of each code point; what the letters mean stands in `word_classes.tsv`."""


def _grammar() -> re.Pattern[str]:
    """The tokens as a pattern over class letters. Every loop eats letters that nothing after it could start with, so
    the leftmost match is the longest one, as in Lucene's scanner, and it is found without backtracking over long
    runs."""
    extend = "[xzvwkgtc]*+"
    extend_emoji = "[xzkgtc]*+"  # the presentation selectors end the base of an emoji
    joined = f"(?:[.':]{extend}[AHi]{extend})*+"
    alphanumeric = (
        f"(?:[Ai]{extend}{joined}"
        f"|H{extend}(?:Q{extend}H{extend}|'{extend}|[.:]{extend}[AHi]{extend}{joined})?"
        f"|N{extend}(?:[.',]{extend}N{extend})*+)++"
    )
    run = f"(?:(?:K{extend})++|{alphanumeric})"
    joiner = f"(?:_{extend})"
    word = f"{joiner}*+{run}(?:{joiner}++{run})*{joiner}*+"
    pictograph = f"(?:z*+B{extend_emoji}M{extend_emoji}|z*+[JBi]{extend_emoji}v?|M{extend_emoji})"
    linked = f"(?:(?:(?<=z)|z){pictograph})"
    emoji = f"(?!i){pictograph}(?:g++t|{linked}*)"
    letter_emoji = f"(?=i[ixzvwkgtc]*+[JBM]){pictograph}{linked}+"
    keycap = f"#(?:{extend_emoji}vk{extend_emoji}|[xzgtc]*+k{extend_emoji})"
    flag = f"R{extend}R{extend}"
    south_east_asian = f"[Cc][C{extend[1:-3]}]*+"
    return re.compile("|".join((letter_emoji, word, emoji, keycap, flag, south_east_asian, f"I{extend}")))


_TOKEN = _grammar()
_ASCII_TOKEN = re.compile(
    r"_*+[A-Za-z0-9]\w*+(?:(?:(?<=[A-Za-z])['.:](?=[A-Za-z])|(?<=[0-9])['.,;](?=[0-9]))\w++)*+", re.ASCII
)


def tokenize(text: str) -> list[str]:
    """Returns the tokens of a text as they stand in it, in order; lone surrogates break words."""
    if text.isascii():
        tokens = _ASCII_TOKEN.findall(text)
        if max(map(len, tokens), default=0) <= MAX_TOKEN_UNITS:
            return tokens
    letters = text.translate(LETTERS)
    tokens = []
    at = 0
    while match := _TOKEN.search(letters, at):
        start, end = match.span()
        if end - start > MAX_TOKEN_UNITS // 2:
            # The scanner sees no further than its buffer, which begins with the token.
            end = _TOKEN.match(letters, start, _buffer_end(text, start)).end()  # type: ignore[union-attr]
        tokens.append(text[start:end])
        at = end
    return tokens


def _buffer_end(text: str, start: int) -> int:
    units = accumulate(2 if character > "\uffff" else 1 for character in text[start : start + MAX_TOKEN_UNITS])
    return start + sum(end <= MAX_TOKEN_UNITS for end in units)
