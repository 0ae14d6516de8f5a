"""verl-agent's environments without an actor for each game: a fork changes one import.

    from leap.interop.verl_agent import build_alfworld_envs  # was: agent_system.environments.env_package.alfworld
    from leap.interop.verl_agent import build_webshop_envs   # was: agent_system.environments.env_package.webshop

Arguments, batches and infos are those of verl-agent (langfengQ/verl-agent, env_package/*/envs.py); `resources_per_worker` is not
needed. Beside verl-agent's own keys `env_kwargs` may have `options` (the leap environment's, in place of the configured data),
`split`, and `privileged: True`, which puts what is hidden from the student into each info.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from leap.core import Task
from leap.envs.base import Environment, listed, load_environment
from leap.errors import ContractError, PrerequisiteError
from leap.interop.games import Game, cycle, wait_all

WON = 10.0
"""The reward of a solved task; there is no other."""

_TASK_TYPES = {
    1: "pick_and_place_simple",
    2: "look_at_obj_in_light",
    3: "pick_clean_then_place_in_recep",
    4: "pick_heat_then_place_in_recep",
    5: "pick_cool_then_place_in_recep",
    6: "pick_two_obj_and_place",
}
_GENERATED = {"eval_in_distribution": "seen", "eval_out_of_distribution": "unseen"}
_EVALUATION = {"eval_in_distribution": "eval_id_data_path", "eval_out_of_distribution": "eval_ood_data_path"}


class _Batch:
    """`env_num` groups of `group_n` games each, all of a group of one task."""

    def __init__(self, environment: Environment, env_num: int, group_n: int, env_kwargs: Mapping[str, Any]) -> None:
        self.environment = environment
        self.group_n = group_n
        self.num_processes = env_num * group_n
        self._privileged = bool(env_kwargs.get("privileged"))
        self._games: list[Game] = []

    def _start(self, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        self.close()
        each = [task for task in tasks for _ in range(self.group_n)]
        self._games = wait_all(Game(self.environment, task).start() for task in each)
        return wait_all(self._info(game) for game in self._games)

    def _act(self, actions: Sequence[str]) -> list[dict[str, Any]]:
        if len(actions) != len(self._games):
            raise ContractError(f"{len(actions)} actions are given to {len(self._games)} games; reset() starts them.")

        async def turn(game: Game, action: str) -> dict[str, Any]:
            await game.act(action)
            return await self._info(game)

        return wait_all(map(turn, self._games, actions))

    async def _info(self, game: Game) -> dict[str, Any]:
        info = self._told(game)
        if self._privileged:
            info["privileged"] = (await game.privileged()).model_dump(mode="json")
        return info

    def _told(self, game: Game) -> dict[str, Any]:
        raise NotImplementedError

    def _shown(self) -> list[str]:
        return [game.outcome.observation.text for game in self._games]

    def close(self) -> None:
        """Frees all games."""
        wait_all(game.close() for game in self._games)
        self._games = []


class AlfworldEnvs(_Batch):
    """ALFWorld's text games. An episode ends with success, or after `horizon` actions."""

    multi_modal = False

    def __init__(
        self,
        environment: Environment,
        tasks: Sequence[Task],
        seed: int,
        env_num: int,
        group_n: int,
        env_kwargs: Mapping[str, Any],
        horizon: int,
    ) -> None:
        super().__init__(environment, env_num, group_n, env_kwargs)
        self.horizon = horizon
        self._orders: list[Iterator[Task]] = [cycle(tasks, seed + group) for group in range(env_num)]

    def reset(self) -> tuple[list[str], None, list[dict[str, Any]]]:
        """The next game of each group: the observations, no images, and the infos."""
        infos = self._start([next(order) for order in self._orders])
        return self._shown(), None, infos

    def step(self, actions: Sequence[str]) -> tuple[list[str], None, list[float], list[bool], list[dict[str, Any]]]:
        """Observations, no images, rewards, whether each game is over, and the infos."""
        infos = self._act(actions)
        dones = [game.outcome.done or game.steps >= self.horizon for game in self._games]
        return self._shown(), None, [WON * info["won"] for info in infos], dones, infos

    @property
    def get_admissible_commands(self) -> list[list[str]]:
        """What can be done in each game now."""
        return [[*(game.outcome.observation.admissible or ())] for game in self._games]

    def _told(self, game: Game) -> dict[str, Any]:
        shown, environment = game.outcome.observation, self.environment
        path: Any = getattr(environment, "game_path", None)
        return {
            "won": game.outcome.success,
            "admissible_commands": [*(shown.admissible or ())],
            "extra.gamefile": str(path(game.task)) if path else game.task.id,
            "observation_text": shown.text,
        }


def build_alfworld_envs(
    alf_config_path: str | None,
    seed: int,
    env_num: int,
    group_n: int,
    resources_per_worker: Mapping[str, Any] | None = None,
    is_train: bool = True,
    env_kwargs: Mapping[str, Any] | None = None,
) -> AlfworldEnvs:
    """ALFWorld as verl-agent asks for it.

    Args:
        alf_config_path: ALFWorld's YAML file, of which data folders, numbers of games, task types and the episodes' length count.
        seed: Group g plays the games in the order of the seed `seed + g`.
        env_num, group_n: So many groups of so many games.
        is_train: Whether the training games are played; else those of `env_kwargs["eval_dataset"]`.
        env_kwargs: `eval_dataset`, and leap's own keys (see above).

    Raises:
        PrerequisiteError: The games are not there, or images are asked for.
    """
    kwargs = dict(env_kwargs or {})
    config: dict[str, Any] = (
        yaml.safe_load(Path(alf_config_path).read_text(encoding="utf-8")) if alf_config_path else {}
    )
    if config.get("env", {}).get("type", "AlfredTWEnv") != "AlfredTWEnv":
        raise PrerequisiteError(
            f"leap plays ALFWorld's text games alone: env.type in {alf_config_path} must be AlfredTWEnv."
        )
    if (evaluation := kwargs.get("eval_dataset", "eval_in_distribution")) not in _EVALUATION:
        raise PrerequisiteError(f"there is no eval_dataset {evaluation!r}; there are {' and '.join(_EVALUATION)}.")
    data, limit = config.get("dataset", {}), None
    options, split = kwargs.get("options"), "train" if is_train else _GENERATED[evaluation]
    if options is None and data:
        folder = Path(os.path.expandvars(data["data_path" if is_train else _EVALUATION[evaluation]])).expanduser()
        options, split = {"source": "official", "path": str(folder.parent)}, folder.name
        games = data.get("num_train_games" if is_train else "num_eval_games", -1)
        limit = games if games > 0 else None
    environment = load_environment("alfworld", options)
    kinds = {_TASK_TYPES.get(number) for number in config.get("env", {}).get("task_types", _TASK_TYPES)}
    tasks = [task for task in listed(environment, kwargs.get("split", split)) if task.kind in kinds][:limit]
    if not tasks:
        raise PrerequisiteError(f"no game of the task types {sorted(filter(None, kinds))} is in split {split!r}.")
    method = config.get("general", {}).get("training_method", "dagger")
    training = config.get("rl" if method == "dqn" else "dagger", {}).get("training", {})
    return AlfworldEnvs(
        environment, tasks, seed, env_num, group_n, kwargs, training.get("max_nb_steps_per_episode", 50)
    )


class WebshopEnvs(_Batch):
    """WebShop's visits. As in verl-agent the goals of a batch are drawn without replacement by numpy's generator of the seed."""

    def __init__(
        self,
        environment: Environment,
        tasks: Sequence[Task],
        seed: int,
        env_num: int,
        group_n: int,
        env_kwargs: Mapping[str, Any],
    ) -> None:
        super().__init__(environment, env_num, group_n, env_kwargs)
        self.env_num = env_num
        self._tasks = tasks
        self._draw = np.random.RandomState(seed)

    def reset(self) -> tuple[list[str], list[dict[str, Any]]]:
        """A new task for each group: the observations, and the infos."""
        chosen = self._draw.choice(len(self._tasks), size=self.env_num, replace=False)
        infos = self._start([self._tasks[i] for i in chosen])
        return self._shown(), infos

    def step(self, actions: Sequence[str]) -> tuple[list[str], list[float], list[bool], list[dict[str, Any]]]:
        """Observations, rewards, whether each visit is over, and the infos."""
        infos = self._act(actions)
        for game, info in zip(self._games, infos, strict=True):
            info["task_score"] = game.outcome.score
        return self._shown(), [WON * info["won"] for info in infos], [game.outcome.done for game in self._games], infos

    def _told(self, game: Game) -> dict[str, Any]:
        page = game.session.visit.page  # type: ignore[attr-defined]
        buttons = {"has_search_bar": page.search_bar, "clickables": [*page.clickables]}
        return {"available_actions": buttons, "won": game.outcome.success}


def build_webshop_envs(
    seed: int,
    env_num: int,
    group_n: int,
    resources_per_worker: Mapping[str, Any] | None = None,
    is_train: bool = True,
    env_kwargs: Mapping[str, Any] | None = None,
) -> WebshopEnvs:
    """WebShop as verl-agent asks for it: goals 0-499 are tested on, the others trained on.

    Args:
        seed: Of the draw of tasks.
        env_num, group_n: So many groups of so many visits.
        is_train: Whether the training goals are drawn from.
        env_kwargs: Of verl-agent's keys `file_path` (its folder has the catalogue's files; `_1000` in its name means the small
            one), `human_goals` and `observation_mode`; and leap's own keys (see above).

    Raises:
        PrerequisiteError: The catalogue is not there.
    """
    kwargs = dict(env_kwargs or {})
    options = dict(kwargs.get("options") or {})
    small, human = "_1000" in Path(kwargs.get("file_path") or "").name, kwargs.get("human_goals", True)
    if kwargs.get("file_path") and "options" not in kwargs:
        options = {"path": str(Path(kwargs["file_path"]).parent), "products": 1000 if small else None}
    environment = load_environment("webshop", {"observation": kwargs.get("observation_mode", "text"), **options})
    names = (["eval", "train"], ["test"]) if human else (["synthetic_train"], ["synthetic"])
    if small and not human:
        names = (["verl-agent_train"], ["verl-agent"])
    splits = [kwargs["split"]] if "split" in kwargs else names[0 if is_train else 1]
    return WebshopEnvs(
        environment, [task for name in splits for task in listed(environment, name)], seed, env_num, group_n, kwargs
    )
