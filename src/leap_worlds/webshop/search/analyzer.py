"""From text to index terms, as Anserini 0.14.3's English analyser does it: tokens, possessive, lower case, stop words, Porter."""

from __future__ import annotations

from leap_worlds.webshop.search.porter import stem
from leap_worlds.webshop.search.tokenizer import tokenize

STOP_WORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not",
    "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was",
    "will", "with",
))  # fmt: skip
"""Lucene's 33 English stop words."""

_APOSTROPHES = "'’＇"


def analyze(text: str) -> list[str]:
    """Returns the terms of a text in order, repeats included; stop words are gone.

    Args:
        text: Any string.
    """
    return [term for token in tokenize(text) if (term := term_of(token)) is not None]


def term_of(token: str) -> str | None:
    """Returns the index term of one token, or None where it is a stop word."""
    if len(token) >= 2 and token[-1] in "sS" and token[-2] in _APOSTROPHES:
        token = token[:-2]
    token = token.lower() if token.isascii() else "".join(map(_lower, token))
    return None if token in STOP_WORDS else stem(token)


def _lower(character: str) -> str:
    """One character to one, as Java does it: no final sigma, and the dotted capital I becomes a plain i."""
    lowered = character.lower()
    return lowered if len(lowered) == 1 else lowered[0]
