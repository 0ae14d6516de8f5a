"""A catalogue on disk as the shop uses it: made once from the official files, its arrays memory-mapped and shared by all.

    products.bin, products.npy    each product as JSON, and where it begins
    asins.npy, by_asin.npy        the products' numbers, sorted, and whose they are
    pricing.npy                   both ends of each price (the second is no number where there is one price)
    categories.npy, queries.npy   codes of each product's department and query, numbers in their text lists (labels.json)
    human.jsonl, synthetic.jsonl  what goals are made of, people's and made-up ones, in the files' order
    titles.npy                    hash of each title in lower case, sorted, and whose it is (the reference wrapper's names)
    nouns-<tagger>/               nouns of each title, made when a tagger is first used
    goals-human/, goals-synthetic/   where the instructions lie and the order of goals, made when goals of a kind are first used
    search-2/                     the search index, made by `leap_worlds.webshop.search`
    manifest.json                 what it was made from; written last

Nothing in it is code: JSON, and arrays of numbers and bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import numpy as np

from leap.errors import PrerequisiteError
from leap_worlds.webshop.catalogue import Product

STORE_VERSION = 2

T = TypeVar("T")


class Manifest(msgspec.Struct, frozen=True):
    """What a store is.

    Attributes:
        version, key: Of the layout; content key of the files and settings it was made from.
        products: Products on sale.
        human, synthetic: Instructions by people that have attributes, so that they are goals; products with a made-up one.
        sources: SHA-256 of each file, by name.
    """

    version: int
    key: str
    products: int
    human: int
    synthetic: int
    sources: dict[str, str]


class Blob(Generic[T]):
    """Many JSON values in one file, any of them read without the others.

    Not memory-mapped: each value lies alone, and a mapping would keep its neighbours too, 64 KB for a product. Reads
    name their place, so that threads and forked processes can share the open file; it is closed with the object.
    """

    def __init__(self, path: Path, kind: type[T], *, ends: np.ndarray | None = None) -> None:
        self._path, self._ends = path, load_array(path.with_suffix(".npy")) if ends is None else ends
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        if size != (self._ends[-1] if len(self._ends) else 0):
            raise ValueError(f"{path.name} has {size} bytes, not as many as were written")
        self._decoder = msgspec.json.Decoder(kind)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> T:
        start, end = int(self._ends[index - 1]) if index else 0, int(self._ends[index])
        data = os.pread(self._file, end - start, start)
        if len(data) != end - start:
            raise PrerequisiteError(
                f"{self._path} was cut off while it was in use. Remove its folder; it is made anew."
            )
        return self._decoder.decode(data)


class BlobWriter:
    """Writes what `Blob` reads."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("wb")
        self._ends: list[int] = []
        self._encoder = msgspec.json.Encoder()

    def add(self, value: object) -> None:
        """Appends a value."""
        data = self._encoder.encode(value)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(data))
        self._file.write(data)

    def close(self) -> None:
        """Ends the file."""
        self._file.close()
        np.save(self._path.with_suffix(".npy"), np.array(self._ends, dtype=np.int64))


class ProductStore(Blob[Product]):
    """The products of one catalogue by their place in the files' order, as `leap_worlds.webshop.build` wrote them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
            super().__init__(folder / "products.bin", Product)
            arrays = (load_array(folder / f"{name}.npy") for name in ("asins", "by_asin", "pricing"))
            self._asins, self._by_asin, self.pricing = arrays
            sizes = {len(self), len(self._asins), len(self._by_asin), len(self.pricing), self.manifest.products}
            if self.manifest.version != STORE_VERSION or len(sizes) != 1:
                raise ValueError("its parts do not belong together")
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise PrerequisiteError(
                f"{folder} is no WebShop catalogue that this version of leap can use ({error}). Remove it; it is made anew."
            ) from error

    def find(self, asin: str) -> int | None:
        """Returns the place of the product of that number; None if it is not on sale."""
        wanted = asin.encode("utf-8", "replace")
        if len(wanted) > self._asins.itemsize:
            return None
        at = int(np.searchsorted(self._asins, np.array(wanted, dtype=self._asins.dtype)))
        return int(self._by_asin[at]) if at < len(self._asins) and self._asins[at] == wanted else None

    def labelled(self, kind: str, label: str) -> list[int]:
        """Returns the places of the products of a department ("categories"), or that a query collected ("queries")."""
        labels: list[str] = self._labels[kind]
        codes = load_array(self.folder / f"{kind}.npy")
        return np.flatnonzero(codes == labels.index(label)).tolist() if label in labels else []

    def titled(self, title: str) -> int | None:
        """Returns the place of the last product of that title in lower case."""
        wanted = np.uint64(title_hash(title))
        hashes, places = self._titles
        at = int(np.searchsorted(hashes, wanted, side="right")) - 1
        while at >= 0 and hashes[at] == wanted:
            if self[int(places[at])].title.lower() == title:
                return int(places[at])
            at -= 1
        return None

    def instructions_file(self, *, human: bool) -> Path:
        """What goals are made of, a JSON array a line: [product's place, instruction, attributes, options] for those
        that people wrote, [product's place, instruction, attributes] for those made up."""
        return self.folder / ("human.jsonl" if human else "synthetic.jsonl")

    @cached_property
    def _titles(self) -> tuple[np.ndarray, np.ndarray]:
        return load_array(self.folder / "titles.npy"), load_array(self.folder / "titled.npy")

    @cached_property
    def _labels(self) -> dict[str, list[str]]:
        return json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))


def title_hash(title: str) -> int:
    """64 bits that stand for a title."""
    return int.from_bytes(hashlib.blake2b(title.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def load_array(path: Path) -> np.ndarray:
    """Returns a memory-mapped array, as a plain one: numpy's own class for mapped ones is slow to index."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:
        return np.load(path, allow_pickle=False)  # an empty array cannot be mapped
