"""Makes a catalogue's store from the official files: one pass over each, so that 1.2 million products fit in any machine."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from array import array
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from leap.core import content_key
from leap.envs.base import Progress
from leap.errors import PrerequisiteError
from leap.files import write_text
from leap.paths import cache_dir
from leap_worlds.made import counted, put_in_place
from leap_worlds.webshop.catalogue import RawAttributes, RawInstruction, RawProduct, make_product, on_sale
from leap_worlds.webshop.jsonfiles import JsonArray, JsonObject
from leap_worlds.webshop.store import STORE_VERSION, BlobWriter, Manifest, ProductStore, title_hash


@dataclass(frozen=True)
class CatalogueFiles:
    """The three official files, of either size, and how many of the first products to take; all if None."""

    products: Path
    attributes: Path
    instructions: Path
    limit: int | None = None

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """The files, in the order of the fields."""
        return self.products, self.attributes, self.instructions


def open_catalogue(files: CatalogueFiles, *, progress: Progress | None = None) -> ProductStore:
    """Returns the files' store, from leap's cache folder, or made there now."""
    key = catalogue_key(files)
    folder = cache_dir() / "webshop" / key
    put_in_place(folder, lambda partial: build_store(files, partial, key=key, progress=progress))
    store = ProductStore(folder)
    if store.manifest.key != key:
        raise PrerequisiteError(f"{folder} is the store of another catalogue. Remove it; it is made anew.")
    return store


def catalogue_key(files: CatalogueFiles) -> str:
    """Content key of a catalogue. A file that has not changed since it was last read is not read again for it."""
    return content_key(STORE_VERSION, files.limit, [_digest(path) for path in files.paths])


def build_store(files: CatalogueFiles, folder: Path, *, key: str = "", progress: Progress | None = None) -> None:
    """Fills an empty folder with the files' store."""
    attributes = JsonObject(files.attributes, RawAttributes)
    people = JsonObject(files.instructions, list[RawInstruction])
    entries = JsonArray(files.products, RawProduct, key="asin")
    total = min(len(entries), files.limit or len(entries))
    elements = counted(itertools.islice(entries, files.limit), total, progress, "reading products")
    asins: list[bytes] = []
    titles = array("Q")
    pricing = array("d")
    labels: dict[str, dict[str, int]] = {"categories": {}, "queries": {}}
    codes = {kind: array("i") for kind in labels}
    human = synthetic = 0
    blob = BlobWriter(folder / "products.bin")
    with (folder / "human.jsonl").open("wb") as human_lines, (folder / "synthetic.jsonl").open("wb") as synthetic_lines:
        for place, raw in enumerate(on_sale(elements)):
            known = attributes.get(raw.asin)
            try:
                product = make_product(raw, known)
            except ValueError as error:
                raise PrerequisiteError(f"{files.products}, product {raw.asin!r}: {error}") from error
            if not product.asin or "\0" in product.asin:
                raise PrerequisiteError(f"{files.products} holds a product whose asin is {product.asin!r}")
            blob.add(product)
            asins.append(product.asin.encode())
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
    sources = {path.name: _digest(path) for path in files.paths}
    manifest = Manifest(STORE_VERSION, key, len(asins), human, synthetic, sources)
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))


def _save_sorted(values_file: Path, places_file: Path, values: np.ndarray) -> None:
    order = np.argsort(values, kind="stable")
    np.save(values_file, values[order])
    np.save(places_file, order.astype(np.int32))


def _digest(path: Path) -> str:
    """A file's SHA-256, remembered by path, size and time of change: to read 5 GB again takes longer than to start."""
    try:
        stat = path.stat()
        key = content_key(str(path.resolve()), stat.st_size, stat.st_mtime_ns)
        note = cache_dir() / "webshop" / "digests" / f"{key}.txt"
        if note.is_file():
            return note.read_text(encoding="utf-8").strip()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise PrerequisiteError(f"{path} is missing. `leap data webshop` says which files go where.") from error
    except OSError as error:
        raise PrerequisiteError(f"{path} cannot be read: {error.strerror}") from error
    write_text(note, digest)
    return digest
