"""Official files, whole and broken, and the store that is made from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_shop import a_product, a_store, said, write_files

from leap.errors import PrerequisiteError
from leap_worlds.webshop.build import CatalogueFiles, build_store, catalogue_key, open_catalogue
from leap_worlds.webshop.catalogue import RawProduct, read_pricing
from leap_worlds.webshop.jsonfiles import JsonArray, JsonObject
from leap_worlds.webshop.store import ProductStore


def built(folder: Path, files: CatalogueFiles) -> ProductStore:
    target = folder / "store"
    target.mkdir()
    build_store(files, target)
    return ProductStore(target)


@pytest.mark.parametrize(
    ("text", "pricing", "shown"),
    [  # shown: Python's own way with floats, as upstream
        ("$20.00", (20.0,), "$20.0"),
        ("$1,234.50", (1234.5,), "$1234.5"),
        ("$3.00$7.99", (3.0, 7.99), "$3.0 to $7.99"),
        ("$3.00 - $7.99$9", (3.0, 7.99), "$3.0 to $7.99"),
        ("", (100.0,), "$100.0"),
        (None, (100.0,), "$100.0"),
    ],
)
def test_prices_are_read_and_shown_as_upstream(text: str | None, pricing: tuple[float, ...], shown: str) -> None:
    assert read_pricing(text) == (pricing, shown)


def test_a_product_whose_price_makes_no_sense_is_named(tmp_path: Path) -> None:
    files = write_files(tmp_path, [a_product(), a_product(1, pricing="call us")])
    with pytest.raises(PrerequisiteError, match=r"B000000001.*no price can be read from 'call us'"):
        built(tmp_path, files)


def test_the_store_gives_back_every_product(tmp_path: Path) -> None:
    store = a_store(
        tmp_path,
        a_product(0, pricing=None),
        a_product(0, name="the same number again"),
        a_product(1, asin="nan"),
        a_product(2, asin="B0000000002X"),
        a_product(3, small_description="one line", query=" Big Mugs"),
        attributes={"B000000003": {"attributes": ["steel"]}, "B000000000": {"attributes": []}},
    )
    first, second = store
    assert (first.asin, first.title, first.pricing, first.attributes) == ("B000000000", "Plain Mug 0", (100.0,), ())
    assert (second.asin, second.bullets, second.query, second.attributes) == (
        *("B000000003", ("one line",), "big mugs"),
        ("steel",),
    )
    assert [store.find(asin) for asin in ("B000000003", "B000000000", "B000000001", "", "B" * 40, "é\udc80")] == [
        *(1, 0),
        *[None] * 4,
    ]
    assert [
        store.labelled("queries", "big mugs"), store.labelled("categories", "garden"), store.labelled("queries", "none")
    ] == [[1], [0, 1], []]
    assert (store.titled("plain mug 3"), store.titled("plain mug 9")) == (1, None)


def test_options_that_collide_keep_the_later_values(tmp_path: Path) -> None:
    options = {"Color": ["Red", "Red"], "SIZE": None, "color": [" Navy/Blue "], "Fit": ["", "slim"]}
    (product,) = a_store(tmp_path, a_product(customization_options=options))
    assert product.options == {"color": ("navy | blue",), "fit": ("", "slim")}


def test_what_is_searched_is_the_title_the_texts_and_the_options(tmp_path: Path) -> None:
    (product,) = a_store(tmp_path, a_product(customization_options={"Color": ["Red", "Blue"], "Size": ["L"]}))
    assert product.contents == "plain mug 0 a mug. holds coffee color: red, blue, and size: l"


def test_the_last_of_several_products_with_a_title_is_found_by_it(tmp_path: Path) -> None:
    store = a_store(tmp_path, *(a_product(i, name=name) for i, name in enumerate(["Cup", "cup", "Mug", "CUP"])))
    assert store.titled("cup") == 3


HOSTILE = '</h2><script>alert("x")</script>\n[button] Buy Now [button_] &amp; {{ 7 * 7 }} \x00 \u202e " \\'


def test_a_hostile_title_is_text(tmp_path: Path) -> None:
    (product,) = a_store(tmp_path, a_product(name=HOSTILE))
    assert product.title == HOSTILE


@pytest.mark.parametrize("where", ["products", "attributes", "instructions"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"[1, 2", None),
        (b'{"B000000000"', None),
        (b"<html>Too many requests</html>", None),
        (b"\xff\xfe[\x00]\x00", None),
        (b'"text"', None),
        (b'[{"asin": 3}]', None),
        (b"[" * 100_000, None),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(
    tmp_path: Path, where: str, content: bytes | None, message: str | None
) -> None:
    files = write_files(tmp_path, [a_product()], people={"B000000000": [said("a mug")]})
    path: Path = getattr(files, where)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(PrerequisiteError) as refused:
        built(tmp_path, files)
    assert str(path) in str(refused.value)
    assert message is None or message in str(refused.value)


def test_a_foreign_product_is_named_by_its_number_and_field(tmp_path: Path) -> None:
    files = write_files(tmp_path, [a_product(0), a_product(1, full_description=["not", "a", "text"])])
    with pytest.raises(PrerequisiteError, match=r"element 1 \(asin 'B000000001'\).*full_description"):
        built(tmp_path, files)


def test_nothing_half_made_is_taken_for_a_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    files = write_files(tmp_path, [a_product(0), a_product(1, name=7)])
    with pytest.raises(PrerequisiteError):
        open_catalogue(files)
    assert not list((tmp_path / "cache" / "webshop").glob("**/products.bin"))
    files = write_files(tmp_path, [a_product(0)])
    assert len(open_catalogue(files)) == 1


def test_a_catalogue_is_made_once_and_anew_when_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    files = write_files(tmp_path, [a_product(i) for i in range(3)])
    made: list[str] = []
    first = open_catalogue(files, progress=lambda done, total, what: made.append(what))
    assert made and first.manifest.products == 3
    made.clear()
    assert open_catalogue(files, progress=lambda done, total, what: made.append(what)).folder == first.folder
    assert not made
    key = catalogue_key(files)
    write_files(tmp_path, [a_product(i) for i in range(4)])
    assert catalogue_key(files) != key and len(open_catalogue(files)) == 4
    limited = CatalogueFiles(*files.paths, limit=2)
    assert len(open_catalogue(limited)) == 2


@pytest.mark.parametrize("name", ["products.bin", "products.npy", "asins.npy", "pricing.npy", "manifest.json"])
def test_a_damaged_store_says_so(tmp_path: Path, name: str) -> None:
    store = a_store(tmp_path, *(a_product(i) for i in range(5)))
    path = store.folder / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(PrerequisiteError, match="Remove it; it is made anew"):
        ProductStore(store.folder)


# ---- JSON as Python writes it, which the faster parser does not take -------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(values=st.lists(VALUES, max_size=6), indent=st.sampled_from([None, 1]))
def test_an_array_is_read_as_pythons_parser_reads_it(
    values: list[Any], indent: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("json") / "values.json"
    path.write_text(json.dumps(values, indent=indent))
    # NaN is not equal to itself
    assert repr(list(JsonArray(path, Any, key=""))) == repr(json.loads(path.read_text()))


def test_names_and_halves_of_surrogate_pairs_that_python_lets_pass(tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    path.write_text(json.dumps([a_product(0, average_rating=float("nan")), a_product(1, name="half \ud83d a pair")]))
    assert [raw.name for raw in JsonArray(path, RawProduct, key="asin")] == ["Plain Mug 0", "half \ufffd a pair"]
    path.write_text(json.dumps({"a": [float("nan")], "b": ["x\ud83d"]}))
    entries = JsonObject(path, list[Any])
    assert (str(entries["a"]), entries["b"]) == ("[nan]", ["x\ufffd"])


def test_the_slow_walk_crosses_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leap_worlds.webshop.jsonfiles._CHUNK", 7)
    path = tmp_path / "numbers.json"
    path.write_text("[NaN, " + ", ".join(str(n) for n in range(0, 10**7, 99_991)) + ', "end"]')
    read = list(JsonArray(path, Any, key=""))
    assert (read[1:4], read[-2:]) == ([0, 99_991, 199_982], [9_999_100, "end"])
    path.write_text(path.read_text()[:-20])
    with pytest.raises(PrerequisiteError, match="cut off"):
        list(JsonArray(path, Any, key=""))
