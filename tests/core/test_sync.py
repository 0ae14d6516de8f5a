"""`run_sync`: results, errors and Ctrl-C, without an event loop and within one."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
import time
from typing import Any

import pytest

from leap.sync import run_sync

NAMED: contextvars.ContextVar[str] = contextvars.ContextVar("named", default="")


async def answer(value: Any = 42) -> Any:
    await asyncio.sleep(0)
    if isinstance(value, Exception):
        raise value
    return value


def in_a_loop(function: Any) -> Any:
    """What a cell of a notebook does: calls ordinary code while an event loop runs. Ctrl-C is as there."""
    loop = asyncio.new_event_loop()

    async def cell() -> Any:
        return function()

    try:
        return loop.run_until_complete(cell())
    finally:
        loop.close()


@pytest.mark.parametrize("around", [lambda function: function(), in_a_loop], ids=["plain", "notebook"])
def test_results_and_errors_come_back(around: Any) -> None:
    assert around(lambda: run_sync(answer())) == 42
    with pytest.raises(ValueError, match="so it is"):
        around(lambda: run_sync(answer(ValueError("so it is"))))


def test_within_a_loop_it_may_be_nested_and_sees_the_callers_context() -> None:
    async def outer() -> str:
        return run_sync(inner())

    async def inner() -> str:
        return NAMED.get()

    def cell() -> str:
        NAMED.set("here")
        return run_sync(outer())

    assert contextvars.copy_context().run(in_a_loop, cell) == "here"


@pytest.mark.parametrize("around", [lambda function: function(), in_a_loop], ids=["plain", "notebook"])
def test_ctrl_c_ends_it_after_it_has_cleaned_up(around: Any) -> None:
    cleaned = []

    async def long() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            cleaned.append(True)

    began = time.monotonic()
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        around(lambda: run_sync(long()))
    assert cleaned == [True] and time.monotonic() - began < 15
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("late", [0.0, 0.05], ids=["at once", "when it works"])
def test_ctrl_c_is_heard_while_the_thread_starts(monkeypatch: pytest.MonkeyPatch, late: float) -> None:
    started, threads, begun, ended = threading.Thread.start, [], [], []

    def start(thread: threading.Thread) -> None:
        started(thread)
        threads.append(thread)
        time.sleep(late)
        raise KeyboardInterrupt

    async def long() -> None:
        begun.append(True)
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(True)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        run_sync(long())
    threads[0].join(10)
    assert not threads[0].is_alive() and begun == ended


def test_ctrl_c_as_the_last_work_ends_is_not_forgotten() -> None:
    async def last() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 42

    with pytest.raises(KeyboardInterrupt):
        run_sync(last())
