"""Generated catalogues: the official schema, the same bytes each time, goals that can be met, splits that share no product."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from generated_shop import generated

from leap_worlds.made import stream
from leap_worlds.webshop.generator import CatalogueConfig, fingerprint, write_catalogue
from leap_worlds.webshop.generator.products import draw, entry, instruction, the_kinds
from leap_worlds.webshop.generator.tables import kinds, tables
from leap_worlds.webshop.memory import content_words
from leap_worlds.webshop.splits import World

FILES = ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json")


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_equal_settings_give_equal_bytes_and_a_longer_catalogue_begins_with_the_shorter(tmp_path: Path) -> None:
    small = CatalogueConfig(products=60, goals=40)
    one, two = write_catalogue(small, tmp_path / "one"), write_catalogue(small, tmp_path / "two")
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in FILES)
    more = write_catalogue(CatalogueConfig(products=90, goals=40), tmp_path / "more")
    longer, shorter = (json.loads((folder / FILES[0]).read_text()) for folder in (more, one))
    assert longer[:60] == shorter
    assert fingerprint(small) != fingerprint(CatalogueConfig(products=60, goals=40, seed=1))


def test_of_two_that_write_a_catalogue_at_once_the_first_one_s_stays(tmp_path: Path) -> None:
    small, folder, again = CatalogueConfig(products=60, goals=40), tmp_path / "c", True

    def progress(done: int, total: int, what: str) -> None:  # as if another process began meanwhile
        nonlocal again
        if again:
            again = False
            write_catalogue(small, folder)

    write_catalogue(small, folder, progress=progress)
    assert {path.name for path in folder.iterdir()} == {*FILES, "catalogue.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    (folder / FILES[1]).unlink()
    assert (write_catalogue(small, folder) / FILES[1]).is_file()


def test_the_files_have_the_official_shape(tmp_path: Path) -> None:
    folder = write_catalogue(CatalogueConfig(products=200, goals=120), tmp_path / "c")
    products, attributes, people = (json.loads((folder / name).read_text()) for name in FILES)
    assert len({product["asin"] for product in products}) == 200 and len(people) == 120
    assert all(len(product["asin"]) == 10 for product in products)
    for product in products:
        assert set(attributes[product["asin"]]) == {"attributes", "instruction", "instruction_attributes"}
        for values in product["customization_options"].values():
            assert len({value["value"] for value in values}) == len(values)
    by_asin = {product["asin"]: product for product in products}
    for asin, (one,) in people.items():
        assert set(one["instruction_attributes"]) <= set(attributes[asin]["attributes"])
        offered = {v["value"] for values in by_asin[asin]["customization_options"].values() for v in values}
        assert set(one["instruction_options"]) <= offered


def test_people_s_words_are_other_words_than_the_shop_s() -> None:
    for kind in kinds().values():
        for attribute in kind.attributes:
            shop = set(content_words(attribute.name))
            assert all(not shop & set(content_words(words)) for words in attribute.people), attribute
        for group in kind.options:
            for value, words in group.values:
                assert not set(content_words(value)) & set(content_words(words)), (value, words)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_how_often_people_s_words_are_used_is_a_setting(share: float) -> None:
    config = CatalogueConfig(people_words=share)
    choices = the_kinds(config)
    for number in range(100):
        product = draw(config, choices, number)
        text = instruction(config, product, number)["instruction"]
        assert (product.kind.name in text) is (share == 0.0)


def test_kinds_and_wordings_can_be_few() -> None:
    config = CatalogueConfig(kinds=5, wordings=2, options=1)
    assert len(the_kinds(config)) == 5 and len({kind.department for kind in the_kinds(config)}) == 5
    texts = [instruction(config, draw(config, the_kinds(config), n), n)["instruction"] for n in range(80)]
    assert {text.split()[0] for text in texts} == {"i", "find"}
    assert the_kinds(CatalogueConfig(kinds=("sofa", "tunic")))[1].name == "tunic"


def test_settings_that_make_no_sense_are_refused() -> None:
    for bad in ({"goals": 5, "products": 4}, {"kinds": 400}, {"kinds": ("spaceship",)}, {"values": (3, 2)}):
        with pytest.raises(ValueError, match=r"cannot be asked for|kinds of products|unknown kind|least"):
            CatalogueConfig(**bad)  # type: ignore[arg-type]


def test_a_product_says_what_it_is_known_for_and_nothing_of_the_others() -> None:
    config = CatalogueConfig()
    for number in range(150):
        product = draw(config, the_kinds(config), number)
        made = entry(product, stream(number))
        text = " ".join([made["name"], made["full_description"], *made["small_description"]]).lower()
        known = {attribute.name for attribute in product.attributes}
        assert {attribute.name for attribute in product.kind.attributes if attribute.name in text} == known


def test_every_split_has_products_of_its_own_and_every_department(cache_folder: Path) -> None:
    environment = generated(cache_folder)
    goals = environment.world(World.HUMAN).goals

    def products(split: str) -> set[str]:
        return {goals[int(task.id.split("/")[1])].asin for task in environment.tasks(split)}

    of = {split: products(split) for split in ("train", "eval", "test")}
    assert [len(of[split]) for split in ("train", "eval", "test")] == [100, 1000, 500]
    assert not of["train"] & of["test"] and not of["train"] & of["eval"] and not of["eval"] & of["test"]
    departments = Counter(task.kind for task in environment.tasks("test"))
    assert set(departments) == {row[2] for row in tables()["kinds"]}
