"""How an index lies on disk: one folder of arrays, and a manifest that is written last.

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leap.errors import PrerequisiteError
from leap_worlds.webshop.search.bm25 import Array

FORMAT = "leap-webshop-search"
VERSION = 2
MANIFEST = "manifest.json"
ARRAYS = ("starts", "documents", "saturations", "peaks")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the manifest states.

    Attributes:
        documents: All documents.
        with_terms: Those that have at least one term; the N of BM25.
        tokens: Terms in all documents, repeats included.
        terms: Different terms.
        postings: (term, document) pairs.
        files: Size of each file, bytes.
    """

    documents: int
    with_terms: int
    tokens: int
    terms: int
    postings: int
    files: dict[str, int]


class StringTable:
    """Sorted strings in two memory-mapped arrays: UTF-8 bytes end to end, and where each begins."""

    def __init__(self, folder: Path, name: str) -> None:
        self._text = load_array(folder, f"{name}_text")
        self._starts = load_array(folder, f"{name}_starts")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, at: int) -> str:
        return self._bytes(at).decode("utf-8", "surrogatepass")

    def find(self, text: str) -> int | None:
        """Returns the place of a string; None where it is not in the table."""
        wanted = text.encode("utf-8", "surrogatepass")
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._bytes(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self._bytes(low) == wanted else None

    def _bytes(self, at: int) -> bytes:
        return self._text[self._starts[at] : self._starts[at + 1]].tobytes()


def write_strings(folder: Path, name: str, strings: list[bytes]) -> None:
    """Writes what `StringTable` reads; the strings are sorted already."""
    starts = np.zeros(len(strings) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)), out=starts[1:])
    np.save(folder / f"{name}_starts.npy", starts)
    np.save(folder / f"{name}_text.npy", np.frombuffer(b"".join(strings), np.uint8))


def load_array(folder: Path, name: str) -> Array:
    """Returns a memory-mapped array, as a plain ndarray: the subclass costs microseconds at every slice."""
    path = folder / f"{name}.npy"
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:
        try:
            return np.load(path, allow_pickle=False)  # an empty array cannot be mapped
        except (OSError, ValueError) as error:
            raise damaged(folder, f"{path.name} is no array ({error})") from error


def write_manifest(folder: Path, manifest: dict[str, int]) -> None:
    """Writes the manifest beside the finished arrays."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.npy"))}
    content = asdict(Manifest(**manifest, files=sizes))
    text = json.dumps({"format": FORMAT, "version": VERSION, **content}, indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest and checks every file against it.

    Raises:
        PrerequisiteError: No index here, another program's or version's, or one that is not whole.
    """
    path = folder / MANIFEST
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PrerequisiteError(
            f"there is no search index at {folder} (no {MANIFEST}); build it from the catalogue"
        ) from None
    except (OSError, ValueError) as error:
        raise damaged(folder, f"{MANIFEST} cannot be read ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise PrerequisiteError(f"{folder} holds something else than a search index of leap; give another folder")
    if data.get("version") != VERSION:
        raise PrerequisiteError(
            f"the search index at {folder} has format version {data.get('version')!r} and this leap reads {VERSION};"
            " delete the folder and build the index again"
        )
    try:
        manifest = Manifest(**{name: value for name, value in data.items() if name not in ("format", "version")})
        files = dict(manifest.files)
    except (TypeError, ValueError) as error:
        raise damaged(folder, f"{MANIFEST} is not as this version writes it") from error
    expected = {f"{name}.npy" for name in ARRAYS} | {
        f"{table}_{part}.npy" for table in ("asins", "terms") for part in ("text", "starts")
    }
    if set(files) != expected:
        raise damaged(folder, f"{MANIFEST} does not list the files of an index")
    for name, size in files.items():
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
