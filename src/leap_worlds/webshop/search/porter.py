"""Porter's stemmer as Lucene has it (Porter 1980, with the author's later rules for -bli and -logi).

Words of one or two characters are left alone. Anything that is not a, e, i, o, u or a y after a consonant counts as a
consonant, so digits and other scripts pass through unharmed.
"""

from __future__ import annotations

import itertools

_STEP_2 = {
    "a": (("ational", "ate"), ("tional", "tion")),
    "c": (("enci", "ence"), ("anci", "ance")),
    "e": (("izer", "ize"),),
    "l": (("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous")),
    "o": (("ization", "ize"), ("ation", "ate"), ("ator", "ate")),
    "s": (("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous")),
    "t": (("aliti", "al"), ("iviti", "ive"), ("biliti", "ble")),
    "g": (("logi", "log"),),
}
_STEP_3 = {
    "e": (("icate", "ic"), ("ative", ""), ("alize", "al")),
    "i": (("iciti", "ic"),),
    "l": (("ical", "ic"), ("ful", "")),
    "s": (("ness", ""),),
}
_STEP_4 = {
    "a": ("al",),
    "c": ("ance", "ence"),
    "e": ("er",),
    "i": ("ic",),
    "l": ("able", "ible"),
    "n": ("ant", "ement", "ment", "ent"),
    "o": ("ion", "ou"),
    "s": ("ism",),
    "t": ("ate", "iti"),
    "u": ("ous",),
    "v": ("ive",),
    "z": ("ize",),
}


def stem(word: str) -> str:
    """Returns the stem of a lower-case word."""
    if any(character > "\uffff" for character in word):  # Lucene counts and compares UTF-16 units
        return _from_units(_stem(_to_units(word)))
    return _stem(word)


def _stem(word: str) -> str:
    if len(word) <= 2:
        return word
    word = _plurals_and_participles(word)
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(word, _STEP_2, -2)
    word = _replace(word, _STEP_3, -1)
    word = _strip(word)
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _is_short(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word[:-1]) > 1:
        word = word[:-1]
    return word


def _plurals_and_participles(word: str) -> str:
    if word.endswith("s"):
        if word.endswith("sses"):
            word = word[:-2]
        elif word.endswith("ies"):
            word = word[:-3] + "i"
        elif word[-2] != "s":
            word = word[:-1]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            base = word[: -len(ending)]
            return _mend(base) if _has_vowel(base) else word
    return word


def _mend(base: str) -> str:
    if base.endswith(("at", "bl", "iz")):
        return base + "e"
    if _ends_double(base):
        return base if base[-1] in "lsz" else base[:-1]
    return base + "e" if _measure(base) == 1 and _is_short(base) else base


def _replace(word: str, rules: dict[str, tuple[tuple[str, str], ...]], key: int) -> str:
    if len(word) < 2:
        return word
    for ending, other in rules.get(word[key], ()):
        if word.endswith(ending):
            base = word[: -len(ending)]
            return base + other if _measure(base) > 0 else word
    return word


def _strip(word: str) -> str:
    if len(word) < 2:
        return word
    for ending in _STEP_4.get(word[-2], ()):
        if word.endswith(ending):
            base = word[: -len(ending)]
            if ending == "ion" and not base.endswith(("s", "t")):
                continue
            return base if _measure(base) > 1 else word
    return word


def _consonants(word: str) -> list[bool]:
    out: list[bool] = []
    for at, character in enumerate(word):
        if character == "y":
            out.append(at == 0 or not out[-1])
        else:
            out.append(character not in "aeiou")
    return out


def _measure(base: str) -> int:
    """Returns how often a vowel is followed by a consonant: m of [C](VC)^m[V]."""
    consonants = _consonants(base)
    return sum(after and not before for before, after in itertools.pairwise(consonants))


def _has_vowel(base: str) -> bool:
    return not all(_consonants(base))


def _ends_double(base: str) -> bool:
    return len(base) > 1 and base[-1] == base[-2] and _consonants(base)[-1]


def _is_short(base: str) -> bool:
    """Ends consonant, vowel, consonant, the last not w, x or y."""
    if len(base) < 3:
        return False
    before, vowel, last = _consonants(base)[-3:]
    return before and not vowel and last and base[-1] not in "wxy"


def _to_units(word: str) -> str:
    data = word.encode("utf-16-le", "surrogatepass")
    return "".join(chr(int.from_bytes(data[at : at + 2], "little")) for at in range(0, len(data), 2))


def _from_units(units: str) -> str:
    return b"".join(ord(unit).to_bytes(2, "little") for unit in units).decode("utf-16-le", "surrogatepass")
