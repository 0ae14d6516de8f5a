"""The ledger: every call booked once, prices and caps kept, requests answered again from the file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leap.errors import ModelError, RecipeError, RunError
from leap.models.base import Completion, Request, Sampling
from leap.models.ledger import Budget, BudgetReached, Ledger, Totals
from leap.models.metered import MeteredModel
from leap.models.mock import Faults, MockModel
from leap.models.prices import Price, Prices, shipped_prices
from leap.testing.server import MockServer

SAMPLING = Sampling(temperature=0.3, max_tokens=64)
DOLLAR = Price(input=1e6, output=1e6)  # a token is a dollar


def echo(request: Request) -> str:
    return request.messages[-1]["content"]


def ask(model: MeteredModel, *prompts: str, seed: int = 0, **more: Any) -> list[Any]:
    """All prompts at once; an exception stands for itself."""

    async def one(prompt: str) -> Completion:
        async with model.conversation() as conversation:
            return await conversation.complete(Request([{"role": "user", "content": prompt}], seed=seed, **more))

    async def everything() -> list[Any]:
        return await asyncio.gather(*(one(prompt) for prompt in prompts), return_exceptions=True)

    return asyncio.run(everything())


def metered(ledger: Ledger, script: Callable[[Request], str] = echo, **more: Any) -> tuple[MeteredModel, MockModel]:
    model = MockModel(script, name="it", sampling=SAMPLING, **more)
    return MeteredModel(model, SAMPLING, ledger), model


# ---- booking and answering again -------------------------------------------------------------------------------------


def test_a_repeated_request_is_answered_from_the_file_also_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "run" / "calls.sqlite"
    ledger = Ledger(path, {"mock/it": Price(input=1, output=10)})
    model, inner = metered(ledger)
    with ledger.stage("correct 1"):
        (first,) = ask(model, "abcd" * 10)
    assert first == Completion("abcd" * 10, 10, 10, cost=pytest.approx(110e-6))
    (again,) = ask(model, "abcd" * 10)
    ledger.close()
    model, other = metered(Ledger(path))
    (later,) = ask(model, "abcd" * 10)
    assert again == later == Completion("abcd" * 10, 10, 10, from_cache=True)
    assert (inner.calls, other.calls) == (1, 0)
    (sums,) = model.ledger.totals()
    assert (sums.stage, sums.model, sums.calls, sums.tokens_in, sums.tokens_out) == ("correct 1", "mock/it", 1, 10, 10)
    assert sums.cost == pytest.approx(110e-6) and json.dumps(sums.as_dict())


def test_every_part_of_a_request_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "calls.sqlite")
    model, inner = metered(ledger)
    ask(model, "x")
    ask(model, "y")
    ask(model, "x", seed=1)
    ask(model, "x", schema={"type": "object"})
    ask(model, "x", choices=["look"])
    ask(model, "x", warmer=0.3)
    ask(model, "x", warmer=0.6)
    ask(MeteredModel(inner, Sampling(temperature=1), ledger), "x")
    inner.name = "mock/other"
    ask(model, "x")
    assert inner.calls == 9 == ledger.total().calls


def test_an_answer_on_file_is_ended_where_it_is_asked_to_end(tmp_path: Path) -> None:
    model, inner = metered(
        Ledger(tmp_path / "calls.sqlite"), lambda request: "ACTION: look\nOBSERVATION: " + "a door " * 50
    )
    (whole,) = ask(model, "x")
    (ended,) = ask(model, "x", stop=["\nOBSERVATION:"])
    assert (whole.truncated, ended.text, ended.truncated, inner.calls) == (True, "ACTION: look", False, 1)


def test_the_same_request_at_the_same_time_is_paid_once(tmp_path: Path) -> None:
    model, inner = metered(Ledger(tmp_path / "calls.sqlite"), delay=0.01)
    answers = ask(model, *["same"] * 30, "another")
    assert inner.calls == 2 and sum(answer.from_cache for answer in answers) == 29


def test_what_a_process_that_died_had_claimed_is_asked_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "calls.sqlite", budget=Budget(tokens=2))

    async def calls() -> None:
        assert await ledger.claim("a", "dead") is None
        await ledger.admit("a")
        waiting = asyncio.create_task(ledger.claim("a", "alive"))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        ledger.abandon("dead")
        assert await waiting is None
        await ledger.admit("a")
        await ledger.settle("a", "mock/it", Completion("x", 1, 1), 0.0)
        ledger.release("a")
        assert await ledger.claim("a") == Completion("x", 1, 1, from_cache=True)
        assert await ledger.claim("b") is None
        with pytest.raises(BudgetReached):  # nothing of the dead one is waited for
            await ledger.admit("b")

    asyncio.run(asyncio.wait_for(calls(), 5))


def test_an_empty_answer_is_an_answer(tmp_path: Path) -> None:
    model, inner = metered(Ledger(tmp_path / "calls.sqlite"), lambda request: "" if inner.calls == 1 else "now")
    assert [ask(model, "x", seed=seed)[0].text for seed in (0, 0, 1)] == [
        "",
        "",
        "now",
    ]  # another seed, another request
    assert inner.calls == 2 and model.ledger.total().calls == 2


def test_a_truncated_answer_stays_truncated(tmp_path: Path) -> None:
    model, _ = metered(Ledger(tmp_path / "calls.sqlite"))
    assert [ask(model, "x" * 1000)[0].truncated for _ in range(2)] == [True, True]


def test_failed_calls_are_booked_without_cost_and_asked_again(tmp_path: Path) -> None:
    model, inner = metered(Ledger(tmp_path / "calls.sqlite", {"mock/it": DOLLAR}), faults=Faults({"server_error": 1.0}))
    (failure,) = ask(model, "x")
    assert isinstance(failure, ModelError)
    inner.faults = Faults()
    assert ask(model, "x")[0].text == "x"
    total = model.ledger.total()
    assert (total.calls, total.failed, total.cost) == (1, 1, 2.0)


@given(st.lists(st.text(max_size=30), max_size=20))
@settings(max_examples=20)
def test_any_text_goes_through_the_file_unchanged(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "calls.sqlite")
    for n, text in enumerate(texts):
        ledger.book(str(n), "mock/it", Completion(text, 1, 1), 0.0)
    found = [ledger.get(str(n)) for n in range(len(texts))]
    ledger.close()
    assert [answer.text for answer in found if answer is not None] == texts


@pytest.mark.parametrize("text", ["a\ud800b", "\ud83d\ude00", "\udc80", "a\0b", "\0"])
def test_a_lone_surrogate_harms_nothing(text: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "calls.sqlite")
    ledger.book("k", "mock/it", Completion(text, 1, 1), 0.0)
    ledger.book("l", "mock/it", Completion("", 0, 0), 0.0, text)
    ledger.close()
    ledger = Ledger(tmp_path / "calls.sqlite")
    answer = ledger.get("k")
    assert answer is not None and answer.text == text
    assert (ledger.total().calls, ledger.total().failed) == (1, 1)
    ledger.close()


def test_what_is_no_ledger_is_said(tmp_path: Path) -> None:
    (tmp_path / "calls.sqlite").write_bytes(b"no database at all " * 100)
    with pytest.raises(RunError, match=r"calls\.sqlite cannot be used as the ledger"):
        Ledger(tmp_path / "calls.sqlite")


def test_no_key_is_ever_on_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    from leap.models.base import EndpointConfig
    from leap.models.providers import open_model

    key = "sk-secret-of-the-test-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    ledger = Ledger(tmp_path / "calls.sqlite", {"openai/*": DOLLAR})
    with MockServer(echo, key=key, faults=Faults({"server_error": 1.0})) as server:
        endpoint = EndpointConfig(base_url=server.base_url, retries=0)
        model = open_model("openai/mock", SAMPLING, endpoint=endpoint, ledger=ledger)
        ask(model, "x")  # type: ignore[arg-type]
        server.faults = Faults()
        ask(model, "x")  # type: ignore[arg-type]
    assert (ledger.total().calls, ledger.total().failed) == (1, 1)
    assert not any(key.encode() in file.read_bytes() for file in tmp_path.iterdir())


# ---- budget ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [Budget(usd=20), Budget(tokens=20), Budget(usd=20, tokens=1000)])
def test_a_cap_ends_the_run_and_the_raised_one_goes_on(tmp_path: Path, budget: Budget) -> None:
    path, prices = tmp_path / "calls.sqlite", {"mock/it": DOLLAR}
    prompts = [f"n{n:02}" for n in range(30)]  # two tokens a call
    model, inner = metered(Ledger(path, prices, budget), concurrency=1)
    answers = [ask(model, prompt)[0] for prompt in prompts]
    assert [isinstance(answer, BudgetReached) for answer in answers] == [False] * 10 + [True] * 20
    assert "budget is used up" in str(answers[-1]) and "raise the cap" in str(answers[-1])
    assert ask(model, "n03")[0].from_cache  # what is paid stays at hand
    model.ledger.close()
    raised = Ledger(path, prices, Budget(usd=1000, tokens=1000))
    assert raised.spent == (20.0, 20)
    model, more = metered(raised)
    assert [answer.text for answer in ask(model, *prompts)] == prompts
    assert (inner.calls, more.calls, raised.total().cost) == (10, 20, 60.0)


def test_the_cap_is_never_overshot_by_more_than_the_calls_under_way(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "calls.sqlite", {"mock/it": DOLLAR}, Budget(usd=20))
    model, inner = metered(ledger, delay=0.01)
    under_way = asyncio.Semaphore(8)

    async def one(n: int) -> Any:
        async with under_way, model.conversation() as conversation:
            return await conversation.complete(Request([{"role": "user", "content": f"n{n:02}"}], seed=0))

    async def everything() -> list[Any]:
        return await asyncio.gather(*(one(n) for n in range(50)), return_exceptions=True)

    answers = asyncio.run(everything())
    assert 20 <= ledger.spent[0] < 20 + 8 * 2
    assert sum(isinstance(answer, Completion) for answer in answers) == inner.calls == ledger.total().calls


def test_calls_that_wait_for_a_place_are_not_under_way(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from leap.models.base import EndpointConfig
    from leap.models.providers import open_model

    ledger = Ledger(tmp_path / "calls.sqlite", {"openai/mock": DOLLAR}, Budget(usd=20))
    with MockServer(echo, delay=0.05) as server:
        endpoint = EndpointConfig(base_url=server.base_url, concurrency=4)
        model = open_model("openai/mock", SAMPLING, endpoint=endpoint, ledger=ledger)
        assert model.concurrency == 8
        answers = ask(model, *(f"n{n:02}" for n in range(60)))  # type: ignore[arg-type]
        assert server.counts.most_at_once == 4
    assert 20 <= ledger.spent[0] < 20 + 4 * 2  # two tokens a call
    assert sum(isinstance(answer, BudgetReached) for answer in answers) == 60 - server.counts.answered


def test_answers_under_way_are_booked_before_the_run_ends(tmp_path: Path) -> None:
    """The first to hear of the cap ends the whole gathering; the others' calls are paid, so they must be on file."""
    ledger = Ledger(tmp_path / "calls.sqlite", {"mock/it": DOLLAR}, Budget(usd=1))
    slow, quick = MockModel(echo, name="it", delay=0.2), MockModel(echo, name="it")

    async def one(model: MockModel, *prompts: str) -> None:
        async with MeteredModel(model, SAMPLING, ledger).conversation() as conversation:
            for prompt in prompts:
                await conversation.complete(Request([{"role": "user", "content": prompt}], seed=0))

    async def everything() -> None:
        await asyncio.gather(*(one(slow, f"s{n}") for n in range(5)), one(quick, "a", "b"))

    with pytest.raises(BudgetReached):
        asyncio.run(everything())
    assert ledger.total().calls == 6 == slow.calls + quick.calls


def test_a_cap_in_dollars_needs_a_price(tmp_path: Path) -> None:
    model = MockModel(echo)
    model.name = "openai/mystery"
    with pytest.raises(RecipeError, match="price of openai/mystery is not known"):
        MeteredModel(model, SAMPLING, Ledger(tmp_path / "a.sqlite", budget=Budget(usd=1)))
    MeteredModel(model, SAMPLING, Ledger(tmp_path / "b.sqlite", budget=Budget(tokens=1)))
    MeteredModel(model, SAMPLING, Ledger(tmp_path / "c.sqlite", {"openai/*": DOLLAR}, Budget(usd=1)))


@pytest.mark.parametrize("values", [{"usd": 0}, {"usd": -1}, {"tokens": 0}, {"euro": 5}])
def test_budgets_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"usd|tokens|euro"):
        Budget.model_validate(values)


# ---- prices ----------------------------------------------------------------------------------------------------------


def test_the_shipped_prices_are_whole() -> None:
    table = shipped_prices()
    assert len(table) > 15 and all(name.count("/") == 1 for name in table)
    for name, price in table.items():
        assert price.output >= price.input >= (price.cached_input or 0), name


def test_prices_by_name() -> None:
    own = {"openai/gpt-4o": Price(input=7, output=8), "local/*": Price(input=0, output=0)}
    prices = Prices(own)
    assert prices.get("openai/gpt-4o") == own["openai/gpt-4o"]
    assert prices.get("openai/gpt-4o-2024-08-06") == own["openai/gpt-4o"]  # a snapshot costs what its model costs
    assert prices.get("openai/gpt-4o-2024-05-13") == Price(input=5, output=15)  # but for those that do not
    assert prices.get("openai/gpt-4o-mini") == shipped_prices()["openai/gpt-4o-mini"]
    assert prices.get("local/anything/at-all") == own["local/*"] and prices.get("vllm/x") == Price(input=0, output=0)
    assert prices.get("openai/nothing") is None and prices.get("nobody/x") is None


def test_the_cost_of_a_call() -> None:
    price = Price(input=2, cached_input=0.5, cache_write=3, output=8)
    assert price.of(Completion("", 1_000_000, 500_000)) == 6.0
    assert price.of(Completion("", 1_000_000, 0, cached_tokens=400_000)) == pytest.approx(1.4)
    assert price.of(Completion("", 1_000_000, 0, 400_000, 100_000)) == pytest.approx(1.5)
    assert Price(input=2, output=8).of(Completion("", 1_000_000, 0, 400_000, 100_000)) == 2.0
    assert price.of(Completion("", 10, 0, cached_tokens=10**9)) == pytest.approx(5e-6)  # no more than the prompt


# ---- kill -9 ---------------------------------------------------------------------------------------------------------

KILLED = """
import asyncio, sys
from pathlib import Path
from leap.models.base import Sampling
from leap.models.base import EndpointConfig, Request
from leap.models.ledger import Ledger
from leap.models.providers import open_model

model = open_model("openai/mock", Sampling(max_tokens=64), ledger=Ledger(Path(sys.argv[2])),
                   endpoint=EndpointConfig(base_url=sys.argv[1], concurrency=8, retries=15))

async def one(n):
    async with model.conversation() as conversation:
        return (await conversation.complete(Request([{"role": "user", "content": f"call {n}"}], seed=0))).text

async def main():
    return await asyncio.gather(*(one(n) for n in range(120)))

answers = asyncio.run(main())
assert answers == [f"call {n}" for n in range(120)]
"""


@pytest.mark.slow
@pytest.mark.parametrize("rates", [{}, {"rate_limit": 0.1, "server_error": 0.1, "timeout": 0.1}])
def test_killed_at_any_moment_nothing_booked_is_paid_again(rates: dict[str, float], tmp_path: Path) -> None:
    pytest.importorskip("openai")
    path = tmp_path / "calls.sqlite"
    with MockServer(echo, faults=Faults(rates), delay=0.1, hang=0.2) as server:
        command = [sys.executable, "-c", KILLED, server.base_url, str(path)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
        lost = 0
        for answered in (20, 50, 80):
            process = subprocess.Popen(command, env=environment)
            while server.counts.answered < answered and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.3)  # until the server has ended what it was about to answer
            with sqlite3.connect(path) as file:
                (booked,) = file.execute("SELECT COUNT(*) FROM calls").fetchone()
            assert 0 <= server.counts.answered - booked - lost <= 8  # at most the calls under way are lost
            lost = server.counts.answered - booked
        assert subprocess.run(command, env=environment, timeout=120).returncode == 0
        ledger = Ledger(path)
        assert ledger.total().calls == 120 == server.counts.answered - lost
        assert sum(server.counts.by_prompt.values()) - len(server.counts.by_prompt) == lost
        assert ledger.totals() == [ledger.totals()[0]] and isinstance(ledger.total(), Totals)
