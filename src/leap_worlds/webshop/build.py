"""Makes a catalogue's store from the official files: one pass over each, so that 1.2 million products fit in any machine."""

from __future__ import annotations

import itertools
import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leap.core import content_key
from leap.envs.base import Progress
from leap.errors import PrerequisiteError
from leap.paths import cache_dir
from leap_worlds.webshop.catalogue import RawAttributes, RawInstruction, RawProduct, make_product, on_sale
from leap_worlds.webshop.jsonfiles import JsonArray, read_object
from leap_worlds.webshop.store import (
    STORE_VERSION,
    BlobWriter,
    Manifest,
    ProductStore,
    file_digest,
    put_in_place,
    title_hash,
)


@dataclass(frozen=True)
class CatalogueFiles:
    """The three official files, and how many of the products to take.

    Attributes:
        products: `items_shuffle.json` or `items_shuffle_1000.json`.
        attributes: `items_ins_v2.json` or `items_ins_v2_1000.json`.
        instructions: `items_human_ins.json`.
        limit: Only so many of the products, from the start of the file; all if None.
    """

    products: Path
    attributes: Path
    instructions: Path
    limit: int | None = None

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """The files, in the order of the fields."""
        return self.products, self.attributes, self.instructions


def open_catalogue(files: CatalogueFiles, *, progress: Progress | None = None) -> ProductStore:
    """Returns the files' store, from leap's cache folder, or made there now.

    Args:
        files: What to make it from.
        progress: Called with products done, products in all and what is being done.

    Raises:
        PrerequisiteError: A file is missing, cut off, or is not what it should be; or another catalogue's store is there.
    """
    key = catalogue_key(files)
    folder = cache_dir() / "webshop" / key
    if not (folder / "manifest.json").is_file():
        put_in_place(folder, lambda partial: build_store(files, partial, key=key, progress=progress))
    store = ProductStore(folder)
    if store.manifest.key != key:
        raise PrerequisiteError(f"{folder} is the store of another catalogue. Remove it; it is made anew.")
    return store


def catalogue_key(files: CatalogueFiles) -> str:
    """Content key of a catalogue. A file that has not changed since it was last read is not read again for it."""
    return content_key(STORE_VERSION, files.limit, [_known_digest(path) for path in files.paths])


def build_store(files: CatalogueFiles, folder: Path, *, key: str = "", progress: Progress | None = None) -> None:
    """Fills an empty folder with the files' store.

    Raises:
        PrerequisiteError: A file is missing, cut off, or is not what it should be.
    """
    attributes = read_object(files.attributes, RawAttributes)
    people = read_object(files.instructions, list[RawInstruction])
    elements = JsonArray(files.products, RawProduct, key="asin")
    total = min(len(elements), files.limit or len(elements))
    asins: list[bytes] = []
    titles = array("Q")
    pricing = array("d")
    labels: dict[str, dict[str, int]] = {"categories": {}, "queries": {}}
    codes = {kind: array("i") for kind in labels}
    human = synthetic = 0
    blob = BlobWriter(folder / "products.bin")
    with (folder / "human.jsonl").open("wb") as human_lines, (folder / "synthetic.jsonl").open("wb") as synthetic_lines:
        for place, raw in enumerate(on_sale(_counted(itertools.islice(elements, files.limit), total, progress))):
            known = attributes.get(raw.asin)
            try:
                product = make_product(raw, known)
            except ValueError as error:
                raise PrerequisiteError(f"{files.products}, product {raw.asin!r}: {error}") from error
            blob.add(product)
            asins.append(_asin_bytes(product.asin, files.products))
            titles.append(title_hash(product.title.lower()))
            pricing.extend((product.pricing[0], product.pricing[1] if len(product.pricing) == 2 else math.nan))
            for kind, label in (("categories", product.category), ("queries", product.query)):
                codes[kind].append(labels[kind].setdefault(label, len(labels[kind])))
            for said in people.get(raw.asin, ()):
                if said.instruction_attributes:
                    line = (place, said.instruction, said.instruction_attributes, said.instruction_options)
                    human_lines.write(msgspec.json.encode(line) + b"\n")
                    human += 1
            if known is not None and known.instruction is not None and known.instruction_attributes:
                line = (place, known.instruction, known.instruction_attributes)
                synthetic_lines.write(msgspec.json.encode(line) + b"\n")
                synthetic += 1
    blob.close()
    if not asins:
        raise PrerequisiteError(f"{files.products} holds no product; is it the right file?")
    _save_sorted(folder / "asins.npy", folder / "by_asin.npy", np.array(asins))
    _save_sorted(folder / "titles.npy", folder / "titled.npy", np.frombuffer(titles, dtype=np.uint64))
    np.save(folder / "pricing.npy", np.frombuffer(pricing).reshape(-1, 2))
    for kind, values in codes.items():
        np.save(folder / f"{kind}.npy", np.frombuffer(values, dtype=np.int32))
    (folder / "labels.json").write_text(json.dumps({kind: list(names) for kind, names in labels.items()}), encoding="utf-8")
    sources = {path.name: _known_digest(path) for path in files.paths}
    manifest = Manifest(STORE_VERSION, key, len(asins), human, synthetic, sources)
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))


def _counted(elements: Iterator[RawProduct], total: int, progress: Progress | None) -> Iterator[RawProduct]:
    for done, element in enumerate(elements):
        if progress is not None and done % 1000 == 0:
            progress(done, total, "reading products")
        yield element
    if progress is not None:
        progress(total, total, "reading products")


def _asin_bytes(asin: str, path: Path) -> bytes:
    if not asin or "\0" in asin:
        raise PrerequisiteError(f"{path} holds a product whose asin is {asin!r}")
    return asin.encode()


def _save_sorted(values_file: Path, places_file: Path, values: Any) -> None:
    order = np.argsort(values, kind="stable")
    np.save(values_file, values[order])
    np.save(places_file, order.astype(np.int32))


def _known_digest(path: Path) -> str:
    """A file's SHA-256, remembered by path, size and time of change: to read 5 GB again takes longer than to start."""
    try:
        stat = path.stat()
    except OSError:
        return file_digest(path)  # which says what is wrong
    stamp = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    note = cache_dir() / "webshop" / "digests" / f"{content_key(*stamp)}.txt"
    try:
        digest = note.read_text(encoding="utf-8").strip()
        if len(digest) == 64:
            return digest
    except OSError:
        pass
    digest = file_digest(path)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(digest, encoding="utf-8")
    return digest
