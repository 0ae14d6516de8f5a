"""Decoding policies: the student draws several answers and one of them is taken, for example by a vote or a score."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import ClassVar, Generic, TypeVar

from pydantic import Field

from leap.core import Actor, History, seed_of
from leap.envs.live import called
from leap.policies.base import Act, Deciding, Peek, Player, Policy, PolicyConfig


class DecodingConfig(PolicyConfig):
    """Options of every decoding policy."""

    n: int = Field(default=4, ge=1, description="Answers drawn at each step.")

    @property
    def draws(self) -> int:
        """How many answers are drawn."""
        return self.n


def plain(config: PolicyConfig, student: Policy) -> Policy:
    """The student as it is."""
    return student


C = TypeVar("C", bound=DecodingConfig)


class DecodingPolicy(ABC, Generic[C]):
    """The student with another way to decide. Register it (`@leap.policy("best-of-n")`) and name it in a recipe.

    At each step the student answers `n` times, each time in a conversation and with a seed of its own, all at the same moment: a
    model in this process waits for every open conversation and answers them in one batch. The first answer is the one that the
    student gives alone.

    Args:
        config: The policy's own options.
        student: The student's policy.

    Class attributes:
        Config: The options a recipe may give.
        name: Registered name.
    """

    Config: ClassVar[type[DecodingConfig]] = DecodingConfig
    name: ClassVar[str]
    privileged = False

    def __init__(self, config: C, student: Policy) -> None:
        if student.privileged:
            raise ValueError("a student may not see the privileged state")
        self.config = config
        self.student = student
        self.actor = self.actor_of(config, student.actor)
        self.concurrency = max(1, student.concurrency // config.draws)
        self.waves = student.waves

    @classmethod
    def actor_of(cls, config: C, student: Actor) -> Actor:
        """Who acts, for the record, where the policy is around that student's."""
        options = ", ".join(f"{name} {value}" for name, value in config.model_dump(exclude={"kind"}).items())
        return student.model_copy(update={"name": f"{student.name}, {cls.name} ({options})"})

    def drawing(self, k: int) -> Policy:
        """Who draws answer k; the first is drawn by the student as it is."""
        return self.student

    @abstractmethod
    def choose(self, history: History, acts: Sequence[Act]) -> Act | Awaitable[Act]:
        """Takes one of several acts. May be `async def`.

        Args:
            history: What the student was shown.
            acts: What it answered, in the order of their seeds. Those of which no action could be read are not `parsed`.
        """

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        """Opens an episode."""
        seeds = [seed, *(seed_of(seed, "answer", k) for k in range(1, self.config.draws))]
        async with AsyncExitStack() as stack:
            opened = (self.drawing(k).playing(own, None) for k, own in enumerate(seeds))
            players = [await stack.enter_async_context(one) for one in opened]
            yield Deciding(lambda history: self._decide(history, players))

    async def _decide(self, history: History, players: Sequence[Player]) -> Act:
        answers = await asyncio.gather(*(player.decide(history) for player in players), return_exceptions=True)
        for answer in answers:  # only now, so that no call is left under way
            if isinstance(answer, BaseException):
                raise answer
        acts = [answer for answer in answers if isinstance(answer, Act)]
        chosen: Act = await called(self.choose, history, acts, blocking=False)
        return replace(
            chosen,
            prompt_tokens=sum(act.prompt_tokens for act in acts),
            completion_tokens=sum(act.completion_tokens for act in acts),
        )
