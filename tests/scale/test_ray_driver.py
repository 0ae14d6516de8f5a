"""The driving process of the executor `ray`, without a cluster: stub workers that die, claim and pay."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import aclosing, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'leap-agents[ray]'")

from stub_workers import Make, Shard, StubPool, gone

from leap.errors import ModelError, RunError
from leap.models.base import Completion, Request
from leap.models.ledger import Budget, BudgetReached, Ledger
from leap.models.metered import answered
from leap.runs.ray_desk import BookedAtDesk, Desk
from leap.runs.ray_executor import _Stage

RECIPE: Any = SimpleNamespace(prices={}, budget=Budget())


def shards(number: int = 20, size: int = 5, pays: bool = False) -> list[Any]:
    return [Shard(f"shard {k}", tuple(f"{k}-{j}" for j in range(size)), pays=pays) for k in range(number)]


def worked(make: Make, work: list[Any], *, most: int | None = None, ledger: Any = None, **options: Any) -> Any:
    """Keys as they came, the pool, and what the progress line said."""
    keys, said, executor = [], [], SimpleNamespace(status="")
    pool = StubPool(RECIPE, make, **{"workers": 4, **options})
    here: Any = SimpleNamespace(ledger=ledger)

    async def everything() -> None:
        async with aclosing(_Stage(executor, pool, work, here, "sign").records()) as records:  # type: ignore[arg-type]
            async for record in records:
                keys.append(record.key)
                said.append(executor.status)
                if len(keys) == most:
                    return

    asyncio.run(everything())
    return keys, pool, said


async def make_at_once(item: str, ledger: BookedAtDesk) -> None:
    await asyncio.sleep(0)


def test_shards_go_to_whoever_is_free_and_lost_ones_to_another() -> None:
    dice, deaths = random.Random(1), Counter[str]()

    async def make(item: str, ledger: BookedAtDesk) -> None:
        await asyncio.sleep(0)
        if dice.random() < 0.03:
            deaths[item] += 1
            raise gone()

    keys, pool, said = worked(make, shards(), max_task_retries=100)
    assert deaths and sorted(keys) == sorted(item for shard in shards() for item in shard.items), "each came once"
    assert min(worker.turns for worker in pool.workers) > 1
    assert f"{deaths.total()} lost with their workers" in said[-1] and " of 20 shards" in said[-1] and not pool.dismissed


def test_a_shard_that_ends_each_worker_ends_the_run() -> None:
    async def make(item: str, ledger: BookedAtDesk) -> None:
        if item == "3-2":
            raise gone()
        await asyncio.sleep(0)

    with pytest.raises(RunError, match=r"shard 3 was lost 3 times \(executor.max_task_retries\)"):
        worked(make, shards(), max_task_retries=2)


def test_where_no_worker_is_left_the_run_ends() -> None:
    async def never(item: str, ledger: BookedAtDesk) -> None:
        raise gone()

    pool = StubPool(RECIPE, never, workers=2, wait=0.2)
    for worker in pool.workers:
        worker._down = 1_000_000

    async def everything() -> None:
        executor: Any = SimpleNamespace(status="")
        async for _ in _Stage(executor, pool, shards(), None, "sign").records():  # type: ignore[arg-type]
            pass

    with pytest.raises(RunError, match=r"no worker has been there for 0\.2 s"):
        asyncio.run(everything())


def test_what_waits_for_the_driver_is_bounded_and_workers_wait_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that make records at once, and a driver that takes a while for each."""
    monkeypatch.setattr("leap.runs.ray_executor.AHEAD", 10)
    made, taken, waiting = 0, 0, list[int]()

    async def make(item: str, ledger: BookedAtDesk) -> None:
        nonlocal made
        made += 1

    async def everything() -> None:
        nonlocal taken
        executor, pool = SimpleNamespace(status=""), StubPool(RECIPE, make, workers=100)
        async for _ in _Stage(executor, pool, shards(100, 10), None, "sign").records():  # type: ignore[arg-type]
            waiting.append(made - taken)
            taken += 1
            await asyncio.sleep(0.0002)

    asyncio.run(everything())
    assert taken == made == 1000
    assert 100 < max(waiting) <= 100 + 10 + 1, "one in the hand of each worker, those that wait here, and the one that is taken"


def test_a_worker_that_dies_while_its_records_wait_leaves_room_for_others() -> None:
    dice = random.Random(2)

    async def make(item: str, ledger: BookedAtDesk) -> None:
        if dice.random() < 0.2:
            raise gone()

    keys, *_ = worked(make, shards(200, 5), workers=100, max_task_retries=1000)
    assert sorted(keys) == sorted(item for shard in shards(200, 5) for item in shard.items)


def test_whoever_leaves_early_ends_the_workers() -> None:
    keys, pool, _ = worked(make_at_once, shards(), most=3)
    assert len(keys) == 3 and pool.dismissed == 1


class Endpoint:
    """Counts the calls that it answers."""

    def __init__(self, latency: float = 0.001) -> None:
        self.calls: Counter[str] = Counter()
        self.latency = latency

    async def __call__(self, item: str, ledger: BookedAtDesk) -> None:
        key = f"question of {item.split('-')[1]}"  # every shard asks the same

        async def ask() -> Completion:
            await asyncio.sleep(self.latency)
            self.calls[key] += 1
            return Completion("said", 10, 5)

        await answered(ledger, key, "openai/mock", ask, asyncio.Semaphore(1), Request([{"role": "user", "content": key}]))


def test_the_same_question_of_several_workers_is_paid_once(tmp_path: Path) -> None:
    endpoint = Endpoint()
    with closing(Ledger(tmp_path / "calls.sqlite")) as ledger:
        keys, _, _ = worked(endpoint, shards(pays=True), ledger=ledger)
        assert len(keys) == 100 and set(endpoint.calls.values()) == {1} and ledger.total().calls == 5


def test_the_cap_holds_across_workers_and_every_call_is_booked(tmp_path: Path) -> None:
    calls = Counter[str]()

    async def pay(item: str, ledger: BookedAtDesk) -> None:
        async def ask() -> Completion:
            await asyncio.sleep(0.001)
            calls[item] += 1
            return Completion("said", 10, 5)

        await answered(ledger, item, "openai/mock", ask, asyncio.Semaphore(1), Request([{"role": "user", "content": item}]))

    with closing(Ledger(tmp_path / "calls.sqlite", budget=Budget(tokens=300))) as ledger:
        with pytest.raises(BudgetReached, match=r"the budget is used up: 3\d\d tokens of budget\.tokens 300"):
            worked(pay, shards(pays=True), ledger=ledger)
        assert ledger.total().calls == calls.total() and 300 <= ledger.spent[1] <= 300 + 4 * 15
    with closing(Ledger(tmp_path / "calls.sqlite")) as ledger:
        keys, _, _ = worked(pay, shards(pays=True), ledger=ledger)
        assert len(keys) == 100 and set(calls.values()) == {1}, "nothing is paid twice"


def test_what_a_dead_worker_had_claimed_is_asked_again_and_what_it_paid_stays_booked(tmp_path: Path) -> None:
    endpoint, dead = Endpoint(), list[str]()

    async def make(item: str, ledger: BookedAtDesk) -> None:
        if item == "0-0" and not dead:
            dead.append(item)
            assert await ledger.claim("question of 0") is None
            await ledger.admit("question of 0")
            raise gone()  # in the middle of the call: nobody releases the claim
        await endpoint(item, ledger)

    with closing(Ledger(tmp_path / "calls.sqlite")) as ledger:
        keys, _, _ = worked(make, shards(pays=True), ledger=ledger)
        assert dead and len(keys) == 100 and set(endpoint.calls.values()) == {1}


def test_an_error_of_a_worker_ends_the_stage_when_calls_under_way_have_ended(tmp_path: Path) -> None:
    endpoint = Endpoint(0.05)

    async def make(item: str, ledger: BookedAtDesk) -> None:
        if item == "0-1":
            raise ModelError("the endpoint is gone")
        await Endpoint.__call__(endpoint, f"0-{item}", ledger)

    with closing(Ledger(tmp_path / "calls.sqlite")) as ledger:
        with pytest.raises(ModelError, match="the endpoint is gone"):
            worked(make, shards(pays=True), ledger=ledger)
        assert ledger.total().calls == endpoint.calls.total() > 0


def test_a_driver_that_waits_no_more_gets_no_question() -> None:
    async def everything() -> None:
        desk = Desk()
        former = asyncio.create_task(desk.take())
        await asyncio.sleep(0)
        later = asyncio.create_task(desk.take())
        asked = asyncio.create_task(desk.ask("files", "x"))
        ((number, question),) = await later
        assert question == ("files", "x") and await former == []
        await desk.answer(number, True, 7)
        assert await asked == (True, 7)

    asyncio.run(everything())
