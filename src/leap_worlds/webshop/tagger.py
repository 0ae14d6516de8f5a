"""Which words of a title are nouns: what the type part of the reward compares.

The original asks a spaCy model. None is on PyPI, so the default here is a rule without dependencies; on nine titles
whose count of nouns the original's logs tell it is off by 2 nouns of 7 to 26. What either tagger says matters only for
a purchase of another product than the goal's that shares few words with it. A result of the rule is flagged as not
official.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from leap.errors import PrerequisiteError, RecipeError

LEXICAL = "lexical"
_NOUN_TAGS = frozenset({"NOUN", "PROPN"})
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_FUNCTION_WORDS = (
    "a about above across after again against all along also am among an and any are around as at be because been before "
    "behind being below between both but by can could did do does done down during each either every few for from get had "
    "has have having he her here hers him his how i if in into is it its itself just let like made make makes many may me "
    "more most much must my near neither no nor not of off on once one only onto or other our out over own per s same she "
    "should since so some such than that the their them then there these they this those through to too toward under until "
    "up upon us use used using very via was we were what when where which while who whom whose why will with within "
    "without would yet you your"
)
_NO_NOUNS = frozenset(_FUNCTION_WORDS.split())


class LexicalTagger:
    """Every word of letters that is no function word."""

    name = f"{LEXICAL}-1"
    official = False

    def tag(self, titles: Iterable[str]) -> Iterator[list[str]]:
        """Yields the nouns of each title in lower case, with repeats."""
        for title in titles:
            yield [word for word in _WORD.findall(title.lower()) if word not in _NO_NOUNS]


class SpacyTagger:
    """A spaCy model's nouns and proper nouns: en_core_web_lg in LEAP, en_core_web_sm in the original since May 2024."""

    official = True

    def __init__(self, model: str) -> None:
        try:
            import spacy  # pyright: ignore[reportMissingImports]

            self._nlp = spacy.load(model, exclude=["ner", "parser", "lemmatizer"])
        except (ImportError, OSError) as error:
            raise PrerequisiteError(
                f"tagger spacy:{model} is not at hand ({error}). Run `pip install spacy` and "
                f"`python -m spacy download {model}`, or use tagger: {LEXICAL} (its rewards are not official)."
            ) from error
        self.name = f"spacy-{model}-{self._nlp.meta.get('version', '')}"

    def tag(self, titles: Iterable[str]) -> Iterator[list[str]]:
        """As `LexicalTagger.tag`."""
        for parsed in self._nlp.pipe(titles, batch_size=256):
            yield [token.text.lower() for token in parsed if token.pos_ in _NOUN_TAGS]


Tagger = LexicalTagger | SpacyTagger
"""Finds the nouns of titles; what was tagged under one name, which tells the version, is never taken for another's."""


def check_tagger(name: str) -> None:
    """Refuses a name that no tagger has."""
    kind, _, model = name.partition(":")
    if name != LEXICAL and (kind != "spacy" or not model):
        raise RecipeError(f"tagger {name!r} is neither `{LEXICAL}` nor `spacy:MODEL`, for example spacy:en_core_web_lg")


def load_tagger(name: str) -> Tagger:
    """Returns a tagger by the name a recipe gives: `lexical`, or `spacy:MODEL`; an error where it is not installed."""
    check_tagger(name)
    return LexicalTagger() if name == LEXICAL else SpacyTagger(name.partition(":")[2])
