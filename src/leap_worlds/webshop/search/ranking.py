"""The best k documents for a query's terms, without scoring all that match.

A human instruction has a dozen words, half of them in every third product: adding up all their postings takes 50 ms at a
million products. Most of that is never needed, because common words are worth little (MaxScore, Turtle & Flood 1995):

1. Each term has an upper bound on what it adds to a score. Terms are added up in the order of bound by cost: rare ones first.
2. The k-th best partial score is a floor under the final k-th best. Once it is above what all terms still to come could add
   together, a document that has no score yet is out, and so is any whose score plus that sum is below the floor.
3. What is left are candidates. Further terms are looked up for them alone, and each may put more of them out.
4. The few that remain are scored anew, exactly as Lucene does, and sorted.

Partial scores are single-precision sums, so they are compared with a margin far above their error: the result is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leap_worlds.webshop.search.bm25 import Array, contributions

_MARGIN = 1e-5
"""Relative; the error of adding a few dozen single-precision numbers is below 1e-5."""


@dataclass(frozen=True, slots=True)
class Postings:
    """One query term's postings.

    Attributes:
        documents: (n,) uint32, ascending; n is positive.
        saturations: (n,) float32: tf * norm of BM25.
        weight: w of BM25.
        bound: The highest score of any of them.
    """

    documents: Array
    saturations: Array
    weight: np.float32
    bound: float


def exhaustive(postings: list[Postings], documents: int, k: int) -> Array:
    """Scores every document that has a term: the definition that `best` must agree with.

    Args:
        postings: One for each term of the query.
        documents: How many the index has.
        k: How many to return.

    Returns:
        Document numbers, best first.
    """
    total = np.zeros(documents, np.float64)
    for term in postings:
        total[term.documents] += contributions(term.weight, term.saturations)
    found = np.flatnonzero(total)
    return _ordered(found, total[found], k)


def best(postings: list[Postings], documents: int, k: int) -> Array:
    """Returns what `exhaustive` returns, sooner.

    Args:
        postings: One for each term of the query.
        documents: How many the index has.
        k: How many to return; positive.

    Returns:
        Document numbers, best first.
    """
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
