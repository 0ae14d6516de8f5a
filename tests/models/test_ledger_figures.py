"""What the framework promises of paid teachers, measured: concurrency is used, memory is flat, failures cost nothing twice.

A real teacher, a real client and a real HTTP server; only the model behind it is scripted.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from busy_machine import waited

from leap.core import Correction, Episode, Task
from leap.models.base import EndpointConfig, Request, Sampling
from leap.models.ledger import Ledger
from leap.models.mock import Faults
from leap.models.prices import Price
from leap.models.providers import open_model
from leap.policies.base import ExpertPolicy
from leap.rollouts import Play, rollout
from leap.testing.server import MockServer
from leap.testing.teachers import model_teacher

pytest.importorskip("openai")
from tiny_world import TinyWorld, TinyWorldConfig

SAMPLING = Sampling(temperature=0.3, max_tokens=4096)
PRICE = Price(input=2.5, output=10)


def teacher_says(request: Request) -> str:
    """A correction of every timestep that the prompt shows."""
    shown = sorted({int(t) for t in re.findall(r"^\[timestep (\d+)\]", request.messages[-1]["content"], re.MULTILINE)})
    steps = [
        {"timestep": t, "leave_as_it_is": False, "corrected_reason": f"A key is often in a hat, I thought at {t}.",
         "corrected_action": "look in hat"}
        for t in shown
    ]  # fmt: skip
    return json.dumps({"summary": "It searched without a plan.", "trajectory": steps})


class Houses(TinyWorld):
    """No two tasks with the same words, so that no two requests are the same."""

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        tasks = super().tasks(split, limit=limit, seed=seed)
        return [task.model_copy(update={"instruction": f"open door {i}"}) for i, task in enumerate(tasks)]


@pytest.fixture(scope="module")
def world() -> TinyWorld:
    return Houses(TinyWorldConfig(tasks=200))


@pytest.fixture(scope="module")
def episodes(world: TinyWorld) -> list[Episode]:
    found: list[Episode] = []
    rollout(world, ExpertPolicy(world), Play(world.tasks("train"), 8, 0, "test"), found.append)
    assert len(found) == 200
    return found


def corrected(
    world: TinyWorld, episodes: list[Episode], server: MockServer, ledger: Ledger, concurrency: int, timeout: float = 30
) -> dict[tuple[str, int], Correction]:
    endpoint = EndpointConfig(base_url=server.base_url, concurrency=concurrency, timeout=timeout)
    model = open_model("openai/mock", SAMPLING, endpoint=endpoint, ledger=ledger)
    teacher = model_teacher(world, model, attempts=8)
    done: dict[tuple[str, int], Correction] = {}

    def keep(episode: Episode, corrections: list[Correction]) -> None:
        done.update({(correction.episode, correction.t): correction for correction in corrections})

    asyncio.run(teacher.correct_all(episodes, keep))
    return done


@pytest.mark.slow
def test_200_trajectories_in_the_time_that_the_concurrency_allows(
    world: TinyWorld, episodes: list[Episode], tmp_path: Path
) -> None:
    with MockServer(teacher_says, delay=0.5) as server:
        began, queued = time.monotonic(), waited()
        done = corrected(world, episodes, server, Ledger(tmp_path / "calls.sqlite"), concurrency=16)
        took = time.monotonic() - began
    ideal = math.ceil(len(episodes) / 16) * 0.5
    if waited() - queued < 0.03 * ideal:  # else the clock measures who else was busy on this machine
        assert took < 1.15 * ideal, f"{took:.2f} s against {ideal:.2f} s"
    assert server.counts.most_at_once == 16 and server.counts.answered == 200
    assert len(done) == sum(len(episode.steps) for episode in episodes)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_calls(world: TinyWorld, episodes: list[Episode], tmp_path: Path) -> None:
    def says(request: Request) -> str:  # 20 kB a call, which would add up
        return teacher_says(request)[:-1] + f', "more": "{"x" * 20_000}"}}'

    sizes = []
    ledger = Ledger(tmp_path / "calls.sqlite")
    with MockServer(says) as server:
        tracemalloc.start()
        for chunk in (episodes[:20], episodes[20:100]):
            corrected(world, chunk, server, ledger, concurrency=8)
            sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert server.counts.answered == 100
    assert sizes[1] - sizes[0] < 500_000, sizes  # more than 1.5 megabytes of answers came meanwhile


@pytest.mark.slow
def test_with_failures_in_30_percent_of_the_calls_all_is_there_and_paid_once(
    world: TinyWorld, episodes: list[Episode], tmp_path: Path
) -> None:
    rates = {"broken": 0.06, "empty": 0.05, "truncated": 0.05, "rate_limit": 0.06, "server_error": 0.06, "timeout": 0.02}
    assert sum(rates.values()) == pytest.approx(0.3)
    ledger = Ledger(tmp_path / "calls.sqlite", {"openai/mock": PRICE})
    with MockServer(teacher_says, faults=Faults(rates, seed=3), hang=30) as server:
        done = corrected(world, episodes, server, ledger, concurrency=16, timeout=4)
        counts, total = server.counts, ledger.total()
        assert set(server.faults.counts) == set(rates)  # every kind of failure did come
        assert {key for episode in episodes for key in ((episode.key, t) for t in range(len(episode.steps)))} == set(done)
        assert all(correction.action == "look in hat" for correction in done.values())

        assert total.calls == counts.answered and total.failed == 0
        assert (total.tokens_in, total.tokens_out) == (counts.prompt_tokens, counts.completion_tokens)
        assert total.cost == pytest.approx((counts.prompt_tokens * 2.5 + counts.completion_tokens * 10) / 1e6)
        keys = Counter(key for (key,) in ledger._db.execute("SELECT key FROM calls"))
        assert max(keys.values()) == 1  # no request was paid twice

        requests = counts.requests
        assert corrected(world, episodes, server, ledger, concurrency=16) == done  # again: from the file alone
        assert server.counts.requests == requests and ledger.total() == total
