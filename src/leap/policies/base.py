"""What acts: the interface between a rollout and whoever decides."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from leap.config import Section
from leap.core import Actor, Decision, History, PrivilegedState, content_key
from leap.envs.base import Environment
from leap.envs.live import called, faults_of
from leap.envs.tutor import Expert, scripts
from leap.errors import LeapError

UNPARSED = "(no action)"
"""Sent to the environment when no action could be read; every environment answers that nothing happens."""


class PolicyConfig(Section):
    """How the student decides on an action. Part of a recipe, under `policy`."""

    kind: str = Field(
        default="plain", description="plain: it acts as it answers. Or a registered policy around its own."
    )

    def content(self) -> dict[str, object]:
        """Of keys that name a place what is there, which names the policy to those who look for equal work."""
        return {}


@dataclass(frozen=True, slots=True)
class Act:
    """A decision and how it came about. `dropped` steps, the oldest, had to be left out of its prompt; `tokens` and `logprobs`
    are as in a `Completion`."""

    decision: Decision
    completion: str = ""
    parsed: bool = True
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dropped: int = 0
    tokens: Sequence[int] = ()
    logprobs: Sequence[float] = ()


class Player(Protocol):
    """A policy at one episode."""

    def decide(self, history: History, /) -> Awaitable[Act]:
        """The next act.

        Raises:
            ModelError: The policy's model failed; the rollout tries again, then ends the episode.
        """
        ...


@dataclass(frozen=True, slots=True)
class Deciding:
    """A player made of one function."""

    decide: Callable[[History], Awaitable[Act]]


Peek = Callable[[], Awaitable[PrivilegedState]]
"""Reads the privileged state of the present moment. Rollouts hand it to policies that declare `privileged` alone."""


class Policy(Protocol):
    """Someone who can play many episodes at once.

    Attributes:
        actor: Who it is, for the record.
        concurrency: How many episodes to play at once.
        privileged: Whether it may read the privileged state. False for everything that is ever called a student.
        waves: Whether its answers depend, in the last bits, on what else is in its batch, so that episodes are played in waves
            of fixed composition. Otherwise an episode that ends makes room for the next at once.
    """

    actor: Actor
    concurrency: int
    privileged: bool
    waves: bool

    def playing(self, seed: int, peek: Peek | None) -> AbstractAsyncContextManager[Player]:
        """Opens an episode."""
        ...


Decide = Callable[[History], Decision | str]
"""From a history to a decision, or to an action alone. May be `async def`."""


class ExpertPolicy:
    """An environment's unprivileged expert."""

    privileged = False
    concurrency = 64
    waves = False

    def __init__(self, environment: Environment) -> None:
        self.actor = Actor(name="expert")
        self._environment, self._tutor = environment, scripts(environment)

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        expert: Expert | None = None

        def decision(history: History) -> Decision:
            nonlocal expert
            expert = expert or self._tutor.expert(history.task)
            return expert.decide(history)

        blocking = self._tutor.blocking

        async def decide(history: History) -> Act:
            with faults_of(self._environment, history.task, "the expert"):
                return Act(await called(decision, history, blocking=True) if blocking else decision(history))

        yield Deciding(decide)


class FunctionPolicy:
    """Plays by a function, which sees histories and nothing else.

    Args:
        decide: The function.
        name: Who it is, for the record; the function's own name by default.
        concurrency: Episodes played at once.
        blocking: Whether a plain function runs in a thread, so that one that waits for a server holds nobody up.
    """

    privileged = False
    waves = False

    def __init__(
        self, decide: Decide, *, name: str | None = None, concurrency: int = 16, blocking: bool = True
    ) -> None:
        self.actor = Actor(name=name or getattr(decide, "__name__", type(decide).__name__))
        self.concurrency = concurrency
        self._decide, self._blocking = decide, blocking

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        yield self

    async def decide(self, history: History) -> Act:
        """Asks the function."""
        decision = await called(self._decide, history, blocking=self._blocking)
        if not isinstance(decision, Decision | str):
            raise LeapError(f"policy {self.actor.name} must return an action or a Decision, not {decision!r:.200}.")
        return Act(Decision(reason="", action=decision) if isinstance(decision, str) else decision)


class ScriptedPolicy:
    """The same actions whatever is shown; behind the last of them, the last again.

    Args:
        name: Who it is, for the record.
        actions: At least one.
    """

    privileged = False
    concurrency = 64
    waves = False

    def __init__(self, name: str, actions: Sequence[str]) -> None:
        self.actor = Actor(name=name)
        self._actions = tuple(actions)

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        yield self

    async def decide(self, history: History) -> Act:
        """The action of that step."""
        return Act(Decision(reason="", action=self._actions[min(len(history.actions), len(self._actions) - 1)]))


class TeacherPolicy:
    """The programmatic teacher executing its own corrections: with privilege, its value; at privilege 0, the teacher
    without privilege, which a student must beat to be better than its teacher."""

    privileged = True
    concurrency = 64
    waves = False

    def __init__(self, environment: Environment, privilege: int) -> None:
        self.actor = Actor(name=f"teacher-{privilege}")
        self._environment, self._tutor = environment, scripts(environment)
        self._privilege = privilege

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        if peek is None:
            raise LeapError("a teacher cannot play without the privileged state")
        tutor = self._tutor

        async def decide(history: History) -> Act:
            state = await peek()
            with faults_of(self._environment, history.task, "the tutor's correct"):
                decision = await called(tutor.correct, history, state, self._privilege, blocking=tutor.blocking)
            if decision is None:  # nothing can succeed any more: any action will do until the horizon
                action = history.now.admissible[0] if history.now.admissible else UNPARSED
                decision = Decision(reason="Nothing can succeed any more.", action=action)
            return Act(decision)

        yield Deciding(decide)


class MixedPolicy:
    """A student in whose place a teacher acts at some steps, each drawn by itself: DAgger's mixture of expert and learner,
    pi_i = beta_i pi* + (1 - beta_i) pi^_i (Ross, Gordon & Bagnell 2011, section 3).

    Steps of the teacher's have no completion on record. The student's prompts hold actions alone, so that it goes on from
    the teacher's as if they were its own.

    Args:
        student: Acts otherwise.
        teacher: Acts with probability beta; may read the privileged state.
        beta: The probability, 0..1.
        actor: Who both are together, for the record.
    """

    privileged = True  # the teacher is; the student is never handed the privileged state

    def __init__(self, student: Policy, teacher: Policy, beta: float, actor: Actor) -> None:
        if student.privileged:
            raise ValueError("a student may not see the privileged state")
        self.actor = actor
        self.concurrency = student.concurrency
        self.waves = student.waves
        self._student, self._teacher, self._beta = student, teacher, beta

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        async with self._student.playing(seed, None) as student, self._teacher.playing(seed, peek) as teacher:

            async def decide(history: History) -> Act:
                # Of the step, not of a stream: a step that is tried again is drawn alike.
                draw = random.Random(content_key(seed, "who acts", len(history.actions))).random()
                return await (teacher if draw < self._beta else student).decide(history)

            yield Deciding(decide)
