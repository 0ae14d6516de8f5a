"""docs/recipe.md is what the schema says, and every key of it is either used by a recipe that ships or defended there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The module that makes the page."""
    spec = importlib.util.spec_from_file_location("make_recipe_reference", DOCS / "make_recipe_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_schema_says(reference: ModuleType) -> None:
    told = (DOCS / "recipe.md").read_text(encoding="utf-8")
    assert told == reference.render(), "give: python docs/make_recipe_reference.py"


def test_each_key_that_no_recipe_sets_is_defended_once_and_no_other(reference: ModuleType) -> None:
    defended = [key for keys, _ in reference.defended() for key in keys]
    assert sorted(defended) == sorted(reference.unset()[1])


def test_what_recipes_set_is_told_from_what_they_do_not(reference: ModuleType) -> None:
    keys, given = {key for _, key in reference.options()}, reference.keys_set()
    assert {"training.lr", "teacher.kind", "demonstrations.from", "alfworld: generator.seed", "mixture: only"} <= keys & given
    assert {"policy.kind", "prices.NAME.input", "intercode-sql: database"} <= keys - given
