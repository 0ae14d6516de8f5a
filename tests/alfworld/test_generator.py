"""Generated games: solvable, in the official form and proportions, reproducible, and the same on the real engine."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from alfworld_games import needs_textworld
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alfworld_measure import GameFacts
from leap_worlds.alfworld.engine import Engine
from leap_worlds.alfworld.game import load_game
from leap_worlds.alfworld.generator import (
    SPLITS,
    GeneratedGame,
    GeneratorConfig,
    GeneratorError,
    generate,
    generate_game,
    read_manifest,
)
from leap_worlds.alfworld.generator import games as games_module
from leap_worlds.alfworld.generator.config import VALID_SCENES
from leap_worlds.alfworld.generator.tables import TASK_TYPES, TASKS, room_kind, tables
from leap_worlds.alfworld.generator.write import domain
from leap_worlds.alfworld.memory import parse_goal
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.planner import plan
from leap_worlds.alfworld.textworld import TextWorldEngine

FULL = GeneratorConfig()
SMALL = GeneratorConfig(receptacles=(6, 10), objects=(6, 14), balanced=True)


def facts_of(game: GeneratedGame) -> GameFacts:
    return GameFacts.parse(game.data["pddl_problem"], game.traj)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    split=st.sampled_from(SPLITS),
    index=st.integers(0, 10_000),
    low=st.integers(5, 12),
    extra=st.integers(1, 10),
    full=st.booleans(),
    dialect=st.sampled_from(("put", "move")),
)
def test_any_game_is_sound(seed: int, split: str, index: int, low: int, extra: int, full: bool, dialect: Any) -> None:
    size = None if full else (low, low + extra)
    config = GeneratorConfig(seed=seed, receptacles=size, balanced=True, dialect=dialect)
    made = generate_game(config, split, index)
    game, facts = made.game, facts_of(made)
    assert game.task == f"{made.scene.sentence}."
    assert game.dialect == dialect

    engine = NativeEngine(game)
    reply = engine.start()
    assert not reply.won
    assert "You are in the middle of a room." in reply.observation
    for command in made.walkthrough:
        assert not reply.won
        assert command in reply.admissible
        reply = engine.step(command)
    assert reply.won

    ids = [row[0] for predicate in ("receptacleType", "objectType") for row in facts.facts[predicate]]
    assert len(set(ids)) == len(ids)
    reachable = {place for place, _ in facts.facts["receptacleAtLocation"]}
    assert reachable == set(facts.types("receptacleType"))
    assert set(facts.where()) <= set(facts.types("objectType"))
    agent_at = facts.facts["atLocation"][0][1]
    assert agent_at not in {location for _, location in facts.facts["receptacleAtLocation"]}
    if size is not None:
        assert len(facts.facts["receptacleType"]) <= size[1]
    _check_goal(made, facts)


def _check_goal(made: GeneratedGame, facts: GameFacts) -> None:
    rule, goal = TASKS[made.scene.task_type], made.game.goal
    assert (goal.object_type, goal.target_type) == (made.scene.target.lower(), made.scene.destination.lower())
    understood = parse_goal(made.game.task)
    assert understood is not None
    assert (understood.kind, understood.object, understood.target) == (goal.kind, goal.object_type, goal.target_type)
    if rule.appliance:
        assert made.scene.destination != rule.appliance
        assert rule.appliance in facts.types("receptacleType").values()


@pytest.mark.parametrize("config", [FULL, SMALL], ids=["full", "small"])
def test_every_task_type_and_kind_of_room(config: GeneratorConfig) -> None:
    config = config.model_copy(update={"balanced": True})
    made = [generate_game(config, "train", index) for index in range(96)]
    assert Counter(game.scene.task_type for game in made) == dict.fromkeys(TASK_TYPES, 16)
    assert {game.scene.room.kind for game in made} == {"kitchen", "livingroom", "bedroom", "bathroom"}
    sentences = {(g.scene.task_type, g.scene.sentence.split()[0]) for g in made}
    assert len(sentences) >= len(TASK_TYPES) + 4  # both sentences of a type are in use


def test_small_rooms_are_small() -> None:
    for index in range(60):
        made = generate_game(SMALL, "train", index)
        facts = facts_of(made)
        assert len(facts.facts["receptacleType"]) <= 10
        assert len(facts.marked("pickupable")) <= 14
        holdable = set().union(*(tables().can_contain.get(r, ()) for r in made.scene.room.receptacle_types))
        for thing in made.scene.things:
            portable = tables().rooms[made.scene.room.kind]["things"][thing.kind]["portable"]
            assert not portable or thing.kind in holdable | tables().traps


def test_proportions_of_full_rooms() -> None:
    games = [facts_of(generate_game(FULL, "train", index)) for index in range(400)]
    kitchens = [g for g in games if room_kind(g.scene) == "kitchen"]
    bedrooms = [g for g in games if room_kind(g.scene) == "bedroom"]

    def mean(rows: list[GameFacts], predicate: str) -> float:
        return sum(len(g.facts.get(predicate, ())) for g in rows) / len(rows)

    assert mean(kitchens, "receptacleType") == pytest.approx(34.1, abs=3)
    assert mean(kitchens, "pickupable") == pytest.approx(44.5, abs=3)
    assert mean(bedrooms, "receptacleType") == pytest.approx(14.9, abs=3)
    assert mean(bedrooms, "pickupable") == pytest.approx(23.3, abs=2.5)
    assert sum(any(len(group) > 1 for group in g.groups()) for g in games) / 400 == pytest.approx(0.73, abs=0.1)
    traps = sum(any(t in tables().traps for t in g.types("objectType").values()) for g in games)
    assert traps / 400 == pytest.approx(0.48, abs=0.1)
    doubles = sum(any(len(p) > 1 for p in g.where().values()) for g in games)
    assert doubles / 400 == pytest.approx(0.35, abs=0.1)


def test_things_are_where_they_usually_are() -> None:
    """What a student can learn: in this world pillows lie on beds and towels hang on holders, whatever the room."""
    at: dict[str, Counter[str]] = {}
    for split in ("train", "unseen"):
        for index in range(150):
            facts = facts_of(generate_game(FULL, split, index))
            kinds, places = facts.types("objectType"), facts.types("receptacleType")
            for thing, where in facts.where().items():
                if room_kind(facts.scene) in ("bedroom", "bathroom"):
                    at.setdefault(f"{split} {kinds[thing]}", Counter()).update(places[p] for p in where)
    for split in ("train", "unseen"):
        assert at[f"{split} Pillow"]["Bed"] > 0.9 * at[f"{split} Pillow"].total()
        assert at[f"{split} Towel"]["TowelHolder"] > 0.9 * at[f"{split} Towel"].total()


def test_switches() -> None:
    plain = GeneratorConfig(traps=False)
    for index in range(60):
        facts = facts_of(generate_game(plain, "train", index))
        assert not tables().traps & set(facts.types("objectType").values())


def test_splits_use_their_rooms() -> None:
    scenes = {split: {generate_game(FULL, split, i).scene.room.scene for i in range(150)} for split in SPLITS}
    assert scenes["unseen"] == {10, 219, 308, 424}
    assert scenes["valid"] <= set(VALID_SCENES)
    assert not (scenes["train"] | scenes["seen"]) & (scenes["unseen"] | scenes["valid"])


def test_a_scene_is_one_room_except_in_unseen() -> None:
    rooms: dict[str, dict[int, set[Any]]] = {split: {} for split in SPLITS}
    for split in SPLITS:
        for index in range(80):
            room = generate_game(SMALL, split, index).scene.room
            rooms[split].setdefault(room.scene, set()).add(room)
    assert all(len(seen) == 1 for split in ("train", "valid", "seen") for seen in rooms[split].values())
    for scene in rooms["train"].keys() & rooms["seen"].keys():
        assert rooms["train"][scene] == rooms["seen"][scene]
    assert all(len(seen) > 5 for seen in rooms["unseen"].values())


def test_no_game_is_in_two_splits() -> None:
    problems = [
        generate_game(SMALL, split, index).data["pddl_problem"].split("\n", 1)[1]
        for split in SPLITS
        for index in range(100)
    ]
    assert len(set(problems)) == len(problems)


def test_same_settings_same_games_in_another_process() -> None:
    code = (
        "from leap_worlds.alfworld.generator import *; import hashlib, json; c = GeneratorConfig(seed=7);"
        "print(hashlib.sha256(json.dumps([generate_game(c, s, i).data for s in SPLITS for i in range(3)])"
        ".encode()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_written_in_the_official_layout(tmp_path: Path) -> None:
    config = GeneratorConfig(games={"train": 6, "valid": 2, "seen": 2, "unseen": 3}, receptacles=(6, 10))
    calls: list[tuple[int, int, str]] = []
    manifest = generate(config, tmp_path / "set", progress=lambda *call: calls.append(call))
    assert [done for done, _, _ in calls] == list(range(1, 14))
    assert manifest == read_manifest(tmp_path / "set")
    assert manifest.settings == config
    for split, number in config.games.items():
        paths = sorted((tmp_path / "set" / "json_2.1.1" / split).glob("*/*/game.tw-pddl"))
        assert len(paths) == number == sum(manifest.task_types[split].values())
        for path in paths:
            data = json.loads(path.read_text(encoding="utf-8"))
            traj = json.loads((path.parent / "traj_data.json").read_text(encoding="utf-8"))
            task_type, target, movable, destination, scene = path.parent.parent.name.split("-")
            params = traj["pddl_params"]
            assert data["solvable"] is True
            assert task_type == traj["task_type"]
            assert movable == "None"
            assert params == {key.lower(): value for key, value in params.items()}
            assert params["mrecep_target"] == "" and params["object_target"] == target
            assert destination in (params["parent_target"], params["toggle_target"])
            assert traj["scene"]["scene_num"] == int(scene)
            assert tuple(data["walkthrough"]) == plan(NativeEngine(load_game(path)))


def test_generate_is_atomic_and_idempotent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GeneratorConfig(games={"train": 3}, receptacles=(6, 8))
    real = games_module.generate_game

    def fails_at_the_last(settings: GeneratorConfig, split: str, index: int) -> GeneratedGame:
        if index == 2:
            raise KeyboardInterrupt
        return real(settings, split, index)

    monkeypatch.setattr(games_module, "generate_game", fails_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        generate(config, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    first = generate(config, tmp_path / "set")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "set").rglob("*")}
    assert generate(config, tmp_path / "set") == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "set").rglob("*")} == before
    with pytest.raises(GeneratorError, match="other settings"):
        generate(config.model_copy(update={"seed": 1}), tmp_path / "set")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep me")
    with pytest.raises(GeneratorError, match="is not empty"):
        generate(config, tmp_path / "other")
    assert (tmp_path / "other" / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"games": {"test": 1}}, "unknown split"),
        ({"games": {"train": -1}}, "0 or more"),
        ({"task_types": ("pick",)}, "unknown task type"),
        ({"rooms": ()}, "at least one"),
        ({"receptacles": (2, 4)}, "fewer than 6"),
        ({"receptacles": (9, 7)}, "least <= most"),
        ({"test_scenes": (10, 219, 308)}, "It is gone"),
        ({"colour": "red"}, "unknown key"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GeneratorConfig(**options)


def test_tasks_that_no_room_hosts() -> None:
    with pytest.raises(GeneratorError, match="hosts any"):
        generate_game(GeneratorConfig(rooms=("kitchen",), task_types=("look_at_obj_in_light",)), "train", 0)
    with pytest.raises(GeneratorError, match="unknown split"):
        generate_game(FULL, "valid_seen", 0)


def walk(first: Engine, second: Engine, seed: int, walkthrough: tuple[str, ...], steps: int = 20) -> None:
    """Plays both engines side by side, the walkthrough or, without one, at random."""
    rng = random.Random(seed)
    a, b = first.start(), second.start()
    assert a == b
    commands = list(walkthrough)
    for _ in range(len(commands) or steps):
        if commands:
            command = commands.pop(0)
        else:
            doing = [c for c in a.admissible if not c.startswith(("go to", "look", "inventory", "help"))]
            command = rng.choice(doing if doing and rng.random() < 0.7 else a.admissible)
        a, b = first.step(command), second.step(command)
        assert a == b, command
    assert not walkthrough or b.won


@pytest.mark.engine
@needs_textworld
@pytest.mark.parametrize("dialect", ["put", "move"])
@pytest.mark.parametrize("index", range(6))
def test_same_on_the_real_engine(tmp_path: Path, dialect: Any, index: int) -> None:
    """One game of each task type: the plan wins, and a random walk shows the same texts and commands."""
    made = generate_game(SMALL.model_copy(update={"dialect": dialect}), "train", index)
    (tmp_path / "game.tw-pddl").write_text(json.dumps(made.data))
    for walkthrough in (made.walkthrough, ()):
        real = TextWorldEngine(tmp_path)
        try:
            walk(NativeEngine(made.game), real, index, walkthrough)
        finally:
            real.close()


@pytest.mark.engine
@needs_textworld
@pytest.mark.parametrize("index", [6, 9])
def test_our_grammar_says_what_the_official_one_says(tmp_path: Path, index: int) -> None:
    """The same problem with our domain and grammar, and with those that alfworld's package ships."""
    pytest.importorskip("alfworld")
    official = files("alfworld") / "data"
    made = generate_game(SMALL.model_copy(update={"dialect": "move"}), "train", index)
    theirs = {
        **made.data,
        "pddl_domain": (official / "alfred.pddl").read_text(),
        "grammar": (official / "alfred.twl2").read_text().replace("UNKNOWN GOAL", made.scene.sentence),
    }
    assert made.data["pddl_domain"] != theirs["pddl_domain"]
    engines = []
    for name, data in (("ours", made.data), ("theirs", theirs)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "game.tw-pddl").write_text(json.dumps(data))
        engines.append(TextWorldEngine(tmp_path / name))
    try:
        walk(engines[0], engines[1], index, (), steps=30)
    finally:
        for engine in engines:
            engine.close()


def test_the_domain_is_ours() -> None:
    assert len(domain("put")) < 6000  # the official one has 17 kB
    assert "help" in domain("move") and "help" not in domain("put")
