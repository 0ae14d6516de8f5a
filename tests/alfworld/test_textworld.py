"""The real engine behind our interface."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest
from alfworld_games import DIALECTS, needs_textworld, tiny_data, tiny_game, walks, write_game

from leap.errors import PrerequisiteError
from leap_worlds.alfworld import textworld as module
from leap_worlds.alfworld.game import GameError
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.textworld import TextWorldEngine


@pytest.mark.engine
@needs_textworld
@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_still_says_what_was_recorded(dialect: str, tmp_path: Path) -> None:
    walk = walks(dialect, "cool")[0]
    engine = TextWorldEngine(write_game(tmp_path, tiny_data(dialect, "cool")))
    native = NativeEngine(tiny_game(dialect, "cool"))
    assert engine.state == native.state
    for command, observation, won, listed in walk["steps"]:
        reply = engine.start() if command is None else engine.step(command)
        if command is not None:
            native.step(command)
        assert (reply.observation, list(reply.admissible)) == (observation, walk["admissible"][listed])
        assert (reply.won, reply.score) == (won, float(won))
        assert engine.state == native.state
    engine.close()
    engine.close()


@pytest.mark.engine
@needs_textworld
def test_the_process_is_left_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, stdout = sys.argv, sys.stdout
    engine = TextWorldEngine(write_game(tmp_path, tiny_data("move", "place")))
    engine.start()
    assert (sys.argv, sys.stdout) == (arguments, stdout)
    assert capsys.readouterr().out == ""
    engine.close()


@pytest.mark.engine
@needs_textworld
def test_names_are_those_of_the_demangler(tmp_path: Path) -> None:
    from alfworld.agents.utils.misc import Demangler

    engine = TextWorldEngine(write_game(tmp_path, tiny_data("put", "look")))
    engine.start()
    infos = engine._env._entity_infos
    demangler = Demangler(game_infos=infos)
    assert {i.id: i.name for i in infos.values()} == {i: demangler.demangle_alfred_name(i) for i in infos}
    engine.close()


@pytest.mark.engine
@needs_textworld
def test_a_game_that_cannot_be_played_is_an_error_for_people(tmp_path: Path) -> None:
    data = tiny_data("put", "look")
    data["pddl_problem"] = data["pddl_problem"].replace("(toggleable DeskLamp", "(heatable DeskLamp")
    engine = TextWorldEngine(write_game(tmp_path, data))
    with pytest.raises(GameError, match="is it solvable"):
        engine.start()
    with pytest.raises(GameError, match="no such game file"):
        TextWorldEngine(tmp_path / "nowhere")


def test_without_the_packages_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] in ("textworld", "fast_downward"):
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    module._environment_class.cache_clear()
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(PrerequisiteError, match=r"pip install 'leap-agents\[alfworld\]'"):
        TextWorldEngine(write_game(tmp_path, tiny_data("put", "place")))
    module._environment_class.cache_clear()
