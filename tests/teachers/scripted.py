"""Models that say what a test tells them to, and small episodes to correct."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from leap.core import Episode
from leap.core.message import Message
from leap.envs.base import Environment
from leap.models.base import Completion, Model
from leap.policies.base import ExpertPolicy
from leap.rollout import rollout

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from tiny_world import TinyWorld, TinyWorldConfig

Answer = str | Exception | Completion


class Scripted(Model):
    """Answers each prompt by a function of its text and of how many calls there were before."""

    def __init__(self, answer: Callable[[str, int], Answer], *, concurrency: int = 4, pause: float = 0.0) -> None:
        self.name = "scripted/one"
        self.concurrency = concurrency
        self.prompts: list[str] = []
        self.seeds: list[int] = []
        self.schemas: list[dict[str, Any] | None] = []
        self.most_at_once = 0
        self._answer = answer
        self._pause = pause
        self._at_once = 0

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Scripted]:
        yield self

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        seed: int,
        choices: Sequence[str] | None = None,
        schema: dict[str, Any] | None = None,
    ) -> Completion:
        text = "\n".join(message["content"] for message in messages)
        call = len(self.prompts)
        self.prompts.append(text)
        self.seeds.append(seed)
        self.schemas.append(schema)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(self._pause)
        self._at_once -= 1
        answer = self._answer(text, call)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Completion) else Completion(answer, len(text), len(answer))


def a_world(tasks: int = 12) -> Any:
    """The dark house with the hidden key."""
    return TinyWorld(TinyWorldConfig(tasks=tasks))


def expert_episodes(environment: Environment, split: str = "train", *, horizon: int = 8) -> list[Episode]:
    """The expert's episodes, in the tasks' order."""
    tasks = environment.tasks(split)
    episodes: list[Episode] = []
    rollout(
        environment, ExpertPolicy(environment), tasks, horizon=horizon, seed=0, stream="test", on_episode=episodes.append
    )
    order = {task.key: index for index, task in enumerate(tasks)}
    return sorted(episodes, key=lambda episode: order[episode.task.key])
