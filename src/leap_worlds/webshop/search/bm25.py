"""BM25 as Lucene 8 computes it: quantised lengths, and single precision in the same places.

For a term of weight w in a document that has it tf times and whose length is L (as it comes back from one byte):

    w    = boost * ln(1 + (N - df + 0.5) / (df + 0.5))                 boost: how often the query has the term
    norm = 1 / (k1 * ((1 - b) + b * L / average length))
    s    = w - w / (1 + tf * norm)                                      rises with tf, never reaches w

A document's score is the sum of s over the query's terms, summed in double precision and rounded to single. There is no
factor (k1 + 1). N and the average count documents that have at least one term.

`best` does not score all that match. A human instruction has a dozen words, half of them in every third product: adding
up all their postings takes 50 ms at a million products. Most of that is never needed, because common words are worth
little (MaxScore, Turtle & Flood 1995):

1. Each term has an upper bound on what it adds to a score. Terms are added up in the order of bound by cost: rare ones first.
2. The k-th best partial score is a floor under the final k-th best. Once it is above what all terms still to come could
   add together, a document that has no score yet is out, and so is any whose score plus that sum is below the floor.
3. What is left are candidates. Further terms are looked up for them alone, and each may put more of them out.
4. The few that remain are scored anew, exactly as Lucene does, and sorted.

Partial scores are single-precision sums, so they are compared with a margin far above their error: the result is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

K1 = 0.9
B = 0.4

_EXACT_LENGTHS = 24
_MARGIN = 1e-5
"""Relative; the error of adding a few dozen single-precision numbers is below 1e-5."""

Array = np.ndarray


def encode_lengths(lengths: Array) -> Array:
    """Lengths in terms as Lucene's one byte, uint8: exact below 24, then three bits after the leading one."""
    return (np.searchsorted(decoded_lengths(), lengths, side="right") - 1).astype(np.uint8)


def decoded_lengths() -> Array:
    """Returns what each of the 256 bytes stands for: int64, shape (256,)."""
    code = np.arange(256, dtype=np.int64) - _EXACT_LENGTHS
    shift = np.maximum((code >> 3) - 1, 0)
    value = np.where(code < 8, code, ((code & 7) | 8) << shift)
    return np.where(code < 0, code + _EXACT_LENGTHS, value + _EXACT_LENGTHS)


def length_factors(documents: int, tokens: int) -> Array:
    """norm of the formula for each length byte, float32, shape (256,), given documents with a term and their terms."""
    average = np.float32(tokens / documents) if documents else np.float32(1)
    k1, b, one = np.float32(K1), np.float32(B), np.float32(1)
    return one / (k1 * ((one - b) + b * decoded_lengths().astype(np.float32) / average))


def weight(documents: int, frequency: int, boost: int) -> np.float32:
    """w of the formula, given the documents with a term, those with this one, and how often the query has it."""
    return np.float32(boost) * np.float32(math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5)))


def contributions(weight: np.float32, saturation: Array) -> Array:
    """s of the formula, given w and tf * norm: float32, rising with `saturation`."""
    return weight - weight / (np.float32(1) + saturation)


@dataclass(frozen=True, slots=True)
class Postings:
    """One query term's postings: ascending documents (n,) uint32, their tf * norm of BM25 (n,) float32, w, and the
    highest of their scores."""

    documents: Array
    saturations: Array
    weight: np.float32
    bound: float


def best(postings: list[Postings], documents: int, k: int) -> Array:
    """Returns the numbers of the best k documents, best first, as if every document that has a term had been scored."""
    terms = sorted(postings, key=lambda term: -term.bound / len(term.documents))
    ahead = sum(term.bound for term in terms)
    floor, done = 0.0, 0
    scores = np.zeros(documents, np.float32)
    while done < len(terms) and floor <= ahead:
        term = terms[done]
        at = term.documents.astype(np.intp)
        summed = scores.take(at)
        summed += contributions(term.weight, term.saturations)
        scores[at] = summed
        floor = _raised(floor, summed[summed > floor], k)
        ahead -= term.bound
        done += 1
    candidates = np.flatnonzero(scores >= max(_least(floor, ahead), np.finfo(np.float32).tiny))
    partial = scores[candidates].astype(np.float64)
    for term in terms[done:]:
        _add(partial, candidates, term)
        ahead -= term.bound
        floor = _raised(floor, partial, k)
        kept = partial >= _least(floor, ahead)
        candidates, partial = candidates[kept], partial[kept]
    exact = np.zeros(len(candidates), np.float64)
    for term in postings:
        _add(exact, candidates, term)
    return _ordered(candidates, exact, k)


def _raised(floor: float, partial: Array, k: int) -> float:
    """Returns the floor, raised to the k-th best of some documents' partial scores."""
    return max(floor, float(np.partition(partial, -k)[-k])) if len(partial) >= k else floor


def _least(floor: float, ahead: float) -> float:
    """Returns the partial score below which a document is out, when so much is still to come."""
    return floor * (1 - _MARGIN) - ahead * (1 + _MARGIN)


def _add(sums: Array, candidates: Array, term: Postings) -> None:
    """Adds a term's scores to those ascending candidates that have it."""
    at = np.searchsorted(term.documents, candidates.astype(np.uint32))
    np.minimum(at, len(term.documents) - 1, out=at)
    has = np.flatnonzero(term.documents[at] == candidates)
    sums[has] += contributions(term.weight, term.saturations[at[has]])


def _ordered(found: Array, totals: Array, k: int) -> Array:
    """The first k of ascending document numbers by score, as single-precision numbers, ties in the given order."""
    return found[np.argsort(-totals.astype(np.float32), kind="stable")[:k]]
