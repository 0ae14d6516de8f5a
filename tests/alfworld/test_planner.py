"""The planner's plans win, are the shortest there are, and None means that nothing wins any more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from alfworld_games import CASES, KINDS, needs_textworld, tiny_game

from leap_worlds.alfworld.data import OfficialData
from leap_worlds.alfworld.game import State
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.planner import plan

_IDLE = ("look", "inventory", "help", "examine")


def assert_wins_at_its_end(engine: NativeEngine, commands: tuple[str, ...]) -> None:
    state = engine.state
    wins = [engine.step(command).won for command in commands]
    assert wins == [False] * (len(wins) - 1) + [True], commands
    engine.restore(state)


def shortest(engine: NativeEngine, limit: int) -> int | None:
    """Length of the shortest way to win, by trying everything; None if there is none within the limit."""

    def key(state: State) -> tuple[object, ...]:
        treated = (state.opened, state.clean, state.hot, state.cool, state.toggled)
        return (state.location, state.holding, tuple(state.contents.values()), *treated)

    start = engine.state
    frontier, seen = [start], {key(start)}
    try:
        if engine.restore(start).won:
            return 0
        for depth in range(1, limit + 1):
            reached = []
            for state in frontier:
                for command in engine.restore(state).admissible:
                    if command.startswith(_IDLE):
                        continue
                    engine.restore(state)
                    if engine.step(command).won:
                        return depth
                    if (known := key(engine.state)) not in seen:
                        seen.add(known)
                        reached.append(engine.state)
            frontier = reached
        return None
    finally:
        engine.restore(start)


def roam(engine: NativeEngine, rng: random.Random, steps: int) -> None:
    """Random commands, each verb as likely as any other, so that things get moved and treated."""
    reply = engine.restore(engine.state)
    for _ in range(steps):
        verbs = sorted({c.split()[0] for c in reply.admissible if "plunger" not in c})
        verb = rng.choice(verbs)
        reply = engine.step(rng.choice([c for c in reply.admissible if c.split()[0] == verb and "plunger" not in c]))


@pytest.mark.parametrize(("dialect", "kind"), CASES)
def test_plans_from_the_start_are_the_shortest(dialect: str, kind: str) -> None:
    engine = NativeEngine(tiny_game(dialect, kind))
    commands = plan(engine)
    assert commands is not None
    assert_wins_at_its_end(engine, commands)
    assert shortest(engine, len(commands) - 1) is None, commands
    assert plan(NativeEngine(engine.game)) == commands


@pytest.mark.parametrize("kind", KINDS)
def test_plans_from_any_state_are_the_shortest(kind: str) -> None:
    rng = random.Random(kind)
    compared = 0
    while compared < 25:
        engine = NativeEngine(tiny_game("move", kind))
        roam(engine, rng, rng.randrange(4, 40))
        commands = plan(engine)
        assert commands is not None
        if 0 < len(commands) < 7:  # trying everything takes too long beyond
            compared += 1
            assert_wins_at_its_end(engine, commands)
            assert shortest(engine, len(commands) - 1) is None, commands


def test_nothing_to_do_when_it_is_done() -> None:
    engine = NativeEngine(tiny_game("put", "place"))
    for command in plan(engine) or ():
        engine.step(command)
    assert plan(engine) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_that_cannot_be_put_down_is_a_dead_end(kind: str) -> None:
    engine = NativeEngine(tiny_game("put", kind))
    engine.start()
    engine.step("go to diningtable 1")
    engine.step("take plunger 1 from diningtable 1")
    assert plan(engine) is None


def test_treating_is_enough_when_the_thing_stays_in_its_other_place() -> None:
    engine = NativeEngine(tiny_game("put", "heat"))
    assert plan(engine) == (
        *("go to countertop 1", "take apple 2 from countertop 1", "go to microwave 1", "heat apple 2 with microwave 1"),
    )


def test_official_games_can_all_be_won(official_games: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path))
    rng = random.Random(0)
    for entry in OfficialData(official_games):
        engine = NativeEngine(entry.path)
        commands = plan(engine)
        assert commands, entry.id
        assert_wins_at_its_end(engine, commands)
        for _ in range(2):
            reply = engine.restore(engine.state)
            for _ in range(8):
                reply = engine.step(rng.choice(reply.admissible))
            if commands := plan(engine):
                assert_wins_at_its_end(engine, commands)


@pytest.mark.engine
@needs_textworld
@pytest.mark.parametrize("kind", KINDS)
def test_fast_downward_finds_nothing_shorter(kind: str, tmp_path: Path) -> None:
    from alfworld_games import tiny_data, write_game

    from leap_worlds.alfworld.textworld import TextWorldEngine

    real = TextWorldEngine(write_game(tmp_path, tiny_data("move", kind)))
    reply, rng = real.start(), random.Random(kind)
    for _ in range(3):
        theirs = real._env._pddl_state.replan(real._env._entity_infos)
        assert len(plan(real) or ()) == len(theirs)
        for _ in range(5):
            reply = real.step(rng.choice([c for c in reply.admissible if "plunger" not in c]))
    real.close()
