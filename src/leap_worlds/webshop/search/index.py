"""An index on disk, one folder of arrays and a manifest that is written last, and opened for searching.

manifest.json       format, version, counts, and the size of every file
asins.*             the documents' ids in ascending order of their UTF-8 bytes; a document's number is its place here
terms.*             the terms, likewise
starts.npy          (terms + 1,) int64: where each term's postings begin
documents.npy       (postings,) uint32: ascending within each term
saturations.npy     (postings,) float32: tf * norm of BM25
peaks.npy           (terms,) float32: the highest saturation of each term

The postings are one sparse matrix in compressed columns: a row for each document, a column for each term.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np

from leap.errors import PrerequisiteError
from leap_worlds.webshop.search.analyzer import analyze
from leap_worlds.webshop.search.bm25 import Postings, best, contributions, weight
from leap_worlds.webshop.store import load_array

FORMAT = "leap-webshop-search"
VERSION = 2
MANIFEST = "manifest.json"
ARRAYS = ("starts", "documents", "saturations", "peaks")
_FILES = {f"{name}.npy" for name in (*ARRAYS, "asins_text", "asins_starts", "terms_text", "terms_starts")}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the manifest states: numbers of documents, of those that have a term (the N of BM25), of terms in all of
    them, of different terms and of (term, document) pairs, and the size of each file in bytes."""

    documents: int
    with_terms: int
    tokens: int
    terms: int
    postings: int
    files: dict[str, int]


class StringTable:
    """Sorted strings in two memory-mapped arrays: UTF-8 bytes end to end, and where each begins."""

    def __init__(self, folder: Path, name: str) -> None:
        self._text = load_array(folder / f"{name}_text.npy")
        self._starts = load_array(folder / f"{name}_starts.npy")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, at: int) -> str:
        return self._bytes(at).decode("utf-8", "surrogatepass")

    def find(self, text: str) -> int | None:
        """Returns the place of a string; None where it is not in the table."""
        wanted = text.encode("utf-8", "surrogatepass")
        at = bisect_left(range(len(self)), wanted, key=self._bytes)
        return at if at < len(self) and self._bytes(at) == wanted else None

    def _bytes(self, at: int) -> bytes:
        return self._text[self._starts[at] : self._starts[at + 1]].tobytes()


def write_strings(folder: Path, name: str, strings: list[bytes]) -> None:
    """Writes what `StringTable` reads; the strings are sorted already."""
    starts = np.zeros(len(strings) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)), out=starts[1:])
    np.save(folder / f"{name}_starts.npy", starts)
    np.save(folder / f"{name}_text.npy", np.frombuffer(b"".join(strings), np.uint8))


def write_manifest(folder: Path, **counts: int) -> None:
    """Writes the manifest beside the finished arrays."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.npy"))}
    text = json.dumps({"format": FORMAT, "version": VERSION, **counts, "files": sizes}, indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest and checks every file against it."""
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PrerequisiteError(
            f"there is no search index at {folder} (no {MANIFEST}); build it from the catalogue"
        ) from None
    except (OSError, ValueError) as error:
        raise damaged(folder, f"{MANIFEST} cannot be read ({error})") from error
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise PrerequisiteError(f"{folder} holds something else than a search index of leap; give another folder")
    if (version := data.pop("version", None)) != VERSION:
        raise PrerequisiteError(
            f"the search index at {folder} has format version {version!r} and this leap reads {VERSION};"
            " delete the folder and build the index again"
        )
    try:
        manifest = msgspec.convert(data, Manifest)
    except msgspec.ValidationError as error:
        raise damaged(folder, f"{MANIFEST} is not as this version writes it") from error
    if manifest.files.keys() != _FILES:
        raise damaged(folder, f"{MANIFEST} does not list the files of an index")
    for name, size in manifest.files.items():
        file = folder / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            raise damaged(folder, f"{name} is missing" if found is None else f"{name} has {found} bytes, not {size}")
    return manifest


def damaged(folder: Path, why: str) -> PrerequisiteError:
    """Returns the error for an index that is not whole."""
    return PrerequisiteError(
        f"the search index at {folder} is damaged: {why}; delete the folder and build the index again"
    )


class SearchIndex:
    """A catalogue's index. Read only, memory-mapped: worker processes that open the same folder share its pages.

    Args:
        folder: What `build_index` wrote.

    Raises:
        PrerequisiteError: No index there, another version's, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = read_manifest(folder)
        try:
            self._asins, self._terms = StringTable(folder, "asins"), StringTable(folder, "terms")
            arrays = {name: load_array(folder / f"{name}.npy") for name in ARRAYS}
        except (OSError, ValueError) as error:
            raise damaged(folder, f"a file is no array ({error})") from error
        counts = self.manifest
        sizes = (len(self._asins), len(self._terms), *(len(arrays[name]) for name in ARRAYS))
        if sizes != (counts.documents, counts.terms, counts.terms + 1, counts.postings, counts.postings, counts.terms):
            raise damaged(folder, "its arrays do not have the lengths that the manifest states")
        self._arrays = arrays

    def __len__(self) -> int:
        return self.manifest.documents

    def search(self, query: str, k: int = 50) -> list[str]:
        """Returns the ASINs of at most k documents in Lucene's order: score descending, then ASIN ascending."""
        ranked = best(self.postings(query), len(self), k) if k > 0 else ()
        return [self._asins[number] for number in ranked]

    def postings(self, query: str) -> list[Postings]:
        """The postings of a query's terms, each weighted by how often the query has it; unknown terms are left out."""
        found = ((self._terms.find(term), boost) for term, boost in Counter(analyze(query)).items())
        return [self._postings(at, boost) for at, boost in found if at is not None]

    def _postings(self, at: int, boost: int) -> Postings:
        start, end = self._arrays["starts"][at : at + 2].tolist()
        weighted = weight(self.manifest.with_terms, end - start, boost)
        return Postings(
            self._arrays["documents"][start:end],
            self._arrays["saturations"][start:end],
            weighted,
            float(contributions(weighted, self._arrays["peaks"][at])),
        )
