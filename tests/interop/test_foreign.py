"""Gymnasium's environments and TextArena's games as leap's, with what is hidden where a path leads."""

from __future__ import annotations

import pytest
from small_games import small_games

from leap.check import check_env
from leap.core import Task
from leap.envs.base import load_environment, opened
from leap.errors import LeapError, PrerequisiteError, RecipeError
from leap.interop.foreign import at


def test_a_text_environment_of_gymnasium() -> None:
    pytest.importorskip("gymnasium", reason="gymnasium is not installed (leap-agents[gymnasium])")
    options = {
        "make": {"options": small_games(train=4, valid=1, unseen=1), "privileged": True},
        "privileged": "info.privileged.text",
        "admissible": "admissible_commands",
        "tasks": {"train": 4, "test": 2},
    }
    environment = load_environment("gymnasium/leap.interop.gymnasium:leap/ALFWorld-v0", options)
    check_env(environment, tasks=2, strict=True)
    task = environment.tasks("train")[0]
    with opened(environment, task) as session:
        plan = session.privileged().text.partition("Optimal actions: ")[2].split("; ")
        outcome = [session.act(action) for action in plan][-1]
    assert (outcome.done, outcome.success, outcome.score) == (True, True, 1.0)


def test_numbered_actions_of_gymnasium_have_names() -> None:
    pytest.importorskip("gymnasium", reason="gymnasium is not installed (leap-agents[gymnasium])")
    options = {"make": {"is_slippery": False}, "actions": ["left", "down", "right", "up"], "privileged": "env.desc"}
    environment = load_environment("gymnasium/FrozenLake-v1", options)
    check_env(environment, tasks=2, strict=True)
    with opened(environment, environment.tasks("train")[0]) as session:
        assert session.observe().admissible == ("left", "down", "right", "up")
        outcomes = [session.act(action) for action in ("swim", "down", "down", "right", "right", "down", "right")]
    assert outcomes[0].observation.text == "There is no action 'swim' here." and outcomes[-1].success
    task = environment.tasks("train")[0]
    with opened(load_environment("gymnasium/FrozenLake-v1", {"privileged": "env.desc"}), task) as session:
        assert session.observe().admissible == ("0", "1", "2", "3"), "numbers without names are their own"
        assert session.act("south").observation.text == "There is no action 'south' here."
        assert session.privileged().facts["value"][0] == ["S", "F", "F", "F"], "arrays are lists"
    for unknown, said in (("NoSuch-v9", "does not make"), ("MountainCarContinuous-v0", "its actions are Box")):
        with pytest.raises(PrerequisiteError, match=said):
            load_environment(f"gymnasium/{unknown}").start(task)


def test_a_game_of_textarena() -> None:
    pytest.importorskip("textarena", reason="TextArena is not installed (leap-agents[textarena])")
    environment = load_environment("textarena/GuessTheNumber-v0", {"privileged": "game_number"})
    check_env(environment, tasks=3, strict=True)
    tasks = environment.tasks("train")
    hidden = []
    for task in tasks[:20]:
        with opened(environment, task) as session:
            number = session.privileged().facts["value"]
            hidden.append(number)
            assert "higher" in session.act(f"[{number - 1}]").observation.text or number == 1
            outcome = session.act(f"[{number}]")
            assert (outcome.done, outcome.success, outcome.score, outcome.reward) == (True, True, 1.0, 1.0)
    assert len(set(hidden)) > 5
    with pytest.raises(PrerequisiteError, match=r"TextArena has no game 'Hangmen-v0'. Did you mean 'Hangman-v0'"):
        load_environment("textarena/Hangmen-v0").start(tasks[0])


def test_data_of_nltk_that_a_game_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of NLTK itself, which lists every folder it looked in."""
    textarena = pytest.importorskip("textarena", reason="TextArena is not installed (leap-agents[textarena])")
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(textarena, "make", lambda *_, **__: nltk.data.find("corpora/words"))
    environment = load_environment("textarena/Wordle-v0")
    with pytest.raises(PrerequisiteError, match=r"^Wordle-v0 needs .* give: python -m nltk.downloader words$"):
        environment.start(environment.tasks("train")[0])


@pytest.mark.parametrize("game", ["ThreeCardMonte-v0", "RushHour-v0", "Countdown-v0"])
def test_odd_games_of_textarena_keep_the_contract(game: str) -> None:
    """A generator of its own; what is drawn when the game is made; a reason where the reward should stand."""
    pytest.importorskip("textarena", reason="TextArena is not installed (leap-agents[textarena])")
    environment = load_environment(f"textarena/{game}")
    first, second = environment.tasks("train")[:2]

    def shown(task: Task) -> list[str]:
        with opened(environment, task) as session:
            texts = [session.observe().text]
            for _ in range(3):
                outcome = session.act("no move at all")
                texts.append(outcome.observation.text)
                if outcome.done:
                    assert 0 <= outcome.score <= 1 and not outcome.success
                    break
        return texts

    there = shown(first)
    shown(second)
    assert there == shown(first), "whoever played in between"


def test_paths_and_names() -> None:
    assert at({"a": [{"b": 3}]}, "a.0.b", "x") == 3
    with pytest.raises(LeapError, match=r"x: there is no 'c' on the path 'a.0.c'; there is: b"):
        at({"a": [{"b": 3}]}, "a.0.c", "x")
    with pytest.raises(LeapError, match="__class__"):
        at({"a": 1}, "a.__class__", "x")
    with pytest.raises(RecipeError, match="environment 'alfworld' is named alone"):
        load_environment("alfworld/valid")
