"""Sessions as the framework uses them, whether their methods are coroutines, take their time or answer at once.

A method that is `async def` is awaited. One that takes its time (`blocking`) runs in a thread, so that episodes really run
side by side; a session has one thread for all of its calls. One that answers at once is called directly.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, thread
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache, partial
from inspect import iscoroutinefunction
from math import isfinite
from typing import TypeVar

from leap.core import Episode, Observation, PrivilegedState, Task
from leap.envs.base import Environment, Outcome, Session
from leap.errors import ContractError, EnvironmentFault, LeapError

log = logging.getLogger(__name__)

K = TypeVar("K")

_MOST_THREADS = 1024  # of tutors' calls at once: far above any policy's concurrency
_FAULTS = (Exception, SystemExit, BaseExceptionGroup)  # a world may run a program that says `exit()`; the run goes on
_FLAGS = {False, True}
_NO_PARTS = Outcome._field_defaults["parts"]
_ROUNDING = 1e-9  # a score that is a sum of shares may miss 1 by so much


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="leap-tutor")


async def called(
    method: Callable[..., Awaitable[K] | K],
    *arguments: object,
    blocking: bool,
    threads: ThreadPoolExecutor | None = None,
    late: Callable[[K], object] = lambda result: None,
) -> K:
    """Calls a method that may be a coroutine function, may take its time, or may do neither.

    Args:
        method, arguments: What to call, and with what.
        blocking: Whether a plain method takes its time. It then runs in a thread, and who is cancelled meanwhile waits for
            it to end: a session is never closed under a call.
        threads: Where it runs then; in any thread by default.
        late: Given what the thread returned to nobody, for who asked was cancelled meanwhile.
    """
    if not blocking or iscoroutinefunction(method):
        result = method(*arguments)
        return await result if isinstance(result, Awaitable) else result  # pyright: ignore[reportReturnType]
    work = partial(copy_context().run, _in_thread, method, *arguments)
    running = asyncio.get_running_loop().run_in_executor(threads or _threads(), work)
    try:
        result = await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled() and running.exception() is None:
            late(running.result())
        raise
    return await result if isinstance(result, Awaitable) else result  # pyright: ignore[reportReturnType]


def _in_thread(method: Callable[..., K], *arguments: object) -> K:
    try:
        return method(*arguments)
    except StopIteration as error:  # no future takes one: who waits for it would wait for ever
        raise RuntimeError("StopIteration was raised, by next() for example").with_traceback(error.__traceback__) from None


@dataclass(slots=True)
class faults_of:
    """A `with` block in which an exception of an environment's own code, or of its tutor's, becomes an `EnvironmentFault`
    that says where it was raised and has the traceback of that code. Errors of leap's are meant for people already and stay
    as they are. (A class, for a generator would cost as much as a step of a fast environment.)

    Attributes:
        environment: Whose code runs in the block.
        task: The task at hand.
        what: What is called, and when, for people.
    """

    environment: Environment
    task: Task
    what: str

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and _is_fault(error):
            raise _fault(self.environment, self.task, self.what, error) from error


def _is_fault(error: BaseException) -> bool:
    """Whether an environment's own code is at fault: not Ctrl-C, no error of leap's, and cancelled only by itself."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, _FAULTS) and not isinstance(error, LeapError)


def _fault(environment: Environment, task: Task, what: str, error: BaseException) -> EnvironmentFault:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, thread.__file__):
        trace = trace.tb_next
    lines = "".join(traceback.format_exception(type(error), error, trace or error.__traceback__)).rstrip()
    return EnvironmentFault(f"{_where(environment, task)}, {what}: {type(error).__name__}: {error}\n{lines}")


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
        self._thread: ThreadPoolExecutor | None = None
        self._acted = 0

    async def __aenter__(self) -> Live:
        environment, task = self._environment, self._task
        if self._session is not None:  # a copy
            return self
        try:
            with faults_of(environment, task, "start"):
                blocking = environment.of(task).blocking
                threads = self._own_thread() if blocking else None
                session = await called(environment.start, task, blocking=blocking, threads=threads, late=_close)
            self._session = self._held_to(Session, session, "start")
        except BaseException:
            self._let_go()
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            await self._ask("close")
        except EnvironmentFault as fault:
            if error is None:
                raise
            log.error("%s", fault)  # what went wrong before says more
        finally:
            self._session = None
            self._let_go()

    def _own_thread(self) -> ThreadPoolExecutor:
        """The session's thread: what it holds may belong to the thread that made it."""
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="leap-session")
        return self._thread

    def _let_go(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    @property
    def repeats(self) -> bool:
        """Whether the same actions always show the same."""
        return self._at_hand().repeats

    async def observe(self) -> Observation:
        """The first observation."""
        return self._held_to(Observation, await self._ask("observe"), "observe")

    async def act(self, action: str) -> Outcome:
        """Takes an action."""
        outcome = await self._ask("act", action)
        if not (isinstance(outcome, Outcome) and isinstance(outcome.observation, Observation)):
            outcome = self._held_to(Outcome, outcome, "act", action)
            self._held_to(Observation, outcome.observation, "act", action)
        _, reward, done, success, score, parts = outcome
        if not (type(reward) is type(score) is float and type(done) is type(success) is bool and parts is _NO_PARTS):
            outcome = self._in_plain_types(outcome, action)
        if not -_ROUNDING <= outcome.score <= 1 + _ROUNDING:  # false of NaN, too
            raise self._broken(f"the score {score!r:.50} is not in [0, 1].", "act", action)
        if not isfinite(reward):
            raise self._broken(_not_numbers(outcome), "act", action)
        self._acted += 1
        return outcome

    def _in_plain_types(self, outcome: Outcome, action: str) -> Outcome:
        """The same numbers as floats, and done and success as they are: other libraries have numbers of their own."""
        _, reward, done, success, score, parts = outcome
        try:
            numbers = {name: float(value) for name, value in parts.items()}
            sound = {done, success} <= _FLAGS and all(isinstance(name, str) for name in parts)
            if sound and all(map(isfinite, (reward, score, *numbers.values()))):
                return outcome._replace(reward=float(reward), score=float(score), parts=numbers)
        except (TypeError, ValueError, AttributeError, OverflowError):
            pass
        raise self._broken(_not_numbers(outcome), "act", action)

    async def privileged(self) -> PrivilegedState:
        """The privileged state at this moment; an empty one where nothing is hidden."""
        state = await self._ask("privileged")
        return PrivilegedState(text="") if state is None else self._held_to(PrivilegedState, state, "privileged")

    async def copy(self) -> Live | None:
        """A session of its own in the same state, to be used with `async with`; None where the environment offers none."""
        session = await self._ask("copy")
        if session is None:
            return None
        other = Live(self._environment, self._task)
        other._session, other._acted = self._held_to(Session, session, "copy"), self._acted
        return other

    async def explain(self) -> Sequence[tuple[str, str, str]]:
        """What the score would be made of if the episode ended now: name, value and reason of each part."""
        return self._held_to(Sequence, await self._ask("explain"), "explain")

    async def _ask(self, name: str, *arguments: str) -> object:
        session = self._at_hand()
        try:
            if session.blocking:
                return await called(getattr(session, name), *arguments, blocking=True, threads=self._own_thread())
            result = getattr(session, name)(*arguments)  # not by `called`: a coroutine more is a tenth of a fast step
            return await result if isinstance(result, Awaitable) else result
        except BaseException as error:
            if not _is_fault(error):
                raise
            raise _fault(self._environment, self._task, self._when(name, *arguments), error) from error

    def _held_to(self, kind: type[K], thing: object, name: str, *arguments: str) -> K:
        """What a method returned, which must be of a kind."""
        if not isinstance(thing, kind):
            needed = f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"
            raise self._broken(f"{needed} is needed, not {thing!r:.200}.", name, *arguments)
        return thing

    def _broken(self, problem: str, name: str, *arguments: str) -> ContractError:
        return ContractError(f"{_where(self._environment, self._task)}, {self._when(name, *arguments)}: {problem}")

    def _when(self, name: str, *arguments: str) -> str:
        """Names a call of a method, for people."""
        call = f"{name}({arguments[0]!r:.200})" if arguments else name
        return call if name in ("start", "observe", "copy", "close") else f"step {self._acted}, {call}"

    def _at_hand(self) -> Session:
        if self._session is None:
            raise ContractError(f"{_where(self._environment, self._task)}: the session is not open, or was closed already.")
        return self._session


def _not_numbers(outcome: Outcome) -> str:
    """What is wrong with an outcome's numbers, for people."""
    _, reward, done, success, score, parts = outcome
    named = dict(parts) if isinstance(parts, Mapping) else parts
    numbers = f"score {score!r:.50}, reward {reward!r:.50} and parts {named!r:.200} are to be finite numbers"
    return f"{numbers}, done {done!r:.50} and success {success!r:.50} True or False."


def _close(session: Session) -> None:
    """Closes a session that was started in a thread for nobody; one of coroutines closes with whatever holds it."""
    if not iscoroutinefunction(session.close):
        session.close()


async def retraced(session: Live, episode: Episode, last: int) -> AsyncIterator[Outcome | None]:
    """Takes the actions of an episode in a fresh session. Stops at the state before each step up to the last one named, the end
    being one more than there are steps, and gives what came of the action before.

    Raises:
        LeapError: A session that repeats shows something else than was logged, so it is not the world that the episode was
            played in.
    """
    shown, outcome = await session.observe(), None
    for t in range(last + 1):
        logged = episode.steps[t].observation if t < len(episode.steps) else episode.final
        if session.repeats and shown.text != logged.text:
            raise LeapError(
                f"replaying task {episode.task.id}: step {t} shows {shown.text[:80]!r}, but the episode logged "
                f"{logged.text[:80]!r}. Its data or its engine changed since the rollout, or it is not deterministic."
            )
        yield outcome
        if t < last:
            outcome = await session.act(episode.steps[t].action)
            shown = outcome.observation


async def states_along(environment: Environment, episode: Episode, *, after_last: bool = False) -> list[PrivilegedState]:
    """The privileged state before each step of an episode, and after the last if asked, from a replay of its actions in a
    fresh session; raises as `retraced`."""
    async with Live(environment, episode.task) as session:
        states = retraced(session, episode, len(episode.steps) - (not after_last))
        return [await session.privileged() async for _ in states]
