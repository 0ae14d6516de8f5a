"""Parsing game files: what is read, and what is said about files that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from alfworld_games import CASES, KINDS, tiny_data, tiny_game, write_game

from leap.errors import PrerequisiteError
from leap_worlds.alfworld.game import GameError, human_names, load_game, parse_game


@pytest.mark.parametrize(("dialect", "kind"), CASES)
def test_dialect_goal_and_task(dialect: str, kind: str) -> None:
    game = tiny_game(dialect, kind)
    assert (game.dialect, game.goal.kind) == (dialect, kind)
    assert game.goal.object_type in game.task
    assert game.goal.target_type in game.task
    assert (game.help_text is None) == (dialect == "put")


def test_what_is_in_the_room() -> None:
    game = tiny_game("put", "heat")
    assert game.receptacles[:3] == ("cabinet 2", "cabinet 1", "countertop 1"), "numbers go down along the sorted ids"
    assert game.goal.objects == ("apple 2", "apple 1")
    assert game.goal.targets == ("diningtable 1",)
    assert "garbagecan 1" not in game.location
    assert game.initial.where("apple 2") == ("countertop 1", "diningtable 1")
    assert game.initial.cool == {"apple 1"}
    assert game.inside == {"mug 1": ("spoon 1",)}
    assert game.accepts("microwave 1", "mug 1")
    assert not game.accepts("microwave 1", "plunger 1")
    assert "chair 1" in game.objects
    assert game.types["sinkbasin 1"] == "sinkbasin"


def test_names_follow_the_demangler() -> None:
    names = human_names(["apple_bar_2", "apple_bar_1", "sink_bar_1_bar_sinkbasin", "sink_bar_1", "agent1"])
    assert names == {
        "agent1": "agent1 ",
        "apple_bar_1": "apple 2",
        "apple_bar_2": "apple 1",
        "sink_bar_1": "sink 1",
        "sink_bar_1_bar_sinkbasin": "sinkbasin 1",
    }


def test_a_file_is_parsed_once_and_again_when_it_changed(tmp_path: Path) -> None:
    path = write_game(tmp_path, tiny_data("put", "place"))
    first = load_game(tmp_path)
    assert load_game(path) is first
    write_game(tmp_path, tiny_data("move", "heat"))
    assert load_game(path).goal.kind == "heat"


def _without(kind: str, key: str) -> dict[str, Any]:
    return {k: v for k, v in tiny_data("put", kind).items() if k != key}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "damaged game file"),
        (b"\xff\xfe\x00", "damaged game file"),
        (b'{"pddl_domain": "', "damaged game file"),
        (b"[1, 2]", "no JSON object"),
        (b"{}", "pddl_domain, grammar or pddl_problem is missing"),
        (json.dumps(_without("place", "grammar")).encode(), "is missing"),
        (json.dumps(tiny_data("put", "place") | {"pddl_problem": "(define)"}).encode(), "no :init and :goal"),
        (json.dumps(tiny_data("put", "place") | {"pddl_problem": "(:init (at a b)) (:goal x)"}).encode(), "not an ALF"),
        (json.dumps(tiny_data("put", "place") | {"grammar": "action PutObject { template :: x }"}).encode(), "grammar"),
    ],
)
def test_damaged_and_foreign_files(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "game.tw-pddl"
    path.write_bytes(content)
    with pytest.raises(GameError, match=complaint) as caught:
        load_game(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message


def test_a_missing_file_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(GameError, match="no such game file") as caught:
        load_game(tmp_path / "nowhere")
    assert isinstance(caught.value, PrerequisiteError | ValueError)


@pytest.mark.parametrize("word", ["isSliced", "inReceptacleObject"])
def test_goals_outside_the_six_tasks_are_refused(word: str) -> None:
    data = tiny_data("put", "place")
    data["pddl_problem"] = data["pddl_problem"].replace("(and (inReceptacle ?o ?r)", f"(and ({word} ?o ?r)")
    with pytest.raises(GameError, match="none of the six"):
        parse_game(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_goal_is_read_whatever_the_order_of_its_atoms(kind: str) -> None:
    data = tiny_data("put", kind)
    data["pddl_problem"] = " ".join(data["pddl_problem"].replace("(", " ( ").split())
    assert parse_game(data).goal == tiny_game("put", kind).goal
