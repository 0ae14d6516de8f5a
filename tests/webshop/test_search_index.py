"""The index on disk: whole or not there, the same however it was built, and clear about what is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from leap.errors import PrerequisiteError
from leap_worlds.made import counted
from leap_worlds.webshop.search import SearchIndex, build_index
from leap_worlds.webshop.search import build as build_module
from leap_worlds.webshop.search.index import MANIFEST

DOCUMENTS = [
    (f"B{number * 7919 % 5000:06d}", f"shirt number {number % 37} of {number % 11} red dots") for number in range(3000)
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "index"
    build_index(DOCUMENTS, folder)
    return folder


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(built, tmp_path / "index"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_batches_and_order_leave_no_trace(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "BATCH_TOKENS", 5000)
    monkeypatch.setattr(build_module, "MERGE_POSTINGS", 700)
    build_index(reversed(DOCUMENTS), tmp_path / "other")
    assert contents(tmp_path / "other") == contents(built)


def test_progress_counts_documents(tmp_path: Path) -> None:
    told: list[int] = []
    documents = counted(DOCUMENTS, len(DOCUMENTS), lambda done, total, what: told.append(done), "indexing products")
    build_index(documents, tmp_path / "index")
    assert told == sorted(told)
    assert told[-1] == len(DOCUMENTS)


def test_an_interrupted_build_leaves_the_old_index(index: Path) -> None:
    before = contents(index)

    def broken() -> Iterator[tuple[str, str]]:
        yield from DOCUMENTS[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(broken(), index)
    assert contents(index) == before
    assert [path.name for path in index.parent.iterdir()] == ["index"]


def test_a_build_replaces_an_older_index(index: Path) -> None:
    build_index([("A1", "green hat")], index)
    assert SearchIndex(index).search("hats") == ["A1"]
    assert SearchIndex(index).search("shirt") == []
    assert [path.name for path in index.parent.iterdir()] == ["index"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(PrerequisiteError, match="something else"):
        build_index(DOCUMENTS, tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_an_id_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="'A1'"):
        build_index([("A1", "red"), ("A2", "green"), ("A1", "blue")], tmp_path / "index")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("documents", [[], [("A1", "")], [("A1", "the of and"), ("A2", "...")]])
def test_an_index_without_terms_finds_nothing(documents: list[tuple[str, str]], tmp_path: Path) -> None:
    build_index(documents, tmp_path / "index")
    opened = SearchIndex(tmp_path / "index")
    assert len(opened) == len(documents)
    assert opened.search("red the shirt") == []


def test_answers_are_the_callers_own(built: Path) -> None:
    opened = SearchIndex(built)
    first = opened.search("red shirt")
    first.clear()
    assert len(opened.search("red shirt")) == 50
    assert opened.search("red shirt", 3) == opened.search("red shirt")[:3]


def test_no_index_at_all(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="no search index"):
        SearchIndex(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", sorted(path.removesuffix(".npy") for path in ("saturations.npy", "asins_text.npy", "starts.npy"))
)
def test_a_torn_index_is_named(index: Path, name: str) -> None:
    path = index / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PrerequisiteError, match=f"damaged: {name}.npy has .* build the index again"):
        SearchIndex(index)
    path.unlink()
    with pytest.raises(PrerequisiteError, match=f"{name}.npy is missing"):
        SearchIndex(index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "lucene"}, "something else"),
        ({"version": 99}, "format version 99"),
        ({"version": None}, "format version None"),
        ({"files": {}}, "damaged"),
        ({"files": 7}, "damaged"),
        ({"unknown": 1}, "damaged"),
        ({"documents": 5}, "damaged"),
    ],
)
def test_a_foreign_manifest_is_refused(index: Path, change: dict[str, object], message: str) -> None:
    path = index / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PrerequisiteError, match=message):
        SearchIndex(index)


@pytest.mark.parametrize("text", ["", "[]", "{", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "null"])
def test_a_manifest_that_is_none_is_refused(index: Path, text: str) -> None:
    (index / MANIFEST).write_text(text)
    with pytest.raises(PrerequisiteError):
        SearchIndex(index)


def test_an_array_of_objects_is_not_read(index: Path) -> None:
    """Nothing in an index is executed: a pickle of the right size is refused."""
    path = index / "starts.npy"
    size = path.stat().st_size
    path.write_bytes(b"\x80\x04" + b"." * (size - 2))
    with pytest.raises(PrerequisiteError, match="damaged"):
        SearchIndex(index)
