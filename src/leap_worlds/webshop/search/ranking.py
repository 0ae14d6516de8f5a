"""The best k documents for a query's lists of postings, without scoring all that match.

A human instruction has a dozen words, half of them in every third product: adding up all their postings takes 50 ms at a
million products. Most of that is never needed, because common words are worth little (MaxScore, Turtle & Flood 1995):

1. Each term's postings come in two parts, its best and the rest, and each part has an upper bound on what it adds to a score.
   Parts are added up in the order of bound by cost, cheap and valuable ones first.
2. The k-th best partial score is a floor under the final k-th best. Once it is above what all parts still to come could add
   together, a document that has no score yet is out, and so is any whose score plus that sum is below the floor.
3. What is left are candidates. Further parts are looked up for them alone, and each may put more of them out.
4. The few that remain are scored anew, exactly as Lucene does, and sorted.

Partial scores are single-precision sums, so they are compared with a margin far above their error: the result is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leap_worlds.webshop.search.bm25 import Array, contributions

_MARGIN = 1e-5
"""Relative; the error of adding a few dozen single-precision numbers is below 1e-5."""
_LOOK_UP_COST = 10
"""What looking up one candidate in a list takes, in postings that are added up."""


@dataclass(frozen=True, slots=True)
class Postings:
    """One query term's postings.

    Attributes:
        documents: (n,) uint32; ascending in the first `head`, and again in the rest.
        codes: (n,) uint16 rows of the saturation table.
        head: Size of the first part, whose codes are higher than the second's.
        weight: w of BM25.
        head_code: The highest code of the first part.
        tail_code: And of the second.
    """

    documents: Array
    codes: Array
    head: int
    weight: np.float32
    head_code: int
    tail_code: int


@dataclass(frozen=True, slots=True)
class _Part:
    """One of a term's two parts.

    Attributes:
        term: Which of the query's terms.
        documents: Ascending.
        codes: Their codes.
        gain: By how much the bound on what is still to come falls when this part is done.
    """

    term: int
    documents: Array
    codes: Array
    gain: float


def exhaustive(postings: list[Postings], saturations: Array, documents: int, k: int) -> Array:
    """Scores every document that has a term: the definition that `best` must agree with.

    Args:
        postings: One for each term of the query.
        saturations: (codes,) float32.
        documents: How many the index has.
        k: How many to return.

    Returns:
        Document numbers, best first.
    """
    total = np.zeros(documents, np.float64)
    for term in postings:
        total[term.documents] += contributions(term.weight, saturations)[term.codes]
    found = np.flatnonzero(total)
    return _ordered(found, total[found], k)


def best(postings: list[Postings], saturations: Array, documents: int, k: int) -> Array:
    """What `exhaustive` returns, sooner.

    Args:
        postings: One for each term of the query.
        saturations: (codes,) float32, ascending.
        documents: How many the index has.
        k: How many to return; positive.

    Returns:
        Document numbers, best first.
    """
    tables = [contributions(term.weight, saturations) for term in postings]
    parts = _parts(postings, tables)
    scores = np.zeros(documents, np.float32)
    floor = _Floor(scores, k)
    ahead = sum(part.gain for part in parts)
    done = 0
    while done < len(parts) and floor.value <= ahead:
        part = parts[done]
        at = part.documents.astype(np.intp)
        summed = scores.take(at)
        summed += tables[part.term].take(part.codes)
        scores[at] = summed
        floor.raise_by(at, summed)
        ahead -= part.gain
        done += 1
    candidates = np.flatnonzero(scores >= max(floor.least(ahead), np.finfo(np.float32).tiny))
    partial = scores[candidates]
    for part in parts[done:]:
        table = tables[part.term]
        if len(candidates) * _LOOK_UP_COST < len(part.documents):
            _add(partial, candidates, part.documents, part.codes, table)
        else:
            at = part.documents.astype(np.intp)
            scores[candidates] = partial
            scores[at] += table.take(part.codes)
            partial = scores[candidates]
        ahead -= part.gain
        if len(candidates) > k:
            floor.value = max(floor.value, float(np.partition(partial, -k)[-k]))
            kept = partial >= floor.least(ahead)
            candidates, partial = candidates[kept], partial[kept]
    exact = np.zeros(len(candidates), np.float64)
    for term, table in zip(postings, tables, strict=True):
        for part in (slice(0, term.head), slice(term.head, None)):
            _add(exact, candidates, term.documents[part], term.codes[part], table)
    return _ordered(candidates, exact, k)


class _Floor:
    """A lower bound on the final score of the k-th best document: the k-th best partial score."""

    def __init__(self, scores: Array, k: int) -> None:
        self.value = 0.0
        self._scores = scores
        self._k = k
        self._top = np.zeros(0, np.intp)

    def raise_by(self, changed: Array, summed: Array) -> None:
        """Takes note of documents whose partial scores have changed."""
        better = changed[summed > self.value]
        if not len(better):
            return
        if len(better) > self._k:
            better = better[np.argpartition(self._scores[better], -self._k)[-self._k :]]
        top = np.union1d(self._top, better)
        if len(top) >= self._k:
            values = self._scores[top]
            order = np.argpartition(values, -self._k)[-self._k :]
            top = top[order]
            self.value = float(values[order].min())
        self._top = top

    def least(self, ahead: float) -> float:
        """The partial score below which a document is out, when so much is still to come."""
        return self.value * (1 - _MARGIN) - ahead * (1 + _MARGIN)


def _parts(postings: list[Postings], tables: list[Array]) -> list[_Part]:
    """All parts, those first whose bound is high for their size."""
    parts: list[_Part] = []
    worth: list[float] = []
    for number, (term, table) in enumerate(zip(postings, tables, strict=True)):
        tail = float(table[term.tail_code])
        first = len(parts)
        if term.head:
            head = float(table[term.head_code])
            parts.append(_Part(number, term.documents[: term.head], term.codes[: term.head], head - tail))
        parts.append(_Part(number, term.documents[term.head :], term.codes[term.head :], tail))
        worth += [part.gain / len(part.documents) for part in parts[first:]]
        # A head comes before its tail: as long as it is not done, its term's bound is the head's.
        worth[-1] = min(worth[first:])
    return [parts[at] for at in sorted(range(len(parts)), key=lambda at: -worth[at])]


def _add(sums: Array, candidates: Array, documents: Array, codes: Array, table: Array) -> None:
    """Adds a list's scores to those candidates that it has; both are ascending."""
    if not len(documents):
        return
    at = np.searchsorted(documents, candidates.astype(np.uint32))
    np.minimum(at, len(documents) - 1, out=at)
    has = np.flatnonzero(documents[at] == candidates)
    sums[has] += table[codes[at[has]]]


def _ordered(found: Array, totals: Array, k: int) -> Array:
    """The first k of ascending document numbers by score, as single-precision numbers, ties in the given order."""
    return found[np.argsort(-totals.astype(np.float32), kind="stable")[:k]]
