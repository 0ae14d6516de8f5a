"""Registries: two ways in, one way out, and messages that help."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from leap import registry
from leap.errors import PrerequisiteError, RecipeError
from leap.registry import Registry


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> Registry:
    points = [
        EntryPoint("keys", "collections:OrderedDict", "tests.worlds"),
        EntryPoint("gone", "no_such_package_here:It", "tests.worlds"),
        EntryPoint("renamed", "collections:NoSuchClass", "tests.worlds"),
        EntryPoint("text", "string:digits", "tests.worlds"),
        EntryPoint("leaves", "leaves_at_import:It", "tests.worlds"),
        EntryPoint("twice", "collections:OrderedDict", "tests.worlds"),
        EntryPoint("twice", "collections:Counter", "tests.worlds"),
    ]
    monkeypatch.setattr(registry, "_entry_points", lambda group, path: tuple(points))
    return Registry("world", "tests.worlds")


def define(worlds: Registry, name: str) -> type[Any]:
    @worlds(name)
    class World:
        pass

    return World


def test_a_class_comes_in_by_decorator_or_by_entry_point(worlds: Registry) -> None:
    mine = define(worlds, "mine")
    assert worlds.get("mine") is mine and mine.name == "mine"
    assert worlds.get("keys").__name__ == "OrderedDict"
    assert worlds.names() == ["gone", "keys", "leaves", "mine", "renamed", "text", "twice"]
    assert worlds.where()["keys"] == "collections:OrderedDict" and worlds.where()["mine"].endswith("define.<locals>.World")


def test_a_cell_run_twice_replaces_its_class_and_nothing_else_does(worlds: Registry) -> None:
    older, newer = define(worlds, "mine"), define(worlds, "mine")
    assert older is not newer and worlds.get("mine") is newer

    class Other:
        pass

    for taken in ("mine", "keys"):
        with pytest.raises(RecipeError, match=f"there is already a world '{taken}'"):
            worlds(taken)(Other)
    with pytest.raises(RecipeError, match="cannot name a world"):
        worlds("a/b")


def test_a_name_of_its_own_stays(worlds: Registry) -> None:
    @worlds("short")
    class World:
        name = "a longer name"

    assert World.name == "a longer name"


def test_what_cannot_be_had_is_said(worlds: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaves_at_import.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match=r"there is no world 'kesy'\. Did you mean 'keys'\? Registered: gone, keys, "):
        worlds.get("kesy")
    with pytest.raises(RecipeError, match=r"there is no world 'zzz'\. Registered"):
        worlds.get("zzz")
    with pytest.raises(PrerequisiteError, match="world 'gone' cannot be imported: No module named"):
        worlds.get("gone")
    with pytest.raises(PrerequisiteError, match="world 'renamed' cannot be imported"):
        worlds.get("renamed")
    with pytest.raises(PrerequisiteError, match="'text', string:digits, is neither a class nor a function: '0123456789'"):
        worlds.get("text")
    with pytest.raises(PrerequisiteError, match=r"'leaves' cannot be imported: leaves_at_import:It calls sys.exit\(\)"):
        worlds.get("leaves")
    with pytest.raises(RecipeError, match="'twice' is registered more than once: collections:Counter, collections:Ord"):
        worlds.get("twice")
