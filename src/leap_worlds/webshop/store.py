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
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leap.errors import PrerequisiteError
from leap_worlds.webshop.catalogue import Product

STORE_VERSION = 2


class Manifest(msgspec.Struct, frozen=True):
    """What a store is.

    Attributes:
        version: Of the layout.
        key: Content key of the files and settings it was made from.
        products: Products on sale.
        human: Instructions by people that have attributes, so that they are goals.
        synthetic: Products with a made-up instruction.
        sources: SHA-256 of each file, by name.
    """

    version: int
    key: str
    products: int
    human: int
    synthetic: int
    sources: dict[str, str]


class Blob:
    """Many JSON values in one file, any of them read without the others.

    Not memory-mapped: each value lies alone, and a mapping would keep its neighbours too, 64 KB for a product. Reads name
    their place, so that threads and forked processes can share the open file; it is closed with the object.
    """

    def __init__(self, path: Path, kind: Any, *, ends: Any = None) -> None:
        self._path, self._ends = path, load_array(path.with_suffix(".npy")) if ends is None else ends
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        if size != (self._ends[-1] if len(self._ends) else 0):
            raise ValueError(f"{path.name} has {size} bytes, not as many as were written")
        self._decoder = msgspec.json.Decoder(kind)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Any:
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

    def add(self, value: Any) -> None:
        """Appends a value."""
        data = self._encoder.encode(value)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(data))
        self._file.write(data)

    def close(self) -> None:
        """Ends the file."""
        self._file.close()
        np.save(self._path.with_suffix(".npy"), np.array(self._ends, dtype=np.int64))


class ProductStore:
    """The products of one catalogue. Reads only; made by `leap_worlds.webshop.build.build_store`.

    Args:
        folder: The store.

    Raises:
        PrerequisiteError: It is not a store, is another version's, or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
            self._products = Blob(folder / "products.bin", Product)
            self._asins = load_array(folder / "asins.npy")
            self._by_asin = load_array(folder / "by_asin.npy")
            self.pricing = load_array(folder / "pricing.npy")
            sizes = {len(self._products), len(self._asins), len(self._by_asin), len(self.pricing), self.manifest.products}
            if self.manifest.version != STORE_VERSION or len(sizes) != 1:
                raise ValueError("its parts do not belong together")
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise PrerequisiteError(
                f"{folder} is no WebShop catalogue that this version of leap can use ({error}). Remove it; it is made anew."
            ) from error

    def __len__(self) -> int:
        return len(self._products)

    def __getitem__(self, index: int) -> Product:
        """Returns a product by its place in the files' order."""
        return self._products[index]

    def __iter__(self) -> Iterator[Product]:
        return (self._products[index] for index in range(len(self)))

    def find(self, asin: str) -> int | None:
        """Returns the place of the product of that number; None if it is not on sale."""
        wanted = asin.encode("utf-8", "replace")
        if len(wanted) > self._asins.itemsize:
            return None
        at = int(np.searchsorted(self._asins, np.array(wanted, dtype=self._asins.dtype)))
        if at < len(self._asins) and self._asins[at] == wanted:
            return int(self._by_asin[at])
        return None

    def product(self, asin: str) -> Product:
        """Returns the product of that number.

        Raises:
            KeyError: It is not on sale.
        """
        index = self.find(asin)
        if index is None:
            raise KeyError(asin)
        return self._products[index]

    def with_category(self, category: str) -> list[int]:
        """Returns the places of the products of a department."""
        return self._coded("categories", category)

    def with_query(self, query: str) -> list[int]:
        """Returns the places of the products that were collected by a query."""
        return self._coded("queries", query)

    def titled(self, title: str) -> int | None:
        """Returns the place of the last product of that title in lower case."""
        wanted = np.uint64(title_hash(title))
        hashes, places = self._titles
        at = int(np.searchsorted(hashes, wanted, side="right")) - 1
        while at >= 0 and hashes[at] == wanted:
            if self._products[int(places[at])].title.lower() == title:
                return int(places[at])
            at -= 1
        return None

    def instructions_file(self, *, human: bool) -> Path:
        """What goals are made of, a JSON array a line: [product's place, instruction, attributes, options] for those that people
        wrote, [product's place, instruction, attributes] for those made up."""
        return self.folder / ("human.jsonl" if human else "synthetic.jsonl")

    @cached_property
    def _titles(self) -> tuple[Any, Any]:
        return load_array(self.folder / "titles.npy"), load_array(self.folder / "titled.npy")

    @cached_property
    def _labels(self) -> dict[str, dict[str, int]]:
        labels = json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))
        return {kind: {label: code for code, label in enumerate(names)} for kind, names in labels.items()}

    def _coded(self, kind: str, label: str) -> list[int]:
        code = self._labels[kind].get(label)
        if code is None:
            return []
        return np.flatnonzero(load_array(self.folder / f"{kind}.npy") == code).tolist()


def title_hash(title: str) -> int:
    """64 bits that stand for a title."""
    return int.from_bytes(hashlib.blake2b(title.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file.

    Raises:
        PrerequisiteError: It is missing or unreadable.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise PrerequisiteError(f"{path} is missing. `leap data webshop` says which files go where.") from error
    except OSError as error:
        raise PrerequisiteError(f"{path} cannot be read: {error.strerror}") from error


def put_in_place(folder: Path, fill: Callable[[Path], None], *, done: str = "manifest.json") -> None:
    """Fills a folder under a name of its own and moves it in place; of two processes at it, the first one's stays.

    Args:
        folder: Where it is to be. What stands there without the file `done` is not finished, and is removed.
        fill: Fills the folder it is given; writes `done` last.
        done: The file that marks a finished folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        fill(partial)
        if folder.is_dir() and not (folder / done).is_file():
            shutil.rmtree(folder)
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / done).is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_array(path: Path) -> Any:
    """Returns a memory-mapped array, as a plain one: numpy's own class for mapped ones is slow to index."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:
        return np.load(path, allow_pickle=False)  # an empty array cannot be mapped
