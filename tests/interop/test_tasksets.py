"""Tasksets of verifiers as leap's environments, with two small ones of one turn and of several."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip(
    "verifiers.v1", reason="verifiers is not installed (leap-agents[verifiers], in an environment of its own)"
)

from leap.check import check_env
from leap.core import Decision, History, StopReason
from leap.envs.base import Environment, load_environment
from leap.envs.live import states_along
from leap.errors import LeapError, PrerequisiteError, RecipeError
from leap.policies.base import FunctionPolicy
from leap.sync import run_sync
from leap.testing.play import played

COUNTS = {"train": 6, "valid": 3, "test": 3}


def world(name: str, **options: Any) -> Environment:
    return load_environment(f"verifiers/{name}", {"tasks": COUNTS, **options})


def test_a_taskset_of_one_turn() -> None:
    sums = world("vf-sums", privileged="data.result")
    splits = {split: sums.tasks(split) for split in COUNTS}
    names = [task.id for tasks in splits.values() for task in tasks]
    assert sorted(names) == sorted(f"sum-{n}" for n in range(12)) and names != sorted(names)
    assert "7" not in splits["train"][0].instruction

    def says(history: History) -> Decision:
        first, _, question = history.now.text.partition("\n\n")
        assert first == "Say a number."
        number = int(question.removeprefix("What is ").split()[0])
        return Decision(reason="adding", action=f"It is {number + 7 - number % 2}")

    episodes = played(sums, FunctionPolicy(says), splits["train"])
    assert [one.success for one in episodes] == [int(one.task.id[4:]) % 2 == 0 for one in episodes]
    assert {(one.score, one.stop) for one in episodes} == {(1.0, StopReason.SUCCESS), (0.0, StopReason.ENDED)}
    assert all(len(one.steps) == 1 for one in episodes)
    states = run_sync(states_along(sums, episodes[0]))
    assert states[0].text == f"result: {int(episodes[0].task.id[4:]) + 7}" and states[0].text not in episodes[0].model_dump_json()
    sums.close()


def test_a_taskset_of_several_turns() -> None:
    guesses = world("vf-guess", privileged="info.number", solved_at=0.5)
    tasks = guesses.tasks("train")
    assert [task.id for task in tasks] == [f"number-{n}" for n in range(6)]
    assert tasks[0].instruction == "Guess a number from 0 to 9."

    def bisects(history: History) -> str:
        low, high = 0, 9
        for action, seen in zip(history.actions, history.observations[1:], strict=True):
            low, high = (int(action) + 1, high) if "larger" in seen.text else (low, int(action) - 1)
        return str((low + high) // 2)

    episodes = played(guesses, FunctionPolicy(bisects), tasks)
    assert all(one.success for one in episodes) and len({len(one.steps) for one in episodes}) > 1
    for number, one in enumerate(episodes):
        assert one.steps[-1].action == str(number * 3 % 10) and one.steps[0].observation.text == "What is the number?"
        assert {step.observation.text for step in one.steps[1:]} <= {"It is larger.", "It is smaller."}
        states = run_sync(states_along(guesses, one))
        assert [state.text for state in states] == [f"number: {number * 3 % 10}"] * len(one.steps)
    cut = played(guesses, FunctionPolicy(lambda history: "9"), tasks[:2], horizon=2)
    assert [(one.stop, one.score) for one in cut] == [(StopReason.HORIZON, 0.0)] * 2
    guesses.close()


def test_what_its_own_code_raises_ends_that_episode() -> None:
    guesses = world("vf-guess")
    tasks = guesses.tasks("train", limit=1)
    (one,) = played(guesses, FunctionPolicy(lambda history: "seven"), tasks, error_share=1.0)
    assert one.stop is StopReason.ENVIRONMENT_ERROR and "invalid literal for int() with base 10: 'seven'" in one.error
    guesses.close()


def test_many_at_once_and_again_after_closing() -> None:
    sums = world("vf-sums", tasks={"train": 48}, taskset_options={"count": 48})
    for _ in range(2):
        episodes = played(sums, FunctionPolicy(lambda history: "7", concurrency=48), sums.tasks("train"))
        assert sum(one.success for one in episodes) == 1
        sums.close()


def test_it_keeps_the_contract() -> None:
    environment = world("vf-sums", tasks={"train": 2, "test": 1}, privileged="data.result")
    found = check_env(environment)
    assert all(one.ok for one in found), found
    environment.close()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vf-nosuch", {}, "taskset 'vf-nosuch' cannot be loaded: .*not found"),
        ("json", {}, "taskset 'json' cannot be loaded"),
        ("vf-sums", {"taskset_options": {"cuont": 3}}, "taskset 'vf-sums' is not valid(.|\n)*cuont"),
        ("vf-sums", {"taskset_options": {"count": 5}}, "has 5 tasks, and the splits ask for 12: set the option tasks"),
        ("vf-sums", {"env_options": {"id": "user-sim"}}, "agents; the student can be one"),
        ("harbor", {}, "taskset 'harbor' (needs a box|cannot be loaded|is not valid)"),
    ],
)
def test_what_cannot_be_played_says_why(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((PrerequisiteError, RecipeError), match=message):
        world(name, **options).tasks("train")


def test_a_path_that_leads_nowhere_says_what_is_there() -> None:
    sums = world("vf-sums", privileged="data.answer")
    with pytest.raises(LeapError, match=r"no 'answer' on the path 'data\.answer'.*result"):
        session = sums.start(sums.tasks("train")[0])
        session.privileged()  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="a taskset is needed"):
        load_environment("verifiers")
