"""From text to index terms, as Anserini 0.14.3's English analyser does it: tokens, possessive, lower case, stop words, Porter.

The stemmer is Porter's of 1980 with the author's later rules for -bli and -logi. Words of one or two characters are
left alone. Anything that is not a, e, i, o, u or a y after a consonant counts as a consonant, so digits and other
scripts pass through unharmed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from leap_worlds.webshop.search.tokenizer import tokenize

STOP_WORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not",
    "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was",
    "will", "with",
))  # fmt: skip
"""Lucene's 33 English stop words."""

_APOSTROPHES = "'’＇"


def analyze(text: str) -> list[str]:
    """Returns the terms of a text in order, repeats included; stop words are gone."""
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


_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = "al ance ence er ic able ible ant ement ment ent (?<=[st])ion ou ism ate iti ous ive ize"


def _endings(endings: Iterable[str]) -> re.Pattern[str]:
    """A pattern of the longest ending of a word: the search finds the match that begins first."""
    return re.compile(rf"(?:{'|'.join(endings)})\Z")


_ENDING_2, _ENDING_3, _ENDING_4 = _endings([*_STEP_2]), _endings([*_STEP_3]), _endings(_STEP_4.split())


def stem(word: str) -> str:
    """Returns the stem of a lower-case word."""
    if word and max(word) > "\uffff":  # Lucene counts and compares UTF-16 units
        units = np.frombuffer(word.encode("utf-16-le", "surrogatepass"), "<u2")
        stemmed = np.array([*map(ord, _stem("".join(map(chr, units))))], "<u2")
        return stemmed.tobytes().decode("utf-16-le", "surrogatepass")
    return _stem(word)


def _stem(word: str) -> str:
    if len(word) <= 2:
        return word
    word = _plurals_and_participles(word)
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    for pattern, others in ((_ENDING_2, _STEP_2), (_ENDING_3, _STEP_3)):
        if (found := pattern.search(word)) and _measure(word[: found.start()]) > 0:
            word = word[: found.start()] + others[found[0]]
    if (found := _ENDING_4.search(word)) and _measure(word[: found.start()]) > 1:
        word = word[: found.start()]
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _is_short(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _plurals_and_participles(word: str) -> str:
    if word.endswith(("sses", "ies")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    base = word[:-2] if word.endswith("ed") else word[:-3] if word.endswith("ing") else ""
    if "v" not in _shape(base):
        return word
    if base.endswith(("at", "bl", "iz")):
        return base + "e"
    if base[-1] == base[-2:-1] and _shape(base)[-1] == "c":
        return base if base[-1] in "lsz" else base[:-1]
    return base + "e" if _measure(base) == 1 and _is_short(base) else base


def _shape(word: str) -> str:
    """Returns a word's consonants as c and its vowels as v."""
    shape = ""
    for character in word:
        shape += "v" if character in "aeiou" or (character == "y" and shape[-1:] == "c") else "c"
    return shape


def _measure(base: str) -> int:
    """Returns how often a vowel is followed by a consonant: m of [C](VC)^m[V]."""
    return _shape(base).count("vc")


def _is_short(base: str) -> bool:
    """Ends consonant, vowel, consonant, the last not w, x or y."""
    return _shape(base).endswith("cvc") and base[-1] not in "wxy"
