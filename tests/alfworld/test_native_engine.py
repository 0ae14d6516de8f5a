"""The native engine's rules and oddities, on a small room of our own making."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from alfworld_games import CASES, DIALECTS, tiny_data, tiny_game
from hypothesis import given
from hypothesis import strategies as st

from leap_worlds.alfworld.engine import Reply
from leap_worlds.alfworld.game import parse_game
from leap_worlds.alfworld.native import NOTHING_HAPPENS, NativeEngine


def play(engine: NativeEngine, *commands: str) -> Reply:
    """Starts and gives commands, each of which must be admissible; the last reply."""
    reply = engine.start()
    for command in commands:
        assert command in reply.admissible, (command, reply.admissible)
        reply = engine.step(command)
    return reply


def test_start_names_every_reachable_place_and_the_task() -> None:
    reply = NativeEngine(tiny_game()).start()
    assert reply.observation == (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see "
        "a cabinet 2, a cabinet 1, a countertop 1, a diningtable 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\n"
        "Your task is to: put some spoon on cabinet."
    )
    assert reply.admissible == (
        *("go to cabinet 1", "go to cabinet 2", "go to countertop 1", "go to diningtable 1", "go to fridge 1"),
        *("go to microwave 1", "go to sinkbasin 1", "inventory", "look"),
    )
    assert (reply.won, reply.score) == (False, 0.0)


def test_dialects_differ_in_place_commands_arrivals_and_help() -> None:
    old, new = (NativeEngine(tiny_game(dialect, "clean")) for dialect in DIALECTS)
    assert "help" not in old.start().admissible
    assert "help" in new.start().admissible
    assert old.step("go to countertop 1").observation.startswith("You arrive at loc 6. On the countertop 1, you see")
    assert new.step("go to countertop 1").observation.startswith("You arrive at countertop 1. On the countertop 1")
    for engine in (old, new):
        engine.step("take knife 1 from countertop 1")
        engine.step("go to sinkbasin 1")
    assert old.step("put knife 1 in/on sinkbasin 1").observation == "You put the knife 1 in/on the sinkbasin 1."
    assert new.step("move knife 1 to sinkbasin 1").observation == "You move the knife 1 to the sinkbasin 1."
    assert new.step("help").observation.startswith("Available commands:\n  look:")


def test_look_before_moving_sees_nothing_and_afterwards_faces_all_places_there() -> None:
    engine = NativeEngine(tiny_game())
    assert play(engine, "look").observation.endswith("Looking quickly around you, you see nothing.")
    engine.step("go to countertop 1")
    assert engine.step("look").observation == (
        "You are facing the cabinet 2, cabinet 1, and countertop 1. Next to it, you see nothing."
    )


def test_look_lists_a_thing_moved_within_a_location_as_lying_next_to_it() -> None:
    engine = NativeEngine(tiny_game())
    take = ("go to countertop 1", "take mug 2 from countertop 1", "open cabinet 2", "put mug 2 in/on cabinet 2")
    assert play(engine, *take, "look").observation.endswith("Next to it, you see a mug 2.")


def test_places_at_one_location_are_in_reach_together_and_need_no_going() -> None:
    reply = play(NativeEngine(tiny_game()), "go to cabinet 1")
    assert {"open cabinet 1", "open cabinet 2", "take mug 2 from countertop 1"} <= set(reply.admissible)
    assert not {"go to cabinet 1", "go to cabinet 2", "go to countertop 1"} & set(reply.admissible)


def test_only_a_thing_in_hand_can_be_examined() -> None:
    engine = NativeEngine(tiny_game())
    assert "examine apple 1" not in play(engine, "go to countertop 1").admissible
    assert engine.step("take mug 1 from cabinet 1").observation == NOTHING_HAPPENS, "the cabinet is closed"
    engine.step("open cabinet 1")
    assert engine.step("take mug 1 from cabinet 1").observation == "You pick up the mug 1 from the cabinet 1."
    assert engine.step("examine mug 1").observation == "This is a normal mug 1. In it, you see a spoon 1."


def test_a_thing_in_two_places_stays_in_the_other_when_taken() -> None:
    engine = NativeEngine(tiny_game())
    play(engine, "go to countertop 1", "take apple 2 from countertop 1", "go to diningtable 1")
    assert engine.state.holding == "apple 2"
    assert engine.state.where("apple 2") == ("diningtable 1",)
    assert "a apple 2" in engine.step("examine diningtable 1").observation


def test_a_thing_that_no_place_takes_cannot_be_put_down() -> None:
    reply = play(NativeEngine(tiny_game()), "go to diningtable 1", "take plunger 1 from diningtable 1")
    assert not [c for c in reply.admissible if c.startswith("put ")]


def test_treating_needs_no_open_appliance_and_heat_undoes_cool() -> None:
    engine = NativeEngine(tiny_game("move", "heat"))
    reply = play(engine, "go to fridge 1", "open fridge 1", "take apple 1 from fridge 1", "close fridge 1")
    assert "cool apple 1 with fridge 1" in reply.admissible
    assert engine.step("examine apple 1").observation == "This is a cold apple 1."
    engine.step("go to microwave 1")
    assert engine.step("heat apple 1 with microwave 1").observation == "You heat the apple 1 using the microwave 1."
    assert engine.step("examine apple 1").observation == "This is a hot apple 1."
    engine.step("go to sinkbasin 1")
    engine.step("clean apple 1 with sinkbasin 1")
    assert engine.step("examine apple 1").observation == "This is a hot and clean apple 1."
    assert (engine.state.hot, engine.state.cool, engine.state.clean) == ({"apple 1"}, set(), {"apple 1"})


def test_a_lamp_can_only_be_turned_on_and_needs_no_free_hand() -> None:
    engine = NativeEngine(tiny_game("put", "look"))
    reply = play(engine, "go to countertop 1", "take mug 2 from countertop 1", "go to diningtable 1")
    assert "use desklamp 1" in reply.admissible
    for _ in range(2):
        reply = engine.step("use desklamp 1")
        assert reply.observation == "You turn on the desklamp 1."
        assert reply.won
    assert not engine.step("go to fridge 1").won, "looking at it elsewhere does not count"


def test_slicing_needs_a_knife_in_hand_and_the_thing_at_the_location() -> None:
    engine = NativeEngine(tiny_game())
    reply = play(engine, "go to countertop 1", "take knife 1 from countertop 1")
    assert "slice apple 2 with knife 1" in reply.admissible
    assert engine.step("slice apple 2 with knife 1").observation == "You sliced the apple 2 with the knife 1."
    assert engine.step("inventory").observation == "You are carrying: a knife 1."
    engine.step("put knife 1 in/on countertop 1")
    engine.step("take apple 2 from countertop 1")
    assert engine.step("examine apple 2").observation == "This is a sliced apple 2."


def test_commands_are_stripped_and_otherwise_exact() -> None:
    engine = NativeEngine(tiny_game())
    engine.start()
    assert engine.step("  go to fridge 1\n").observation.endswith("The fridge 1 is closed.")
    for wrong in ("", "GO TO cabinet 1", "go to  cabinet 1", "go to garbagecan 1", "open cabinet 1", "help", "examine"):
        before = engine.state
        assert engine.step(wrong).observation == NOTHING_HAPPENS
        assert engine.state is before


def test_snapshot_and_restore() -> None:
    engine = NativeEngine(tiny_game())
    here = play(engine, "go to countertop 1")
    saved = engine.state
    engine.step("take knife 1 from countertop 1")
    engine.step("go to fridge 1")
    assert engine.restore(saved).admissible == here.admissible
    assert engine.step("look").observation.startswith("You are facing the cabinet 2")


def test_engines_of_one_game_do_not_touch_each_other() -> None:
    one, other = NativeEngine(tiny_game()), NativeEngine(tiny_game())
    other.start()
    play(one, "go to countertop 1", "take knife 1 from countertop 1")
    assert other.state == tiny_game().initial
    assert "a knife 1" in other.step("go to countertop 1").observation


@pytest.mark.parametrize(("dialect", "kind"), CASES)
def test_admissible_commands_are_sorted_unique_and_all_do_something(dialect: str, kind: str) -> None:
    engine = NativeEngine(tiny_game(dialect, kind))
    frontier, seen = [engine.start()], 0
    states = [engine.state]
    while states and seen < 300:
        state = states.pop(0)
        reply = engine.restore(state)
        assert list(reply.admissible) == sorted(set(reply.admissible))
        for command in reply.admissible:
            seen += 1
            engine.restore(state)
            assert engine.step(command).observation != NOTHING_HAPPENS, command
            if engine.state != state and len(states) < 50:
                states.append(engine.state)
    assert frontier


_ENGINE = NativeEngine(tiny_game("move", "two"))
_TEXT = "go to open close take from move put in/on clean with use examine mug 1 2 cabinet look"
_WORDS = st.sampled_from(_TEXT.split())


@given(st.lists(st.one_of(st.text(), st.lists(_WORDS, max_size=6).map(" ".join)), max_size=8))
def test_any_string_is_answered(commands: list[str]) -> None:
    reply = _ENGINE.restore(_ENGINE.game.initial)
    for command in commands:
        known = command.strip() in reply.admissible
        reply = _ENGINE.step(command)
        assert (reply.observation == NOTHING_HAPPENS) != known


def test_games_that_were_played_leave_no_memory_behind() -> None:
    """10,000 episodes would fill it: each game that left its cache used to stay, with its tables."""
    data = tiny_data("move", "clean")

    def episodes(count: int) -> int:
        for number in range(count):
            engine = NativeEngine(parse_game(data, f"game {number}"))
            play(engine, "go to countertop 1", "take knife 1 from countertop 1")
            engine.step("dance")
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before, after = episodes(20), episodes(150)
    finally:
        tracemalloc.stop()
    assert after - before < 150 * 500, f"{(after - before) / 150:.0f} bytes an episode"
