"""Builds an index from a stream of documents, in bounded memory.

First pass: documents are read in batches; the (term, document) pairs of a batch are counted, sorted and put on disk as
a run. Then the final numbers of terms and documents are known, and the second pass merges the runs, a range of terms at
a time, into the index's arrays. In memory stay the vocabulary, the documents' ids and lengths, one batch, and one
range.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np

from leap.errors import PrerequisiteError
from leap_worlds.webshop.search.analyzer import term_of
from leap_worlds.webshop.search.bm25 import Array, encode_lengths, length_factors
from leap_worlds.webshop.search.index import MANIFEST, write_manifest, write_strings
from leap_worlds.webshop.search.tokenizer import tokenize

BATCH_TOKENS = 4_000_000
"""Tokens in memory before a run is put on disk (about 100 MB with what sorting them takes)."""
MERGE_POSTINGS = 6_000_000
"""Postings merged at once, unless one term has more."""

_MEMO = 1_000_000
_STOPPED = -1
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def build_index(documents: Iterable[tuple[str, str]], folder: Path) -> None:
    """Builds an index; until it is whole, `folder` stays as it was. An index that is there already is replaced.

    Args:
        documents: (ASIN, contents) pairs, read once. The contents are what Lucene would index; upstream lower-cases them.
        folder: Where the index goes.

    Raises:
        PrerequisiteError: An ASIN occurs twice, or `folder` holds something that is not an index.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise PrerequisiteError(f"{folder} holds something else than a search index; give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        made, runs = Path(work, "index"), Path(work, "runs")
        made.mkdir()
        runs.mkdir()
        _write(*_scan(documents, runs), runs, made)
        if folder.exists():
            folder.rename(Path(work, "replaced"))
        made.rename(folder)


class _TermNumbers(dict[str, int]):
    """Token to its term's number, or -1 for a stop word; analysed once for each different token."""

    def __init__(self) -> None:
        super().__init__()
        self.terms: dict[str, int] = {}

    def __missing__(self, token: str) -> int:
        term = term_of(token)
        number = _STOPPED if term is None else self.terms.setdefault(term, len(self.terms))
        if len(self) >= _MEMO:  # a catalogue has no end of part numbers
            self.clear()
        self[token] = number
        return number


def _scan(documents: Iterable[tuple[str, str]], folder: Path) -> tuple[list[bytes], list[str], Array]:
    """The first pass: ids, terms in their numbers' order, lengths, and a run of counted pairs on disk for each batch."""
    numbers, asins, lengths = _TermNumbers(), list[bytes](), array("q")
    stream = iter(documents)
    for run in count():
        tokens, sizes, first = array("q"), array("q"), len(asins)
        while len(tokens) < BATCH_TOKENS and (some := list(islice(stream, 1000))):
            for asin, contents in some:
                before = len(tokens)
                tokens.extend(map(numbers.__getitem__, tokenize(contents)))
                sizes.append(len(tokens) - before)
                asins.append(asin.encode("utf-8", "surrogatepass"))
        if not sizes:
            break
        owners = np.repeat(np.arange(first, len(asins)), sizes)
        terms, keys = np.frombuffer(tokens, np.int64), folder / f"{run}-keys.npy"
        lengths.extend(_put_away(terms, owners, first, len(asins), keys))
    return asins, list(numbers.terms), np.array(lengths, np.int64)


def _put_away(terms: Array, documents: Array, first: int, end: int, run: Path) -> Array:
    """Puts a batch's counted (term, document) pairs on disk; returns the lengths of its documents, first to end."""
    kept = terms != _STOPPED
    terms, documents = terms[kept], documents[kept]
    pairs, frequencies = np.unique(_keys(terms, documents), return_counts=True)
    np.save(run, pairs)
    np.save(_values(run), frequencies.astype(np.float32))
    return np.bincount(documents - first, minlength=end - first)


def _values(run: Path) -> Path:
    return run.with_name(run.name.replace("keys", "values"))


def _keys(terms: Array, documents: Array) -> Array:
    return (terms.astype(np.uint64) << _HALF) | documents.astype(np.uint64)


def _write(asins: list[bytes], terms: list[str], lengths: Array, runs_folder: Path, folder: Path) -> None:
    """Writes the index's arrays from a scan's runs: the second pass."""
    asins, document_places = _sorted(asins)
    for at in range(1, len(asins)):
        if asins[at] == asins[at - 1]:
            raise PrerequisiteError(f"two documents have the id {asins[at].decode('utf-8', 'replace')!r}; keep one of them")
    write_strings(folder, "asins", asins)
    names, term_places = _sorted([term.encode("utf-8") for term in terms])
    write_strings(folder, "terms", names)

    with_terms, tokens = int(np.count_nonzero(lengths)), int(lengths.sum())
    factors = length_factors(with_terms, tokens)[encode_lengths(lengths)]
    renumbered = partial(_renumbered, terms=term_places, documents=document_places, factors=factors)
    runs = [renumbered(keys) for keys in sorted(runs_folder.glob("*-keys.npy"))]
    starts = np.zeros(len(names) + 1, np.int64)
    for keys, _ in runs:
        starts[1:] += np.bincount((keys >> _HALF).astype(np.int64), minlength=len(names))
    np.cumsum(starts, out=starts)
    np.save(folder / "starts.npy", starts)
    total = int(starts[-1])
    documents_out = np.lib.format.open_memmap(folder / "documents.npy", "w+", np.uint32, (total,))
    saturations_out = np.lib.format.open_memmap(folder / "saturations.npy", "w+", np.float32, (total,))
    peaks = np.zeros(len(names), np.float32)
    for low, high in _ranges(starts):
        ends = np.array([low, high], np.uint64) << _HALF
        parts = [(keys, values, slice(*np.searchsorted(keys, ends))) for keys, values in runs]
        keys = np.concatenate([keys[part] for keys, _, part in parts])
        values = np.concatenate([values[part] for _, values, part in parts])
        by_key = np.argsort(keys)
        target = slice(starts[low], starts[high])
        documents_out[target] = keys[by_key] & _LOW
        saturations_out[target] = values[by_key]
        peaks[low:high] = np.maximum.reduceat(values[by_key], starts[low:high] - starts[low])
    np.save(folder / "peaks.npy", peaks)
    documents_out.flush()
    saturations_out.flush()
    counts = {"documents": len(asins), "with_terms": with_terms, "tokens": tokens}
    write_manifest(folder, **counts, terms=len(names), postings=total)


def _sorted(strings: list[bytes]) -> tuple[list[bytes], Array]:
    """Returns strings in ascending order, and the place there of each."""
    order = sorted(range(len(strings)), key=strings.__getitem__)
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return [strings[at] for at in order], places


def _renumbered(keys: Path, *, terms: Array, documents: Array, factors: Array) -> tuple[Array, Array]:
    """Returns a run sorted by the final numbers of terms and documents, and its saturations, given each document's
    norm; memory-mapped."""
    old, frequencies = np.load(keys), np.load(_values(keys))
    owners = (old & _LOW).astype(np.int64)
    new = _keys(terms[(old >> _HALF).astype(np.int64)], documents[owners])
    order = np.argsort(new)
    np.save(keys, new[order])
    np.save(_values(keys), (frequencies * factors[owners])[order])
    return np.load(keys, mmap_mode="r"), np.load(_values(keys), mmap_mode="r")


def _ranges(starts: Array) -> Iterator[tuple[int, int]]:
    """Yields ranges of terms with about `MERGE_POSTINGS` postings each."""
    low, terms = 0, len(starts) - 1
    while low < terms:
        high = int(np.searchsorted(starts, starts[low] + MERGE_POSTINGS, side="right")) - 1
        high = min(max(high, low + 1), terms)
        yield low, high
        low = high
