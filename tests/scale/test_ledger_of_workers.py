"""Workers that ask paid models by the way to the run's one ledger: nothing is paid twice, nothing passes it by, the cap holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_local_workers import on_file, recipe

from leap.errors import RunError
from leap.models.base import Completion, Request
from leap.models.ledger import BudgetReached, Ledger
from leap.models.metered import Booking
from leap.progress import Progress
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.runs.executors import Executor
from leap.runs.shards import Shard, run_shard
from leap.runs.stages import Stages

TEACHER = {"kind": "model", "model": "mock/json", "episodes": "all", "by": "step"}


@contextmanager
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread, as a process of its own would have it."""
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever, daemon=True)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()


class Way(Booking):
    """The way to a ledger that lives in another thread's loop."""

    def __init__(self, ledger: Ledger, where: asyncio.AbstractEventLoop, owner: str) -> None:
        self.ledger, self.where, self.owner = ledger, where, owner
        self.prices, self.budget = ledger.prices, ledger.budget

    def there(self, call: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self.where))

    async def claim(self, key: str) -> Completion | None:
        return await self.there(self.ledger.claim(key, self.owner))

    async def admit(self, key: str) -> None:
        await self.there(self.ledger.admit(key))

    async def settle(self, key: str, *what: Any, request: Request | None = None, **more: Any) -> Completion:
        return await self.there(self.ledger.settle(key, *what, request=request, **more))

    def release(self, key: str) -> None:
        self.where.call_soon_threadsafe(self.ledger.release, key)

    def unread(self, key: str, problem: str) -> None:
        self.ledger.unread(key, problem)


class Thread(Executor):
    """Works on shards in a thread, with an event loop of its own, twice over where it is asked to."""

    pays = True

    def __init__(self, times: int = 1, reaches: bool = True) -> None:
        super().__init__(None)
        self.times, self.reaches = times, reaches

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        with loop() as where:
            for shard in [*shards] * self.times:
                way = Way(here.ledger, where, shard.name) if self.reaches else None
                for record in await asyncio.to_thread(run_shard, shard, way):
                    yield record


def corrected(folder: Path, by: Executor | None = None, **more: Any) -> tuple[Any, Any]:
    """The corrections of a model teacher, and what they cost."""
    stages = Stages(recipe(folder, teacher=TEACHER, **more), RunDirectory(folder / "run"), Progress())
    if by is not None:
        stages.__dict__["executor"] = by
    try:
        stages.rollout(0)
        stages.rollout(1)
        stages.correct(1)
    finally:
        total = stages.actors.ledger.total()
        stages.close()
    return on_file(folder / "run")["iter-1/corrections.jsonl"], (total.calls, total.tokens_in, total.tokens_out)


def test_a_call_is_paid_once_whoever_makes_it(tmp_path: Path) -> None:
    here = corrected(tmp_path / "here")
    assert here[1][0] > 100 and corrected(tmp_path / "there", Thread(times=2)) == here


def test_the_cap_holds_for_workers(tmp_path: Path) -> None:
    tokens = sum(corrected(tmp_path / "all")[1][1:])
    cap = tokens // 3
    with pytest.raises(BudgetReached):
        corrected(tmp_path / "some", Thread(), budget={"tokens": cap})
    stages = Stages(recipe(tmp_path / "some", teacher=TEACHER), RunDirectory(tmp_path / "some" / "run"), Progress())
    spent = stages.actors.ledger.spent[1]
    stages.close()
    assert cap <= spent < tokens * 0.6  # calls that were under way have ended
    assert corrected(tmp_path / "some", Thread()) == corrected(tmp_path / "all")


def test_no_call_passes_the_ledger_by(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gives it no way to the run's ledger"):
        corrected(tmp_path, Thread(reaches=False))


def test_an_executor_that_cannot_pay_leaves_that_to_the_driver(tmp_path: Path) -> None:
    class Poor(Thread):
        pays = False

        async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
            assert not any(shard.pays for shard in shards)
            async for record in super().map(shards, here):
                yield record

    assert corrected(tmp_path / "poor", Poor(reaches=False)) == corrected(tmp_path / "here")
