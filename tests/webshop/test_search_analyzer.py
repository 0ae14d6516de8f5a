"""The analyser against what Lucene 8.11 and Anserini 0.14.3 were recorded to do."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap_worlds.webshop.search.analyzer import STOP_WORDS, analyze, stem
from leap_worlds.webshop.search.tokenizer import LETTERS, MAX_TOKEN_UNITS, read_classes, tokenize

RECORDED = json.loads(gzip.decompress((Path(__file__).parent / "golden" / "tokens.json.gz").read_bytes()))


def test_tokens_and_terms_are_lucenes() -> None:
    wrong = [row for row in RECORDED if tokenize(row["text"]) != row["tokens"] or analyze(row["text"]) != row["terms"]]
    assert len(RECORDED) > 1000
    assert not wrong, (wrong[0], tokenize(wrong[0]["text"]), analyze(wrong[0]["text"]))


def test_the_class_table_is_what_an_independent_probe_found(shared_data: Path) -> None:
    """The other probe has fewer classes, saw U+0130 in lower case only, and few of the ideographs beyond U+20010."""
    path = shared_data / "webshop" / "lucene-unicode-classes.json"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    names = {
        "A": "A", "H": "A", "i": "A", "N": "N", "K": "RUN", "C": "RUN", "c": "?a1110100", "I": "S1", "J": "S1", "B": "S1",
        "M": "S1", "'": "MNL", ".": "MNL", ":": "ML", ",": "MN", "_": "ENL",
        "x": "X", "z": "X", "v": "X", "w": "X", "k": "X", "g": "X", "t": "X",
    }  # fmt: skip
    theirs = {
        point: name
        for name, spans in json.loads(path.read_text()).items()
        for first, last in spans
        for point in range(first, last + 1)
    }
    ours = {
        point: names[letter]
        for first, last, letter in read_classes()
        if letter in names
        for point in range(first, last + 1)
    }
    assert theirs.items() <= ours.items()
    beyond = sorted(ours.keys() - theirs.keys() - {0x130})
    assert all(LETTERS[point] == "I" and point >= 0x20010 for point in beyond), [hex(point) for point in beyond[:5]]


def test_the_class_table_is_sorted_and_disjoint() -> None:
    ranges = read_classes()
    assert all(first <= last for first, last, _ in ranges)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))


@given(st.text(st.characters(codec=None)) | st.text("ab1'._ \U0001f600\u200d", max_size=700))
def test_any_text_has_tokens_that_stand_in_it_in_order(text: str) -> None:
    at = 0
    for token in tokenize(text):
        assert 0 < len(token.encode("utf-16-le", "surrogatepass")) // 2 <= MAX_TOKEN_UNITS
        at = text.index(token, at) + len(token)
    assert len(analyze(text)) <= len(tokenize(text))


@given(st.text(st.characters(max_codepoint=127), max_size=400))
def test_the_short_way_for_ascii_agrees_with_the_grammar(text: str) -> None:
    marked = text + " é"  # one character beyond ASCII: the other way
    assert tokenize(marked) == [*tokenize(text), "é"]


@pytest.mark.parametrize(
    ("word", "stemmed"),
    [("caresses", "caress"), ("ponies", "poni"), ("feed", "feed"), ("agreed", "agre"), ("hopping", "hop"), ("by", "by"),
     ("relational", "relat"), ("archaeology", "archaeolog"), ("possibly", "possibl"), ("roll", "roll"), ("x1s", "x1")],
)  # fmt: skip
def test_stems(word: str, stemmed: str) -> None:
    assert stem(word) == stemmed


def test_stop_words_are_matched_before_stemming() -> None:
    assert len(STOP_WORDS) == 33
    assert analyze("The ORs are being's not theirs") == ["or", "be", "their"]
