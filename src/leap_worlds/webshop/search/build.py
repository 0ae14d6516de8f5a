"""Builds an index from a stream of documents, in bounded memory.

First pass: documents are read in batches; the (term, document) pairs of a batch are counted, sorted and put on disk as a
run. Then the final numbers of terms and documents are known, and the second pass merges the runs, a range of terms at a
time, into the index's arrays. In memory stay the vocabulary, the documents' ids and lengths, one batch, and one range.
"""

from __future__ import annotations

import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from leap.errors import PrerequisiteError
from leap_worlds.webshop.search.analyzer import term_of
from leap_worlds.webshop.search.bm25 import Array, encode_lengths, length_factors
from leap_worlds.webshop.search.storage import MANIFEST, write_manifest, write_strings
from leap_worlds.webshop.search.tokenizer import tokenize

BATCH_TOKENS = 4_000_000
"""Tokens in memory before a run is put on disk (about 100 MB with what sorting them takes)."""
MERGE_POSTINGS = 6_000_000
"""Postings merged at once, unless one term has more."""

_MEMO = 1_000_000
_STOPPED = -1
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def build_index(
    documents: Iterable[tuple[str, str]], folder: Path, *, progress: Callable[[int], None] | None = None
) -> None:
    """Builds an index; until it is whole, `folder` stays as it was.

    Args:
        documents: (ASIN, contents) pairs, read once. The contents are what Lucene would index; upstream lower-cases them.
        folder: Where the index goes. An index that is there already is replaced.
        progress: Told how many documents are read, after each few thousand and at the end.

    Raises:
        PrerequisiteError: An ASIN occurs twice, or `folder` holds something that is not an index.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise PrerequisiteError(f"{folder} holds something else than a search index; give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        made, runs = work / "index", work / "runs"
        made.mkdir()
        runs.mkdir()
        scan = _Scan(runs)
        scan.read(documents, progress)
        _write(scan, made)
        if folder.exists():
            folder.rename(work / "replaced")
        made.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


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


class _Scan:
    """The first pass: vocabulary, ids, lengths, and one run of counted pairs for each batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = _TermNumbers()
        self.asins: list[bytes] = []
        self.lengths = array("q")
        self.runs = 0

    def read(self, documents: Iterable[tuple[str, str]], progress: Callable[[int], None] | None) -> None:
        """Reads all documents."""
        look_up = self.numbers.__getitem__
        stream = iter(documents)
        while True:
            tokens, owners = array("q"), array("q")
            first = len(self.asins)
            while len(tokens) < BATCH_TOKENS and (some := list(islice(stream, 1000))):
                for asin, contents in some:
                    before = len(tokens)
                    tokens.extend(map(look_up, tokenize(contents)))
                    owners.append(len(tokens) - before)
                    self.asins.append(asin.encode("utf-8", "surrogatepass"))
                if progress is not None:
                    progress(len(self.asins))
            if not owners:
                return
            self._put_away(np.frombuffer(tokens, np.int64), np.frombuffer(owners, np.int64), first)

    def _put_away(self, terms: Array, tokens_of: Array, first: int) -> None:
        documents = np.repeat(np.arange(first, first + len(tokens_of)), tokens_of)
        kept = terms >= 0
        terms, documents = terms[kept], documents[kept]
        self.lengths.extend(np.bincount(documents - first, minlength=len(tokens_of)))
        pairs, frequencies = np.unique(_keys(terms, documents), return_counts=True)
        np.save(self.folder / f"{self.runs}-keys.npy", pairs)
        np.save(self.folder / f"{self.runs}-values.npy", frequencies.astype(np.float32))
        self.runs += 1


def _keys(terms: Array, documents: Array) -> Array:
    return (terms.astype(np.uint64) << _HALF) | documents.astype(np.uint64)


def _write(scan: _Scan, folder: Path) -> None:
    """Writes the index's arrays from a scan's runs: the second pass."""
    order = sorted(range(len(scan.asins)), key=scan.asins.__getitem__)
    asins = [scan.asins[at] for at in order]
    for before, after in pairwise(asins):
        if before == after:
            raise PrerequisiteError(f"two documents have the id {after.decode('utf-8', 'replace')!r}; keep one of them")
    write_strings(folder, "asins", asins)
    names = [term.encode("utf-8") for term in scan.numbers.terms]
    by_name = sorted(range(len(names)), key=names.__getitem__)
    write_strings(folder, "terms", [names[at] for at in by_name])

    lengths = np.frombuffer(scan.lengths, np.int64) if scan.lengths else np.zeros(0, np.int64)
    with_terms, tokens = int(np.count_nonzero(lengths)), int(lengths.sum())
    factors = length_factors(with_terms, tokens)[encode_lengths(lengths)]
    runs = [_renumbered(scan.folder, run, _places(by_name), _places(order), factors) for run in range(scan.runs)]
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
    counts = {"documents": len(asins), "with_terms": with_terms, "tokens": tokens, "terms": len(names), "postings": total}
    write_manifest(folder, counts)


def _places(order: list[int]) -> Array:
    """Returns the place of each number in an order."""
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


def _renumbered(folder: Path, run: int, terms: Array, documents: Array, factors: Array) -> tuple[Array, Array]:
    """Returns a run sorted by the final numbers of terms and documents, and its saturations; memory-mapped.

    Args:
        folder: The folder of the runs.
        run: The run's number.
        terms, documents: The final number of each.
        factors: For each document, norm of BM25, float32.
    """
    keys, values = folder / f"{run}-keys.npy", folder / f"{run}-values.npy"
    old, frequencies = np.load(keys), np.load(values)
    owners = (old & _LOW).astype(np.int64)
    new = _keys(terms[(old >> _HALF).astype(np.int64)], documents[owners])
    order = np.argsort(new)
    np.save(keys, new[order])
    np.save(values, (frequencies * factors[owners])[order])
    return np.load(keys, mmap_mode="r"), np.load(values, mmap_mode="r")


def _ranges(starts: Array) -> Iterator[tuple[int, int]]:
    """Yields ranges of terms with about `MERGE_POSTINGS` postings each."""
    low, terms = 0, len(starts) - 1
    while low < terms:
        high = int(np.searchsorted(starts, starts[low] + MERGE_POSTINGS, side="right")) - 1
        high = min(max(high, low + 1), terms)
        yield low, high
        low = high
