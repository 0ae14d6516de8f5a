"""Tasks of leap's environments as other frameworks play them: from plain code, many at once, with no end to a run."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from leap.core import History, Observation, PrivilegedState, Task
from leap.envs.base import Environment, Outcome, Session
from leap.envs.live import Live
from leap.envs.tools import in_words
from leap.errors import EnvironmentFault
from leap.policies.base import UNPARSED
from leap.policies.rendering import PromptConfig, Renderer

log = logging.getLogger(__name__)

T = TypeVar("T")


class Game:
    """A task being played. It answers every action, also those after its end, which change nothing. An error of the environment's
    own code ends it with the score it had.

    Attributes:
        task: The task.
        outcome: What came of the last action; before the first, the first observation.
        first: The first observation.
        steps: How many actions were taken.
        error: The environment's error, where one ended the game.
    """

    def __init__(self, environment: Environment, task: Task) -> None:
        self.environment = environment
        self.task = task
        self.outcome = Outcome(Observation(text=""))
        self.first = self.outcome.observation
        self.steps = 0
        self.error = ""
        self._live = Live(environment, task)
        self._open = False

    async def start(self) -> Game:
        """Opens the session and returns the game.

        Raises:
            EnvironmentFault: The environment's own code raised.
        """
        await self._live.__aenter__()
        self._open = True
        try:
            self.first = await self._live.observe()
        except BaseException:
            await self.close()
            raise
        self.outcome = Outcome(self.first)
        return self

    async def act(self, action: str) -> Outcome:
        """Takes an action and returns what came of it; of a game that is over, its end without a reward."""
        if self.outcome.done:
            return self.outcome._replace(reward=0.0)
        self.steps += 1
        try:
            self.outcome = await self._live.act(action)
        except EnvironmentFault as fault:
            log.error("%s", fault)
            self.error = str(fault)
            self.outcome = self.outcome._replace(observation=Observation(text=""), reward=0.0, done=True)
        return self.outcome

    @property
    def session(self) -> Session:
        """The session under way."""
        return self._live._at_hand()

    async def privileged(self) -> PrivilegedState:
        """What is hidden from the student now: for teachers alone. Empty where the environment's code fails to tell it."""
        try:
            return await self._live.privileged()
        except EnvironmentFault as fault:
            log.error("%s", fault)
            return PrivilegedState(text="")

    async def close(self) -> None:
        """Frees what the game holds; a game can be closed twice."""
        if self._open:
            self._open = False
            try:
                await self._live.__aexit__(None, None, None)
            except EnvironmentFault as fault:
                log.error("%s", fault)


class Dialogue:
    """A game as a conversation in words: a message for each observation, an answer for each action. What was said stays as it is,
    and tools are described and called in words, so that any chat of any framework can carry it.

    Args:
        game: The game, started.
        candidates: Whether the actions that can be listed are.
        calls: Whether the framework itself shows and reads calls of tools: messages then say nothing of how to answer.

    Attributes:
        game: The game, started.
        history: What the student has seen.
        unread: In how many answers no action could be read.
    """

    def __init__(self, game: Game, *, candidates: bool = True, calls: bool = False) -> None:
        self.game = game
        self.history = History(task=game.task, observations=(game.first,))
        self.unread = 0
        self._grammar = game.environment.grammar_of(game.task)
        self._tools = () if calls else self._grammar.tools
        config = PromptConfig(renderer="dialogue", candidates=candidates, instructions=not calls)
        self._renderer = Renderer(config, game.environment.prompts_of, grammar_of=game.environment.grammar_of)

    def message(self) -> str:
        """What is said to the student now."""
        return in_words(self._renderer.whole(self.history), self._tools)[-1]["content"]

    async def answer(self, text: str) -> Outcome:
        """Takes the action that a student's answer names and returns what came of it; none can be read from it, that is a step,
        too."""
        decision = self._grammar.read(text, self.history.now)
        self.unread += decision is None
        return await self.act(decision.action if decision else UNPARSED)

    async def act(self, action: str) -> Outcome:
        """Takes an action and returns what came of it."""
        outcome = await self.game.act(action)
        self.history = self.history.extend(action, outcome.observation)
        return outcome


def cycle(tasks: Sequence[Task], seed: object) -> Iterator[Task]:
    """Tasks without end, in an order shuffled anew each time round by the seed."""
    draw = random.Random(f"{seed}")
    while True:
        yield from draw.sample(tasks, len(tasks))


def wait(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, for callers that are none. All such work shares one event loop, in a thread of its own."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()


def wait_all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines that run side by side."""

    async def together() -> list[T]:
        return await asyncio.gather(*work)

    return wait(together())


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="leap-games", daemon=True).start()
    return loop


os.register_at_fork(after_in_child=_loop.cache_clear)  # a thread does not survive a fork
