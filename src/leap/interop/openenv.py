"""leap's environments as OpenEnv servers: `leap serve ENV --openenv`. (`leap.interop.foreign` has such servers in leap.)

A server gives each session a game of its own. What is hidden from the student is in the state, which every client may ask for,
so it is there only with `--privileged`.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any

import openenv.core as core
from openenv.core.env_server.interfaces import Environment as Served
from openenv.core.env_server.types import Action, EnvironmentMetadata, State
from openenv.core.env_server.types import Observation as Shown
from pydantic import Field

from leap import __version__
from leap.core import Task
from leap.envs.base import Environment, listed
from leap.interop.games import Game, cycle, wait


class LeapAction(Action):
    """An action."""

    command: str = Field(
        description="The action as a text: one of the admissible ones where the observation lists them."
    )


class LeapObservation(Shown):
    """What is shown, and how the task stands."""

    text: str = Field(description="What a person would read.")
    instruction: str = Field(description="The task in words.")
    admissible: list[str] | None = Field(
        default=None, description="The actions that do something now; null where they cannot be listed."
    )
    success: bool = Field(default=False, description="Whether the task is solved.")
    score: float = Field(default=0.0, description="The score if the episode ended now, in [0, 1].")


class LeapState(State):
    """Which task is played."""

    task: str | None = Field(default=None, description="Its id.")
    split: str | None = Field(default=None, description="Its split.")


class PrivilegedLeapState(LeapState):
    """The same, and what is hidden from the student."""

    privileged: dict[str, Any] = Field(default_factory=dict, description="Text, facts, plan, and whether all is lost.")


class Tasks:
    """The tasks that a server offers to its sessions: in a shuffled order without end, or as a client asks."""

    def __init__(self, environment: Environment, splits: list[str]) -> None:
        self.environment = environment
        self.splits = {split: listed(environment, split) for split in splits}
        self._lock = threading.Lock()
        self._orders = {split: cycle(tasks, split) for split, tasks in self.splits.items()}

    def choose(self, seed: int | None, split: str | None, index: int | None, task: str | None) -> Task:
        """The task of an index or an id; of a seed; or the next."""
        split = split or next(iter(self.splits))
        if split not in self.splits:
            raise ValueError(f"there is no split {split!r} here; there are: {', '.join(self.splits)}")
        tasks = self.splits[split]
        if task is not None:
            index = next((i for i, one in enumerate(tasks) if one.id == task), len(tasks))
        if index is not None:
            if not 0 <= index < len(tasks):
                raise ValueError(f"split {split!r} has {len(tasks)} tasks, and {task or index!r} is none of them")
            return tasks[index]
        if seed is not None:
            return random.Random(seed).choice(tasks)
        with self._lock:
            return next(self._orders[split])


class LeapServed(Served[LeapAction, LeapObservation, LeapState]):
    """One session. It is also OpenEnv's task provider.

    Args:
        tasks: What can be played.
        horizon: Most actions of an episode.
        privileged: Whether the state has what is hidden from the student.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, tasks: Tasks, horizon: int, privileged: bool) -> None:
        super().__init__()
        self._tasks, self._horizon, self._privileged = tasks, horizon, privileged
        self._game: Game | None = None
        self._episode: str | None = None

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        split: str | None = None,
        index: int | None = None,
        task: str | None = None,
        **_: Any,
    ) -> LeapObservation:
        chosen = self._tasks.choose(seed, split, index, task)
        self.close()
        self._game = wait(Game(self._tasks.environment, chosen).start())
        self._episode = episode_id
        return self._shown(self._game)

    def step(self, action: LeapAction, timeout_s: float | None = None, **_: Any) -> LeapObservation:
        if self._game is None:
            raise ValueError("reset comes before the first step")
        over = self._game.outcome.done or self._game.steps >= self._horizon
        reward = 0.0 if over else wait(self._game.act(action.command)).reward
        return self._shown(self._game, reward)

    def _shown(self, game: Game, reward: float | None = None) -> LeapObservation:
        outcome = game.outcome
        admissible = outcome.observation.admissible
        return LeapObservation(
            text=outcome.observation.text,
            instruction=game.task.instruction,
            admissible=None if admissible is None else [*admissible],
            success=outcome.success,
            score=outcome.score,
            reward=reward,
            done=outcome.done or game.steps >= self._horizon,
            metadata={name: float(value) for name, value in outcome.parts.items()},
        )

    @property
    def state(self) -> LeapState:
        game = self._game
        fields: dict[str, Any] = {"episode_id": self._episode, "step_count": game.steps if game else 0}
        if game:
            fields |= {"task": game.task.id, "split": game.task.split}
        if not self._privileged:
            return LeapState(**fields)
        return PrivilegedLeapState(**fields, privileged=wait(game.privileged()).model_dump(mode="json") if game else {})

    def close(self) -> None:
        if self._game is not None:
            wait(self._game.close())
            self._game = None

    def get_metadata(self) -> EnvironmentMetadata:
        said = (type(self._tasks.environment).__doc__ or "").strip().partition("\n")[0]
        return EnvironmentMetadata(name=self._tasks.environment.name, description=said, version=__version__)

    def list_splits(self) -> list[str]:
        return [*self._tasks.splits]

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        return [self.get_task(split, index) for index in range(self.num_tasks(split))]

    def num_tasks(self, split: str) -> int:
        return len(self._tasks.splits[split])

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        task = self._tasks.splits[split][index]
        return {"id": task.id, "index": index, "instruction": task.instruction, "kind": task.kind}


def app(
    environment: Environment,
    splits: list[str],
    *,
    sessions: int = 64,
    horizon: int = 30,
    privileged: bool = False,
    web: bool = True,
) -> Any:
    """An environment as an OpenEnv server, for any ASGI server: sessions over a socket, `/schema`, `/docs`, a page at `/web`."""
    os.environ["ENABLE_WEB_INTERFACE"] = str(web).lower()  # OpenEnv has no other switch
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    tasks = Tasks(environment, splits)
    factory: Callable[[], LeapServed] = lambda: LeapServed(tasks, horizon, privileged)  # noqa: E731
    return core.create_app(
        factory,
        LeapAction,
        LeapObservation,
        env_name=environment.name,
        max_concurrent_envs=sessions,
        state_cls=PrivilegedLeapState if privileged else LeapState,
    )
