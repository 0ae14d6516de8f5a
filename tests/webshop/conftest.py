"""The recorded world: 200 products, and what the original engine showed of them."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from leap_worlds.webshop.build import CatalogueFiles, build_store
from leap_worlds.webshop.store import ProductStore


@pytest.fixture(scope="session")
def golden(shared_data: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The world and the 60 episodes that were recorded."""
    path = shared_data / "webshop" / "golden-200.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no recorded episodes: {path} is missing")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        world, *episodes = map(json.loads, file)
    return world, episodes


@pytest.fixture(scope="session")
def files_200(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> CatalogueFiles:
    """The official files of the recorded world."""
    archive = shared_data / "webshop" / "catalogue-200.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no catalogue of 200 products: {archive} is missing")
    folder = tmp_path_factory.mktemp("catalogue")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    root = next(folder.rglob("items_shuffle.json")).parent
    return CatalogueFiles(root / "items_shuffle.json", root / "items_ins_v2.json", root / "items_human_ins.json")


@pytest.fixture(scope="session")
def store_200(files_200: CatalogueFiles, tmp_path_factory: pytest.TempPathFactory) -> ProductStore:
    """Its store."""
    folder = tmp_path_factory.mktemp("store")
    build_store(files_200, folder, key="recorded")
    return ProductStore(folder)
