"""The native engine against the real one on official games: a sample; the benchmark plays them all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from alfworld_games import DIALECTS, needs_textworld, upgraded

from leap_worlds.alfworld.data import OfficialData
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.planner import plan
from leap_worlds.alfworld.textworld import TextWorldEngine

pytestmark = [pytest.mark.engine, needs_textworld]
# One small room per kind of task, by scene: bedrooms and bathrooms start in half a second, a kitchen takes three.
SAMPLE = ("look_at_obj_in_light", "pick_and_place_simple", "pick_two_obj_and_place", "pick_clean_then_place_in_recep")


def commands(native: NativeEngine, rng: random.Random, admissible: tuple[str, ...]) -> str:
    roll = rng.random()
    if roll < 0.4 and (todo := plan(native)):
        return todo[0]
    if roll < 0.55:
        return rng.choice(
            ["", "dance", "help", "LOOK", f" {rng.choice(admissible)} ", "examine mug 1", "go to desk 99"]
        )
    verb = rng.choice(sorted({c.split()[0] for c in admissible}))
    return rng.choice([c for c in admissible if c.split()[0] == verb])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("task_type", SAMPLE)
def test_official_games(task_type: str, dialect: str, official_games: Path, tmp_path: Path) -> None:
    if dialect == "move":
        pytest.importorskip("alfworld")
    entries = [e for e in OfficialData(official_games).entries("valid_seen") if e.task_type == task_type]
    entry = min(entries, key=lambda e: len(NativeEngine(e.path).game.receptacles))
    path = upgraded(entry.path, tmp_path) if dialect == "move" else entry.path
    real, native, rng = TextWorldEngine(path), NativeEngine(path), random.Random(f"{task_type} {dialect}")
    theirs, ours = real.start(), native.start()
    assert theirs == ours
    for _ in range(40):
        command = commands(native, rng, ours.admissible)
        theirs, ours = real.step(command), native.step(command)
        assert theirs == ours, command
        assert real.state == native.state, command
    real.close()
