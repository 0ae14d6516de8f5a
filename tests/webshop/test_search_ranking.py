"""The ranking: against Lucene's, against the formula worked by hand, and pruned against exhaustive."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_corpora import catalogue_contents, rank_by_hand, recorded_rankings

from leap_worlds.webshop.search import SearchIndex, build_index
from leap_worlds.webshop.search.bm25 import Postings, best, contributions, decoded_lengths, encode_lengths, weight
from webshop_search import exhaustive

WORDS = [
    "red", "green", "blue", "shirt", "shirts", "shirt's", "running", "the", "10", "10.5", "usb-c", "café", "★",
    "日本", "long-sleeve",
]  # fmt: skip
corpora = st.lists(st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join), max_size=40).map(
    lambda texts: [(f"B{number * 7 % 40:02d}", text) for number, text in enumerate(texts)]
)


@pytest.fixture(scope="module")
def catalogue(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    archive = shared_data / "webshop" / "catalogue-10000.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive} is missing")
    folder = tmp_path_factory.mktemp("catalogue") / "index"
    build_index(catalogue_contents(archive).items(), folder)
    return SearchIndex(folder)


def test_a_thousand_rankings_are_lucenes(catalogue: SearchIndex, shared_data: Path) -> None:
    recorded = recorded_rankings(shared_data / "webshop" / "lucene-top50-10000.json.xz")
    assert len(recorded) == 1000
    wrong = [query for query, asins in recorded.items() if catalogue.search(query) != asins]
    assert not wrong, f"{len(wrong)} of {len(recorded)} differ, the first is {wrong[0]!r}"


@settings(max_examples=60)
@given(corpora, st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), st.integers(0, 45))
def test_rankings_are_the_formulas(documents: list[tuple[str, str]], query: str, k: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        build_index(documents, Path(folder) / "index")
        found = SearchIndex(Path(folder) / "index").search(query, k)
    assert found == rank_by_hand(documents, query, k)


@st.composite
def lists_of_postings(draw: st.DrawFn) -> tuple[list[Postings], int]:
    """A query's postings of any shape: few and many, with ties, and copies of a document."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    documents = draw(st.sampled_from((60, 400, 5000)))
    saturations = random.uniform(0.05, 12, draw(st.integers(1, 40))).astype(np.float32)
    copies = draw(st.sampled_from((1, 7)))
    postings = []
    for _ in range(draw(st.integers(1, 12))):
        some = np.flatnonzero(random.random(-(-documents // copies)) < 10 ** random.uniform(-3, 0))
        some = (some[:, None] * copies + np.arange(copies)).ravel()
        some = some[some < documents].astype(np.uint32)
        if len(some):
            own = random.choice(saturations, len(some))
            weighted = weight(documents, len(some), int(random.integers(1, 4)))
            postings.append(Postings(some, own, weighted, float(contributions(weighted, own.max()))))
    return postings, documents


@settings(max_examples=300)
@given(lists_of_postings(), st.integers(1, 80))
def test_pruning_changes_nothing(query: tuple[list[Postings], int], k: int) -> None:
    postings, documents = query
    expected = exhaustive(postings, documents, k)
    assert best(postings, documents, k).tolist() == expected.tolist()


@given(st.text(st.characters(codec=None)), st.integers(-1, 60))
def test_any_query_is_answered(small_index: SearchIndex, query: str, k: int) -> None:
    found = small_index.search(query, k)
    assert len(found) == len(set(found)) <= max(k, 0)


@pytest.fixture(scope="module")
def small_index(tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    folder = tmp_path_factory.mktemp("small") / "index"
    build_index([(f"A{number}", " ".join(WORDS[number % 5 :])) for number in range(50)], folder)
    return SearchIndex(folder)


@given(st.lists(st.integers(0, 2**31 - 1), max_size=50))
def test_lengths_go_through_a_byte_as_in_lucene(lengths: list[int]) -> None:
    given_ = np.array(lengths, np.int64)
    back = decoded_lengths()[encode_lengths(given_)]
    rest = [max(length - 24, 0) for length in lengths]
    drops = [max(value.bit_length() - 4, 0) for value in rest]
    expected = [
        length if length < 24 else 24 + (value >> drop << drop)
        for length, value, drop in zip(lengths, rest, drops, strict=True)
    ]
    assert back.tolist() == expected
