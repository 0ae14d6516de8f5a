"""Finding playable games, and remembering them."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from alfworld_games import tiny_data, write_game

from leap.errors import PrerequisiteError
from leap_worlds.alfworld import data as module
from leap_worlds.alfworld.data import TASK_TYPES, TEST_SCENES, GameEntry, OfficialData


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    return tmp_path / "cache"


def add(root: Path, folder: str, split: str = "train", trial: str = "trial_1", **content: object) -> Path:
    """A game in the official layout; content replaces entries of the game file."""
    place = root / "json_2.1.1" / split / folder / trial
    path = write_game(place, tiny_data("put", "place") | content)
    (place / "traj_data.json").write_text(json.dumps({"task_type": folder.split("-")[0]}))
    return path


def ids(root: Path, split: str = "train") -> list[str]:
    return [entry.id for entry in OfficialData(root).entries(split)]


def test_the_official_rule(tmp_path: Path) -> None:
    good = add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-7")
    add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-7", trial="trial_0")
    add(tmp_path, "look_at_obj_in_light-Mug-None-DeskLamp-310")
    add(tmp_path, "pick_and_place_with_movable_recep-Spoon-Mug-Cabinet-7")
    add(tmp_path, "pick_heat_then_place_in_recep-AppleSliced-None-Fridge-7")
    add(tmp_path, "pick_two_obj_and_place-Mug-None-Cabinet-7", solvable=False)
    no_word = add(tmp_path, "pick_two_obj_and_place-Mug-None-Cabinet-8")
    no_word.write_text(json.dumps({k: v for k, v in tiny_data("put", "place").items() if k != "solvable"}))
    (add(tmp_path, "pick_two_obj_and_place-Mug-None-Cabinet-9").parent / "traj_data.json").unlink()
    add(tmp_path, "pick_two_obj_and_place-Mug-None-Cabinet-11").write_text("{")
    entries = OfficialData(tmp_path).entries("train")
    assert [e.id for e in entries] == [
        "train/look_at_obj_in_light-Mug-None-DeskLamp-310/trial_1",
        "train/pick_and_place_simple-Spoon-None-Cabinet-7/trial_0",
        "train/pick_and_place_simple-Spoon-None-Cabinet-7/trial_1",
    ]
    assert entries[2] == GameEntry(
        id="train/pick_and_place_simple-Spoon-None-Cabinet-7/trial_1",
        path=good.resolve(),
        split="train",
        task_type="pick_and_place_simple",
        scene=7,
        task="put some spoon on cabinet.",
    )


def test_the_index_is_used_and_noticed_to_be_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-7")
    first = ids(tmp_path)
    monkeypatch.setattr(module, "read_game_file", lambda path: pytest.fail("the index was not used"))
    assert ids(tmp_path) == first
    monkeypatch.undo()
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-7", trial="trial_2")
    assert len(ids(tmp_path)) == 2
    add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-8")
    assert len(ids(tmp_path)) == 3


@pytest.mark.parametrize("damage", ["", "{", "[]", "[" * 100_000, "traj_data.json", "unsolvable"])
def test_a_bad_game_is_named_each_time_and_comes_back_when_it_is_mended(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-7")
    bad = add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-8")
    whole, trajectory = bad.read_text(), bad.parent / "traj_data.json"
    if damage == trajectory.name:
        trajectory.unlink()
    else:
        bad.write_text(whole.replace('"solvable": true', '"solvable": false') if damage == "unsolvable" else damage)
    silent = damage in ("traj_data.json", "unsolvable")  # by the official rule no games at all
    for _ in range(2):
        caplog.clear()
        assert len(ids(tmp_path)) == 1
        assert silent or f"1 damaged game files of split train are left out: {bad}" in caplog.text
    caplog.clear()
    bad.write_text(whole)
    trajectory.write_text("{}")
    assert len(ids(tmp_path)) == 2 and not caplog.text
    bad.write_text(whole.replace("put some spoon", "place a spoon"))
    tasks = [entry.task for entry in OfficialData(tmp_path).entries("train")]
    assert tasks == ["put some spoon on cabinet.", "place a spoon on cabinet."]


def test_a_damaged_or_unwritable_cache_does_no_harm(tmp_path: Path, own_cache: Path) -> None:
    add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-7")
    ids(tmp_path)
    for index in own_cache.rglob("*.json"):
        index.write_text("not json")
    assert len(ids(tmp_path)) == 1
    for index in list(own_cache.rglob("*.json")):
        index.unlink()
        index.parent.rmdir()
        index.parent.parent.rmdir()
    own_cache.joinpath("alfworld").write_text("a file where a folder should be")
    assert len(ids(tmp_path)) == 1


def test_an_unfinished_download_is_not_remembered(tmp_path: Path) -> None:
    path = add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-7")
    content = path.read_bytes()
    path.unlink()
    assert ids(tmp_path) == []
    path.write_bytes(content)
    assert len(ids(tmp_path)) == 1


def test_the_root_may_be_the_folder_itself_or_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-7", split="valid_seen")
    assert OfficialData(tmp_path / "json_2.1.1").root == tmp_path.resolve()
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert OfficialData().splits() == ("valid_seen",)


def test_missing_data_and_splits_are_errors_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrerequisiteError, match="`leap data alfworld` fetches the official games or says how"):
        OfficialData(tmp_path / "nowhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PrerequisiteError, match="ALFWORLD_DATA is not set"):
        OfficialData()
    add(tmp_path, "pick_and_place_simple-Spoon-None-Cabinet-7")
    for wrong in ("valid_seen", "", "../json_2.1.1/train"):
        with pytest.raises(PrerequisiteError, match="there are: train"):
            OfficialData(tmp_path).entries(wrong)


def test_official_counts(official_games: Path) -> None:
    data = OfficialData(official_games)
    counts = Counter(entry.task_type for entry in data.entries("valid_seen"))
    assert [counts[kind] for kind in TASK_TYPES] == [35, 13, 27, 16, 25, 24]
    assert len(data.entries("valid_train")) == 200
    assert not {entry.scene for entry in data} & set(TEST_SCENES)
    began = time.perf_counter()
    assert len(OfficialData(official_games).entries("valid_seen")) == 140
    assert time.perf_counter() - began < 1.0 or os.getloadavg()[0] > 4
