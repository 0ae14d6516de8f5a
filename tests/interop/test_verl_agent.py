"""verl-agent's batches of ALFWorld and WebShop: what its environment managers read of them, and what they give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_games import small_games

pytest.importorskip("numpy", reason="numpy is not installed (leap-agents[webshop])")

from leap.errors import ContractError, PrerequisiteError
from leap.interop.verl_agent import build_alfworld_envs, build_webshop_envs

GAMES = small_games(train=5, valid=1, unseen=2)
SHOP = {"generator": {"products": 1520, "goals": 1510}}


def test_a_batch_of_alfworld() -> None:
    envs = build_alfworld_envs(None, 0, 3, 2, {"num_cpus": 0.1}, True, {"options": GAMES, "privileged": True})
    texts, images, infos = envs.reset()
    assert images is None and envs.num_processes == len(texts) == len(infos) == 6 and envs.multi_modal is False
    assert all("Your task is to: " in text for text in texts)
    games = [info["extra.gamefile"] for info in infos]
    assert games[::2] == games[1::2] and all("pick_and_place" in game and Path(game).is_file() for game in games)
    assert envs.get_admissible_commands == [info["admissible_commands"] for info in infos]
    plans = [info["privileged"]["plan"] for info in infos]
    plans[0] = ["look"] * len(plans[0])
    won = [False] * 6
    for t in range(max(map(len, plans))):
        texts, images, rewards, dones, infos = envs.step([plan[t] if t < len(plan) else "look" for plan in plans])
        assert (
            images is None
            and all(type(value) is float for value in rewards)
            and all(type(done) is bool for done in dones)
        )
        assert [info["observation_text"] for info in infos] == texts
        won = [info["won"] for info in infos]
        assert rewards == [10.0 * each for each in won] and dones == won
    assert won == [False, True, True, True, True, True]
    again = [info["extra.gamefile"] for info in envs.reset()[2]]
    assert again != games
    same = build_alfworld_envs(None, 0, 3, 2, env_kwargs={"options": GAMES})
    infos = same.reset()[2]
    assert [info["extra.gamefile"] for info in infos] == games and "privileged" not in infos[0]
    with pytest.raises(ContractError, match="2 actions are given to 6 games"):
        same.step(["look", "look"])


def test_alfworlds_own_configuration_counts(
    official_games: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(official_games))
    folders = sorted(path.name for path in (official_games / "json_2.1.1").iterdir())
    kept = {"env": {"type": "AlfredTWEnv", "task_types": [1]}, "dagger": {"training": {"max_nb_steps_per_episode": 2}}}
    data = {"data_path": f"$ALFWORLD_DATA/json_2.1.1/{folders[0]}", "num_train_games": -1}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"dataset": data, "general": {"training_method": "dagger"}, **kept}))
    envs = build_alfworld_envs(str(file), 0, 2, 1, None, True, {"eval_dataset": "eval_in_distribution"})
    _, _, infos = envs.reset()
    assert all("/pick_and_place_simple-" in info["extra.gamefile"] for info in infos)
    assert [envs.step(["look", "look"])[3] for _ in range(2)] == [[False, False], [True, True]]
    file.write_text(yaml.safe_dump({"env": {"type": "AlfredThorEnv"}}))
    with pytest.raises(PrerequisiteError, match="text games alone"):
        build_alfworld_envs(str(file), 0, 2, 1)


def test_a_batch_of_webshop() -> None:
    kwargs: dict[str, Any] = {"observation_mode": "text", "num_products": None, "human_goals": True, "options": SHOP}
    envs = build_webshop_envs(
        seed=0, env_num=2, group_n=2, resources_per_worker={}, env_kwargs=kwargs | {"privileged": True}
    )
    texts, infos = envs.reset()
    parts = [text.split(" [SEP] ") for text in texts]
    assert all(part[1] == "Instruction:" for part in parts) and texts[::2] == texts[1::2] and texts[0] != texts[2]
    assert (
        infos[0]["available_actions"] == {"has_search_bar": True, "clickables": ["search"]} and infos[0]["won"] is False
    )
    texts, rewards, dones, infos = envs.step(["search[shirt]"] * 4)
    found = infos[0]["available_actions"]["clickables"]
    assert found[:2] == ["back to search", "next >"] and found[2].startswith("b0") and rewards == [0.0] * 4
    texts, rewards, dones, infos = envs.step([f"click[{found[2]}]"] * 4)
    texts, rewards, dones, infos = envs.step(["click[buy now]"] * 4)
    assert dones == [True] * 4 and all(0 <= info["task_score"] <= 1 for info in infos)
    assert rewards == [10.0 * (info["task_score"] == 1.0) for info in infos]
    with pytest.raises(PrerequisiteError, match="no WebShop data"):
        build_webshop_envs(0, 1, 1, env_kwargs={"file_path": "/nowhere/items_shuffle_1000.json", "human_goals": False})
