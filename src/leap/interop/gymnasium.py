"""leap's environments in Gymnasium: `gymnasium.make("leap/ALFWorld-v0")`. (`leap.interop.foreign` has Gymnasium's in leap.)

They have texts as observations and actions. They are registered when this module is imported, for Gymnasium
loads no plugins by itself; it also takes the module in the name: `gymnasium.make("leap.interop.gymnasium:leap/ALFWorld-v0")`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from leap import registry
from leap.core import Task
from leap.envs.base import listed, load_environment
from leap.errors import PrerequisiteError, suggest
from leap.interop.games import Game, wait, wait_all

HORIZON = 30
"""Most actions of an episode unless `max_episode_steps` says otherwise."""

_SPELLED = {
    "alfworld": "ALFWorld",
    "webshop": "WebShop",
    "intercode-bash": "InterCodeBash",
    "intercode-generated": "InterCodeGenerated",
    "intercode-python": "InterCodePython",
    "intercode-sql": "InterCodeSQL",
}


class AnyText(gymnasium.Space[str]):
    """Texts of any length and any characters, which `gymnasium.spaces.Text` cannot be. A sample is a word of eight letters."""

    def __init__(self) -> None:
        super().__init__(shape=None, dtype=str)

    def sample(self, mask: None = None, probability: None = None) -> str:
        return "".join(self.np_random.choice([*ascii_lowercase], 8))

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    @property
    def is_np_flattenable(self) -> bool:
        return False


class LeapEnv(gymnasium.Env[str, str]):
    """An environment of leap; each `reset` starts a task of the split.

    `reset(options={"task": ID})` starts a certain one. Each `info` has the keys of `told`.

    Args:
        name: The registered name.
        split: Whose tasks are played.
        options: The environment's options, as under `environment.options` in a recipe.
        privileged: Whether `info["privileged"]` has what is hidden from the student: for teachers and critics alone.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as the base class has it

    def __init__(
        self,
        name: str,
        split: str = "train",
        *,
        options: Mapping[str, object] | None = None,
        privileged: bool = False,
    ) -> None:
        self.environment = load_environment(name, options)
        self.tasks = listed(self.environment, split)
        self.privileged = privileged
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self._game: Game | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.close()
        task = _chosen(self.tasks, self.np_random, options)
        self._game = wait(Game(self.environment, task).start())
        return self._game.first.text, wait(told(self._game, self.privileged))

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._game is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        outcome = wait(self._game.act(action))
        info = wait(told(self._game, self.privileged))
        return outcome.observation.text, outcome.reward, outcome.done, False, info

    def close(self) -> None:
        if self._game is not None:
            wait(self._game.close())
            self._game = None


class LeapVectorEnv(VectorEnv[tuple[str, ...], tuple[str, ...], np.ndarray]):
    """Many tasks of one environment side by side in one process. Nothing resets by itself: `reset(options={"reset_mask": MASK})`
    starts those of a mask anew.

    Args:
        num_envs: How many.
        max_episode_steps: Most actions of an episode, which is then truncated; None for no limit.
        name, split, options, privileged: As for `LeapEnv`.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(
        self,
        name: str,
        split: str = "train",
        *,
        num_envs: int = 1,
        options: Mapping[str, object] | None = None,
        privileged: bool = False,
        max_episode_steps: int | None = None,
    ) -> None:
        self.environment = load_environment(name, options)
        self.tasks = listed(self.environment, split)
        self.num_envs = num_envs
        self.privileged = privileged
        self.horizon = max_episode_steps
        self.single_observation_space = self.single_action_space = AnyText()
        self.observation_space = self.action_space = batch_space(AnyText(), num_envs)
        self._games: list[Game] = []

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        if isinstance(seed, list):
            raise gymnasium.error.InvalidAction("one seed is given for all games; tasks are drawn from it")
        super().reset(seed=seed)
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        chosen = list(range(self.num_envs)) if mask is None or not self._games else np.flatnonzero(mask).tolist()
        tasks = [_chosen(self.tasks, self.np_random, options) for _ in chosen]
        wait_all(self._games[i].close() for i in chosen if self._games)
        fresh = wait_all(Game(self.environment, task).start() for task in tasks)
        self._games = self._games or [*fresh]
        for i, game in zip(chosen, fresh, strict=True):
            self._games[i] = game
        return self._shown(), self._infos(chosen)

    def step(
        self, actions: Sequence[str]
    ) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if not self._games:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        outcomes = wait_all(game.act(action) for game, action in zip(self._games, actions, strict=True))
        done = np.array([outcome.done for outcome in outcomes])
        late = np.array([self.horizon is not None and game.steps >= self.horizon for game in self._games])
        rewards = np.array([outcome.reward for outcome in outcomes])
        return self._shown(), rewards, done, late & ~done, self._infos(range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        wait_all(game.close() for game in self._games)
        self._games = []

    def _shown(self) -> tuple[str, ...]:
        return tuple(game.outcome.observation.text for game in self._games)

    def _infos(self, places: Sequence[int]) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for i, info in zip(places, wait_all(told(self._games[i], self.privileged) for i in places), strict=True):
            infos = self._add_info(infos, info, i)
        return infos


async def told(game: Game, privileged: bool) -> dict[str, Any]:
    """What an info says: the task, the admissible commands (None where they cannot be listed), how it stands, and, if asked, the
    privileged state's text, facts and plan."""
    outcome = game.outcome
    info: dict[str, Any] = {
        "task": game.task.id,
        "instruction": game.task.instruction,
        "kind": game.task.kind,
        "admissible_commands": None if outcome.observation.admissible is None else [*outcome.observation.admissible],
        "won": outcome.success,
        "score": outcome.score,
        "parts": dict(outcome.parts),
    }
    if game.error:
        info["error"] = game.error
    if privileged:
        info["privileged"] = (await game.privileged()).model_dump(mode="json")
    return info


def _chosen(tasks: Sequence[Task], draw: np.random.Generator, options: Mapping[str, Any] | None) -> Task:
    wanted = (options or {}).get("task")
    if wanted is None:
        return tasks[int(draw.integers(len(tasks)))]
    for task in tasks:
        if task.id == wanted:
            return task
    raise PrerequisiteError(f"there is no task {wanted!r} in this split.{suggest(str(wanted), [t.id for t in tasks])}")


def register() -> None:
    """Registers every environment of leap that is not yet: `leap/NAME-v0`. Called when this module is imported; call it again
    for what is registered later."""
    for name in registry.environment.names():
        spelled = f"leap/{_SPELLED.get(name, name)}-v0"
        if spelled not in gymnasium.registry:
            gymnasium.register(
                id=spelled,
                entry_point=f"{__name__}:LeapEnv",
                vector_entry_point=f"{__name__}:LeapVectorEnv",
                kwargs={"name": name},
                max_episode_steps=HORIZON,
            )


register()
