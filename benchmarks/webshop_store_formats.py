"""Compares the file that WebShop's products lie in with Parquet and Arrow, by what a results page does: ten products at random.

    python benchmarks/webshop_scale.py files FOLDER --products 100000
    python benchmarks/webshop_store_formats.py FOLDER

The store's own file holds JSON values end to end, read by place. `webshop_scale.log` holds the last run. Needs pyarrow.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from leap_worlds.webshop.build import CatalogueFiles, open_catalogue
from leap_worlds.webshop.catalogue import Product
from leap_worlds.webshop.store import ProductStore

ROWS = 1000
TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("asin", "title", "description"), pa.string()),
        "bullets": TEXTS,
        "price": pa.string(),
        "pricing": pa.list_(pa.float64()),
        "options": pa.map_(pa.string(), TEXTS),
        "attributes": TEXTS,
        **dict.fromkeys(("category", "query", "product_category"), pa.string()),
    }
)


def write(store: ProductStore, folder: Path) -> tuple[Path, Path]:
    """Writes the products as Parquet and as an Arrow file, a thousand to a group."""
    parquet, arrow = folder / "products.parquet", folder / "products.arrow"
    with pq.ParquetWriter(parquet, SCHEMA, compression="zstd") as one, pa.ipc.new_file(str(arrow), SCHEMA) as other:
        for start in range(0, len(store), ROWS):
            products = [store[at] for at in range(start, min(start + ROWS, len(store)))]
            columns = [pa.array([_value(product, field.name) for product in products], field.type) for field in SCHEMA]
            batch = pa.record_batch(columns, schema=SCHEMA)
            one.write_batch(batch)
            other.write_batch(batch)
    return parquet, arrow


def _value(product: Product, name: str) -> Any:
    return list(product.options.items()) if name == "options" else getattr(product, name)


def _product(group: Any, row: int) -> Product:
    values: dict[str, Any] = {name: group.column(place)[row].as_py() for place, name in enumerate(SCHEMA.names)}
    values["options"] = dict(values["options"])
    return Product(**values)


def measure(name: str, get: Callable[[int], Product], size: float, pages: list[list[int]]) -> None:
    """Prints CPU time and memory of reading some pages' products."""
    before, times = _status(), []
    for page in pages:
        began = time.process_time()
        for number in page:
            get(number)
        times.append((time.process_time() - began) * 1e3)
    grown = {kind: after - before[kind] for kind, after in _status().items()}
    print(
        f"{name:24} {size:4.0f} MB; ten products {statistics.mean(times):6.2f} ms CPU; {len(pages)} pages took "
        f"{grown['RssAnon']} MB private memory and {grown['RssFile']} MB pages of files"
    )


def _status() -> dict[str, int]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {kind: int(lines[kind].split()[0]) // 1024 for kind in ("RssAnon", "RssFile")}


def main() -> None:
    """Parses the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    os.environ["LEAP_CACHE"] = str(folder / "cache")
    names = ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json")
    store = open_catalogue(CatalogueFiles(*(folder / name for name in names)))
    rng = random.Random(0)
    pages = [[rng.randrange(len(store)) for _ in range(10)] for _ in range(100)]
    print(f"# CPython {platform.python_version()}, pyarrow {pa.__version__}, {len(store)} products")
    with tempfile.TemporaryDirectory() as made:
        parquet, arrow = write(store, Path(made))
        sizes = [path.stat().st_size / 1e6 for path in (store.folder / "products.bin", arrow, parquet)]
        measure("the store's own", store.__getitem__, sizes[0], pages)
        reader = pa.ipc.open_file(pa.memory_map(str(arrow)))
        groups = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        measure("Arrow file, mapped", lambda at: _product(groups[at // ROWS], at % ROWS), sizes[1], pages)
        rows = pq.ParquetFile(parquet, memory_map=True)
        measure(
            "Parquet, groups of 1000",
            lambda at: _product(rows.read_row_group(at // ROWS), at % ROWS),
            sizes[2],
            pages[:10],
        )


if __name__ == "__main__":
    main()
