"""The native engine says what the real one said, word for word, where the real one is not installed too."""

from __future__ import annotations

import pytest
from alfworld_games import CASES, tiny_game, walks

from leap_worlds.alfworld.native import NativeEngine


@pytest.mark.parametrize(("dialect", "kind"), CASES)
def test_recorded_walks(dialect: str, kind: str) -> None:
    for walk in walks(dialect, kind):
        engine = NativeEngine(tiny_game(dialect, kind))
        for command, observation, won, listed in walk["steps"]:
            reply = engine.start() if command is None else engine.step(command)
            assert reply.observation == observation, command
            assert list(reply.admissible) == walk["admissible"][listed], command
            assert (reply.won, reply.score) == (won, 1.0 if won else 0.0), command


@pytest.mark.parametrize(("dialect", "kind"), CASES)
def test_recorded_walks_are_worth_something(dialect: str, kind: str) -> None:
    planned, roaming = walks(dialect, kind)
    assert planned["steps"][-1][2], "the planner's walk wins"
    assert len({command for command, *_ in roaming["steps"]}) > 12
    assert any(observation == "Nothing happens." for _, observation, *_ in [*planned["steps"], *roaming["steps"]])
