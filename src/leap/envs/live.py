"""Sessions as the framework uses them, whether their methods are coroutines, take their time or answer at once.

A method that is `async def` is awaited. One that takes its time (`blocking`) runs in a thread, so that episodes really run
side by side. One that answers at once is called directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any

from leap.core import Episode, Observation, PrivilegedState, Task
from leap.errors import LeapError

if TYPE_CHECKING:
    from leap.envs.base import Environment, Outcome, Session

MOST_THREADS = 1024
"""Far above any policy's concurrency; a thread is started only when all others are busy."""

NOTHING_HIDDEN = PrivilegedState(text="")
"""The privileged state of a session that has none."""


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="leap-session")


async def called(method: Callable[..., Any], *arguments: Any, blocking: bool) -> Any:
    """Calls a method that may be a coroutine function, may take its time, or may do neither.

    Args:
        method: What to call.
        arguments: Its arguments.
        blocking: Whether a plain method takes its time. It then runs in a thread, and who is cancelled meanwhile waits for
            it to end: a session is never closed under a call.
    """
    if not blocking or iscoroutinefunction(method):
        result = method(*arguments)
        return await result if isawaitable(result) else result
    running = asyncio.get_running_loop().run_in_executor(_threads(), copy_context().run, method, *arguments)
    try:
        result = await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # looked at, so that asyncio does not complain that nobody did
        raise
    return await result if isawaitable(result) else result


class Live:
    """A session under way: opened and closed as an asynchronous context manager.

    Args:
        environment: Starts the session.
        task: The task to start.
    """

    def __init__(self, environment: Environment, task: Task) -> None:
        self._environment = environment
        self._task = task
        self._session: Session | None = None

    async def __aenter__(self) -> Live:
        blocking = self._environment.of(self._task).blocking
        self._session = await called(self._environment.start, self._task, blocking=blocking)
        return self

    async def __aexit__(self, *error: object) -> None:
        session, self._session = self._at_hand(), None
        await called(session.close, blocking=session.blocking)

    @property
    def repeats(self) -> bool:
        """Whether the same actions always show the same."""
        return self._at_hand().repeats

    async def observe(self) -> Observation:
        """The first observation."""
        session = self._at_hand()
        return await called(session.observe, blocking=session.blocking)

    async def act(self, action: str) -> Outcome:
        """Takes an action."""
        session = self._at_hand()
        return await called(session.act, action, blocking=session.blocking)

    async def privileged(self) -> PrivilegedState:
        """The privileged state at this moment; an empty one where nothing is hidden."""
        session = self._at_hand()
        return await called(session.privileged, blocking=session.blocking) or NOTHING_HIDDEN

    def _at_hand(self) -> Session:
        if self._session is None:
            raise LeapError(f"{self._environment.name}, task {self._task.id}: the session is not open, or was closed already.")
        return self._session


async def states_along(environment: Environment, episode: Episode, *, after_last: bool = False) -> list[PrivilegedState]:
    """The privileged state before each step of an episode, from a replay of its actions in a fresh session.

    Args:
        environment: Where the episode was played.
        episode: The episode.
        after_last: Whether to tell the state after the last action, too.

    Raises:
        LeapError: A session that repeats shows something else than was logged, so it is not the world that the episode was
            played in.
    """
    states: list[PrivilegedState] = []
    async with Live(environment, episode.task) as session:
        shown = await session.observe()
        for t, step in enumerate(episode.steps):
            if session.repeats and shown.text != step.observation.text:
                raise LeapError(
                    f"replaying task {episode.task.id}: step {t} shows {shown.text[:80]!r}, but the episode logged "
                    f"{step.observation.text[:80]!r}. The games or the engine changed since the rollout."
                )
            states.append(await session.privileged())
            if after_last or t + 1 < len(episode.steps):
                shown = (await session.act(step.action)).observation
        if after_last:
            states.append(await session.privileged())
    return states
