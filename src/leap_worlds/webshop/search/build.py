"""Builds an index from a stream of documents, in bounded memory.

Documents are read in batches. Of each, the (term, document, tf) triples are sorted and put away as a run on disk. At the
end the runs are merged, a range of terms at a time, into the index's arrays. In memory stay the vocabulary, the
documents' ids and lengths, one batch, and one range.
"""

from __future__ import annotations

import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from leap.errors import PrerequisiteError
from leap_worlds.webshop.search.analyzer import term_of
from leap_worlds.webshop.search.bm25 import Array, encode_lengths, length_factors
from leap_worlds.webshop.search.storage import MANIFEST, write_manifest, write_strings
from leap_worlds.webshop.search.tokenizer import tokenize

BATCH_TOKENS = 4_000_000
"""Tokens in memory before a run is put away (about 100 MB with what sorting them takes)."""
MERGE_POSTINGS = 6_000_000
"""Postings merged at once, unless one term has more."""

SPLIT_FROM = 1024
"""Postings from which on a term's best are kept apart."""
HEAD_SHARE = 8
"""At most one posting in so many is among the best."""

_MEMO = 1_000_000
_STOPPED = -1
_MAX_TF = (1 << 24) - 1
_MAX_CODES = 1 << 16


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
        made = work / "index"
        made.mkdir()
        scan = _Scan(work / "runs")
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


@dataclass(frozen=True, slots=True)
class _Run:
    """One batch on disk, sorted by term, then document.

    Attributes:
        path: Rows of (document, tf << 8 | length byte), uint32.
        terms: The terms it has, ascending.
        starts: Where each term's rows begin; one longer.
    """

    path: Path
    terms: Array
    starts: Array


class _Scan:
    """The first pass."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.numbers = _TermNumbers()
        self.asins: list[bytes] = []
        self.runs: list[_Run] = []
        self.pairs = np.zeros(0, np.uint32)
        self.tokens = self.with_terms = 0

    def read(self, documents: Iterable[tuple[str, str]], progress: Callable[[int], None] | None) -> None:
        look_up = self.numbers.__getitem__
        stream = iter(documents)
        while True:
            first = len(self.asins)
            tokens, lengths = array("i"), array("q")
            while len(tokens) < BATCH_TOKENS and (some := list(islice(stream, 1000))):
                for asin, contents in some:
                    before = len(tokens)
                    tokens.extend(map(look_up, tokenize(contents)))
                    lengths.append(len(tokens) - before)
                    self.asins.append(asin.encode("utf-8", "surrogatepass"))
                if progress is not None:
                    progress(len(self.asins))
            if not lengths:
                return
            self._put_away(np.frombuffer(tokens, np.int32), np.frombuffer(lengths, np.int64), first)

    def _put_away(self, tokens: Array, lengths: Array, first: int) -> None:
        document = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
        kept = tokens >= 0
        keys = (tokens[kept].astype(np.uint64) << np.uint64(32)) | document[kept]
        terms_of = np.bincount(document[kept].astype(np.int64), minlength=len(lengths))
        self.tokens += len(keys)
        self.with_terms += int(np.count_nonzero(terms_of))
        if not len(keys):
            return
        keys.sort()
        at = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        tf = np.diff(np.append(at, len(keys)))
        local = (keys[at] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        pair = (np.minimum(tf, _MAX_TF).astype(np.uint32) << np.uint32(8)) | encode_lengths(terms_of)[local]
        term = (keys[at] >> np.uint64(32)).astype(np.int64)
        begins = np.flatnonzero(np.concatenate(([True], term[1:] != term[:-1])))
        self.pairs = np.union1d(self.pairs, pair)
        path = self.folder / f"{len(self.runs)}.npy"
        np.save(path, np.stack(((local + first).astype(np.uint32), pair), axis=1))
        self.runs.append(_Run(path, term[begins], np.append(begins, len(term))))


def _write(scan: _Scan, folder: Path) -> None:
    order = sorted(range(len(scan.asins)), key=scan.asins.__getitem__)
    asins = [scan.asins[at] for at in order]
    for before, after in pairwise(asins):
        if before == after:
            raise PrerequisiteError(f"two documents have the id {after.decode('utf-8', 'replace')!r}; keep one of them")
    write_strings(folder, "asins", asins)
    number_of = np.empty(len(order), np.uint32)
    number_of[order] = np.arange(len(order), dtype=np.uint32)

    names = [term.encode("utf-8") for term in scan.numbers.terms]
    by_name = sorted(range(len(names)), key=names.__getitem__)
    write_strings(folder, "terms", [names[at] for at in by_name])

    pairs, codes, saturations = _codes(scan)
    np.save(folder / "saturations.npy", saturations)
    postings = _merge(scan, folder, by_name=np.array(by_name, np.int64), number_of=number_of, pairs=pairs, codes=codes)
    write_manifest(
        folder,
        {
            "documents": len(asins),
            "with_terms": scan.with_terms,
            "tokens": scan.tokens,
            "terms": len(names),
            "postings": postings,
        },
    )


def _codes(scan: _Scan) -> tuple[Array, Array, Array]:
    """The different (tf, length byte) pairs, the code of each, and the codes' saturations in ascending order."""
    tf = (scan.pairs >> np.uint32(8)).astype(np.float32)
    factor = length_factors(scan.with_terms, scan.tokens)[scan.pairs & np.uint32(0xFF)]
    saturations, codes = np.unique(tf * factor, return_inverse=True)
    if len(saturations) > _MAX_CODES:
        raise PrerequisiteError(
            f"the documents have {len(saturations)} different pairs of frequency and length, more than an index can hold;"
            " they do not look like a catalogue"
        )
    return scan.pairs, codes.astype(np.uint16), saturations


def _merge(scan: _Scan, folder: Path, *, by_name: Array, number_of: Array, pairs: Array, codes: Array) -> int:
    """The second pass: all runs into the arrays. Returns the number of postings."""
    terms = len(by_name)
    place = np.empty(terms, np.int64)
    place[by_name] = np.arange(terms)
    counts = np.zeros(terms, np.int64)
    for run in scan.runs:
        counts[run.terms] += np.diff(run.starts)
    starts = np.zeros(terms + 1, np.int64)
    np.cumsum(counts[by_name], out=starts[1:])
    total = int(starts[-1])
    heads, head_codes, tail_codes = starts[:-1].copy(), np.zeros(terms, np.uint16), np.zeros(terms, np.uint16)

    documents_out = np.lib.format.open_memmap(folder / "documents.npy", "w+", np.uint32, (total,))
    codes_out = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.uint16, (total,))
    # Terms are merged in the order of their numbers, which is the order of the runs, and land where their names belong.
    runs = [np.load(run.path, mmap_mode="r", allow_pickle=False) for run in scan.runs]
    for low, high in _ranges(counts):
        term_parts, document_parts, code_parts = [], [], []
        for run, rows in zip(scan.runs, runs, strict=True):
            first, last = np.searchsorted(run.terms, (low, high))
            part = np.asarray(rows[run.starts[first] : run.starts[last]])
            term_parts.append(np.repeat(run.terms[first:last] - low, np.diff(run.starts[first : last + 1])))
            document_parts.append(number_of[part[:, 0]])
            code_parts.append(codes[np.searchsorted(pairs, part[:, 1])])
        term = np.concatenate(term_parts)
        keys = (
            (term.astype(np.uint64) << np.uint64(48))
            | (np.concatenate(document_parts).astype(np.uint64) << np.uint64(16))
            | np.concatenate(code_parts).astype(np.uint64)
        )
        keys.sort()
        documents = ((keys >> np.uint64(16)) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        coded = (keys & np.uint64(0xFFFF)).astype(np.uint16)
        ends = np.cumsum(counts[low:high])
        for number, end in zip(range(low, high), ends.tolist(), strict=True):
            at = place[number]
            begin = end - int(counts[number])
            split = split_postings(documents[begin:end], coded[begin:end])
            target = slice(starts[at], starts[at + 1])
            documents_out[target], codes_out[target], head, head_codes[at], tail_codes[at] = split
            heads[at] += head
    documents_out.flush()
    codes_out.flush()
    np.save(folder / "starts.npy", starts)
    np.save(folder / "heads.npy", heads)
    np.save(folder / "head_codes.npy", head_codes)
    np.save(folder / "tail_codes.npy", tail_codes)
    return total


def _ranges(counts: Array) -> Iterator[tuple[int, int]]:
    """Ranges of term numbers with about `MERGE_POSTINGS` postings, at most 65,536 terms each."""
    low = 0
    cumulative = np.cumsum(counts)
    while low < len(counts):
        done = int(cumulative[low - 1]) if low else 0
        high = int(np.searchsorted(cumulative, done + MERGE_POSTINGS, side="right"))
        high = min(max(high, low + 1), low + (1 << 16), len(counts))
        yield low, high
        low = high


def split_postings(documents: Array, codes: Array) -> tuple[Array, Array, int, int, int]:
    """Cuts a term's postings in two parts, those of the highest codes and the rest (see `ranking`).

    Args:
        documents: (n,) ascending.
        codes: (n,) uint16.

    Returns:
        Both arrays, the first part in front; its size, zero for a short list; its highest code; that of the rest.
    """
    top = int(codes.max())
    if len(codes) < SPLIT_FROM:
        return documents, codes, 0, 0, top
    at_least = np.cumsum(np.bincount(codes)[::-1])[::-1]  # how many have this code or a higher one
    cut = int(np.count_nonzero(at_least * HEAD_SHARE > len(codes)))  # the lowest code of the head
    head = codes >= cut
    size = int(np.count_nonzero(head))
    if not size:
        return documents, codes, 0, 0, top
    order = np.concatenate((np.flatnonzero(head), np.flatnonzero(~head)))
    return documents[order], codes[order], size, top, int(codes[~head].max())
