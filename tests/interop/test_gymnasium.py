"""Gymnasium's own checks on leap's environments, one by one and many at once."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from small_games import small_games

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed (leap-agents[gymnasium])")

from gymnasium.utils.env_checker import check_env  # noqa: E402

import leap.interop.gymnasium as door  # noqa: E402
from leap import registry  # noqa: E402
from leap.errors import PrerequisiteError  # noqa: E402
from tiny_world import TinyWorld  # noqa: E402

GAMES = small_games(train=4, valid=1, unseen=1)
FORKED = {"context": "fork", "shared_memory": False}
SHOP = {"generator": {"products": 1520, "goals": 1510}}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.environment._decorated, "tiny-world", TinyWorld)
    door.register()


@pytest.mark.parametrize(("name", "options"), [("ALFWorld", GAMES), ("WebShop", SHOP), ("tiny-world", {})])
def test_gymnasiums_checks_are_clean(name: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for privileged in (False, True):
            env = gymnasium.make(f"leap/{name}-v0", options=options, privileged=privileged)
            check_env(env.unwrapped)
            env.close()


def test_the_plan_in_a_privileged_info_solves_the_game() -> None:
    env = gymnasium.make("leap/ALFWorld-v0", options=GAMES, privileged=True)
    shown, info = env.reset(seed=3)
    assert info["instruction"] in shown and info["privileged"]["text"] not in shown
    rewards = []
    for action in info["privileged"]["plan"]:
        assert action in info["admissible_commands"]
        shown, reward, done, late, info = env.step(action)
        rewards.append(reward)
    assert (done, late, info["won"], info["score"], sum(rewards)) == (True, False, True, 1.0, 1.0)
    assert env.step("look")[1:3] == (0.0, True)  # an action after the end changes nothing
    env.close()


def test_nothing_privileged_is_told_unasked_and_a_task_can_be_chosen() -> None:
    env = gymnasium.make("leap/ALFWorld-v0", options=GAMES)
    _, info = env.reset(seed=1)
    assert "privileged" not in info
    other = next(task.id for task in env.unwrapped.tasks if task.id != info["task"])
    assert env.reset(options={"task": other})[1]["task"] == other
    with pytest.raises(PrerequisiteError, match="there is no task 'none' in this split"):
        env.reset(options={"task": "none"})


def test_episodes_end_where_the_horizon_is() -> None:
    env = gymnasium.make("leap/tiny-world-v0", max_episode_steps=2)
    env.reset(seed=0)
    assert [env.step("sing")[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_many_games_at_once_are_as_one_each() -> None:
    envs = gymnasium.make_vec("leap/ALFWorld-v0", num_envs=8, options=GAMES, privileged=True, max_episode_steps=3)
    shown, infos = envs.reset(seed=5)
    alone = gymnasium.make("leap/ALFWorld-v0", options=GAMES)
    ends = []
    for i in range(8):
        first, _ = alone.reset(options={"task": infos["task"][i]})
        assert first == shown[i]
        plan = infos["privileged"]["plan"][i]
        ends.append([alone.step(action)[0] for action in plan[:3]][-1])
    for t in range(3):
        shown, rewards, done, late, _ = envs.step([plan[t] for plan in infos["privileged"]["plan"]])
    assert list(shown) == ends and rewards.dtype == np.float64
    assert (late | done).all()
    again, told = envs.reset(options={"reset_mask": np.arange(8) == 2})
    assert [i for i in range(8) if again[i] != shown[i]] == [2] and told["_task"].sum() == 1
    assert not envs.step(["look"] * 8)[3][2]
    envs.close()


def test_games_can_be_played_in_forked_processes() -> None:
    alone = gymnasium.make("leap/tiny-world-v0")
    alone.reset(seed=0)  # the loop of this process is running when others are forked
    envs = gymnasium.make_vec("leap/tiny-world-v0", num_envs=2, vectorization_mode="async", vector_kwargs=FORKED)
    assert envs.reset(seed=0)[0][0] == alone.reset(seed=0)[0]
    envs.close()
