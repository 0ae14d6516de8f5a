"""From ordinary code into coroutines, with or without a running event loop, and many pieces of work side by side."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from leap.errors import LeapError

P = ParamSpec("P")
T = TypeVar("T")


def run_sync(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end and returns its result.

    It has an event loop of its own in another thread: one may run here already, as in a notebook, and a thread that waits
    hears Ctrl-C at any moment, where `asyncio.run` forgets one that arrives as the last task is ending.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed. The coroutine is cancelled and has ended by then.
    """
    answer: Future[T] = Future()
    interrupted: Future[None] = Future()

    async def listening() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: it has ended by itself
                loop.call_soon_threadsafe(task.cancel)

        interrupted.add_done_callback(cancel)
        return await main

    def run() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(asyncio.run(listening()))
        except BaseException as error:
            answer.set_exception(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="leap-loop", daemon=True)
    try:
        thread.start()
        return answer.result()
    except BaseException:
        if answer.cancel():  # Ctrl-C came before the thread had begun, which now has nothing to do
            main.close()
        else:
            interrupted.set_result(None)
            thread.join()
        raise


def synchronous(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """A coroutine function as a plain one, for callers that are not coroutines."""

    @wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        return run_sync(function(*arguments, **named))

    return run


async def side_by_side(items: Iterable[T], work: Callable[[T], Awaitable[None]], workers: int) -> None:
    """Works on many items, so many at once; an item is taken only when a worker is free for it.

    Raises:
        LeapError: The first one raised. Calls under way are paid for, so they end, but no further item is taken.
    """
    source = iter(items)
    failures: list[LeapError] = []

    async def worker() -> None:
        for item in source:
            try:
                await work(item)
            except LeapError as error:
                failures.append(error)
            if failures:
                return

    await asyncio.gather(*(worker() for _ in range(workers)))
    if failures:
        raise failures[0]


async def work_through(
    items: Sequence[T],
    work: Callable[[T], Awaitable[None]],
    workers: int,
    *,
    waves: bool,
    wanted: Callable[[T], bool] = lambda _: True,
) -> None:
    """Works on the wanted ones of some items, so many at once: side by side or, with `waves`, in waves in their order. Of a wave
    in which any is wanted it works on all, so that a model that answers a wave in one batch sees the same batch after an
    interruption. Raises as `side_by_side`."""
    if not waves:
        return await side_by_side(filter(wanted, items), work, workers)
    for start in range(0, len(items), workers):
        wave = items[start : start + workers]
        if any(map(wanted, wave)):
            await side_by_side(wave, work, len(wave))
