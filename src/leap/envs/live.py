"""Sessions as the framework uses them, whether their methods are coroutines, take their time or answer at once.

A method that is `async def` is awaited. One that takes its time (`blocking`) runs in a thread, so that episodes really run
side by side. One that answers at once is called directly.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, thread
from contextlib import suppress
from contextvars import copy_context
from functools import cache
from inspect import isawaitable, iscoroutinefunction
from math import isfinite
from types import TracebackType
from typing import Any, TypeVar

from leap.core import Episode, Observation, PrivilegedState, Task
from leap.envs.base import Environment, Outcome, Session
from leap.errors import ContractError, EnvironmentFault, LeapError

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_THREADS = 1024
"""Far above any policy's concurrency; a thread is started only when all others are busy."""

NOTHING_HIDDEN = PrivilegedState(text="")
"""The privileged state of a session that has none."""

_ROUNDING = 1e-9
"""A score that is a sum of shares may miss 1 by so much."""


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="leap-session")


async def called(
    method: Callable[..., Any], *arguments: Any, blocking: bool, late: Callable[[Any], object] = lambda result: None
) -> Any:
    """Calls a method that may be a coroutine function, may take its time, or may do neither.

    Args:
        method: What to call.
        arguments: Its arguments.
        blocking: Whether a plain method takes its time. It then runs in a thread, and who is cancelled meanwhile waits for
            it to end: a session is never closed under a call.
        late: Given what the thread returned to nobody, for who asked was cancelled meanwhile.
    """
    if not blocking or iscoroutinefunction(method):
        result = method(*arguments)
        return await result if isawaitable(result) else result
    running = asyncio.get_running_loop().run_in_executor(_threads(), copy_context().run, method, *arguments)
    try:
        result = await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled() and running.exception() is None:
            late(running.result())
        raise
    return await result if isawaitable(result) else result


async def asked(
    environment: Environment,
    task: Task,
    what: str,
    method: Callable[..., Any],
    *arguments: Any,
    blocking: bool,
    late: Callable[[Any], object] = lambda result: None,
) -> Any:
    """`called`, for a method of an environment, a session or a tutor.

    Args:
        environment: Whose method it is, at the task.
        task: The task at hand.
        what: What is called, and when, for people.
        method: What to call.
        arguments: Its arguments.
        blocking: Whether a plain method takes its time.
        late: As for `called`.

    Raises:
        EnvironmentFault: The method raised. The message has the traceback of its own code. Errors of leap's that the method
            raises are meant for people already and stay as they are.
    """
    try:
        return await called(method, *arguments, blocking=blocking, late=late)
    except LeapError:
        raise
    except Exception as error:
        lines = traceback.format_exception(type(error), error, _of_their_code(error.__traceback__))
        told = f"{type(error).__name__}: {error}"
        raise EnvironmentFault(f"{_where(environment, task)}, {what}: {told}\n{''.join(lines).rstrip()}") from error


def _of_their_code(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the calls that lead into the environment's code."""
    mine, at = (__file__, thread.__file__), trace
    while at is not None and at.tb_frame.f_code.co_filename in mine:
        at = at.tb_next
    return at or trace


def _where(environment: Environment, task: Task) -> str:
    return f"environment {environment.name}, task {task.id}"


class Live:
    """A session under way: opened and closed as an asynchronous context manager, and held to the contract.

    Every method raises `EnvironmentFault` where the environment's own code raises, and `ContractError` where what it returns
    is not what the contract says.

    Args:
        environment: Starts the session.
        task: The task to start.
    """

    def __init__(self, environment: Environment, task: Task) -> None:
        self._environment = environment
        self._task = task
        self._session: Session | None = None
        self._steps = 0

    async def __aenter__(self) -> Live:
        environment, task = self._environment, self._task
        blocking = environment.of(task).blocking
        session = await asked(environment, task, "start", environment.start, task, blocking=blocking, late=_close)
        self._session = self._checked(session, Session, "start")
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            await self._ask("close", self._at_hand().close)
        except EnvironmentFault as fault:
            if error is None:
                raise
            log.error("%s", fault)  # what went wrong before says more
        finally:
            self._session = None

    @property
    def repeats(self) -> bool:
        """Whether the same actions always show the same."""
        return self._at_hand().repeats

    async def observe(self) -> Observation:
        """The first observation."""
        return self._checked(await self._ask("observe", self._at_hand().observe), Observation, "observe")

    async def act(self, action: str) -> Outcome:
        """Takes an action."""
        what = f"step {self._steps}, act({action!r:.200})"
        outcome = self._checked(await self._ask(what, self._at_hand().act, action), Outcome, what)
        self._checked(outcome.observation, Observation, what)
        if not -_ROUNDING <= outcome.score <= 1 + _ROUNDING:  # false of NaN, too
            raise ContractError(f"{_where(self._environment, self._task)}, {what}: the score {outcome.score} is not in [0, 1].")
        for name, value in (("reward", outcome.reward), *outcome.parts.items()):
            if not isfinite(value):
                raise ContractError(f"{_where(self._environment, self._task)}, {what}: {name} is {value}.")
        self._steps += 1
        return outcome

    async def privileged(self) -> PrivilegedState:
        """The privileged state at this moment; an empty one where nothing is hidden."""
        what = f"step {self._steps}, privileged"
        state = await self._ask(what, self._at_hand().privileged)
        return NOTHING_HIDDEN if state is None else self._checked(state, PrivilegedState, what)

    async def _ask(self, what: str, method: Callable[..., Any], *arguments: Any) -> Any:
        blocking = self._at_hand().blocking
        return await asked(self._environment, self._task, what, method, *arguments, blocking=blocking)

    def _checked(self, value: Any, kind: type[T], what: str) -> T:
        if not isinstance(value, kind):
            raise ContractError(
                f"{_where(self._environment, self._task)}, {what}: a {kind.__name__} is needed, not {value!r:.200}."
            )
        return value

    async def explain(self) -> Sequence[tuple[str, str, str]]:
        """What the score would be made of if the episode ended now: name, value and reason of each part."""
        return await self._ask(f"step {self._steps}, explain", self._at_hand().explain)

    def _at_hand(self) -> Session:
        if self._session is None:
            raise ContractError(f"{_where(self._environment, self._task)}: the session is not open, or was closed already.")
        return self._session


def _close(session: Session) -> None:
    """Closes a session that was started in a thread for nobody; one of coroutines closes with whatever holds it."""
    if not iscoroutinefunction(session.close):
        session.close()


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
