"""Corrections by a teacher at an endpoint: time against the ideal, memory, and what failures cost.

    python benchmarks/teacher_calls.py [--episodes 200] [--concurrency 16] [--delay 0.5] [--repeats 4]

Real ALFWorld episodes (generated games, a random player), the real teacher, client and ledger, and a real HTTP server with
a scripted model behind it that takes so many seconds per call. The ideal time is that of a client that costs nothing:
ceil(episodes / concurrency) times the delay. The server runs in this process, so its work counts against us.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import random
import re
import resource
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from leap.core import Actor, Correction, Decision, Episode, History
from leap.envs.base import Environment, load_environment
from leap.models.base import EndpointConfig, Request, Sampling
from leap.models.ledger import Ledger
from leap.models.mock import Faults
from leap.models.prices import Price
from leap.models.providers import open_model
from leap.policies.base import Act, Peek, Player
from leap.rollouts import Play, rollout
from leap.testing.server import MockServer
from leap.testing.teachers import model_teacher

RATES = {"broken": 0.06, "empty": 0.05, "truncated": 0.05, "rate_limit": 0.06, "server_error": 0.06, "timeout": 0.02}


class RandomPolicy:
    """Takes any admissible action: long failures, which is what teachers get to see."""

    privileged = False
    waves = False
    concurrency = 64
    actor = Actor(name="random")

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        yield _Random(random.Random(seed))


class _Random:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    async def decide(self, history: History) -> Act:
        action = self._rng.choice(history.now.admissible or ("look",))
        return Act(Decision(reason="Let me try something.", action=action))


def teacher_says(request: Request) -> str:
    """A correction of every timestep that the prompt shows, of the length of a real one."""
    shown = sorted({int(t) for t in re.findall(r"^\[timestep (\d+)\]", request.messages[-1]["content"], re.MULTILINE)})
    steps = [
        {
            "timestep": t,
            "leave_as_it_is": False,
            "corrected_reason": f"At {t} I have not found it, and such things mostly lie on tables or in drawers, so I look.",
            "corrected_action": "look",
        }
        for t in shown
    ]
    return json.dumps({"summary": "It wandered about without searching where such things mostly are.", "trajectory": steps})


def correct(
    world: Environment, episodes: list[Episode], server: MockServer, ledger: Ledger, concurrency: int, timeout: float
) -> tuple[float, int]:
    """Corrects the episodes; returns seconds and kept corrections."""
    endpoint = EndpointConfig(base_url=server.base_url, concurrency=concurrency, timeout=timeout)
    model = open_model("openai/mock", Sampling(temperature=0.3, max_tokens=8192), endpoint=endpoint, ledger=ledger)
    teacher = model_teacher(world, model, attempts=8)
    kept = 0

    def keep(episode: Episode, corrections: list[Correction]) -> None:
        nonlocal kept
        kept += sum(correction.kept for correction in corrections)

    began = time.perf_counter()
    asyncio.run(teacher.correct_all(episodes, keep))
    return time.perf_counter() - began, kept


def waited() -> float:
    """Seconds that this thread was ready to run and got no core so far (Linux): what a busy machine adds to the clock."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


def rss() -> float:
    """Memory of this process now, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--delay", type=float, default=0.5)
    parser.add_argument("--horizon", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, openai {version('openai')}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; horizon {arguments.horizon}, {arguments.delay} s a call"
    )
    games = {"generator": {"seed": 1, "games": {"train": arguments.episodes, "valid": 1, "unseen": 1}}}
    world = load_environment("alfworld", games)
    world.prepare()
    episodes: list[Episode] = []
    tasks = world.tasks("train", limit=arguments.episodes)
    rollout(world, RandomPolicy(), Play(tasks, arguments.horizon, 0, "benchmark"), episodes.append)
    steps = sum(len(episode.steps) for episode in episodes)
    with tempfile.TemporaryDirectory() as folder:
        with MockServer(teacher_says, delay=arguments.delay) as server:
            correct(world, episodes[:16], server, Ledger(Path(folder) / "warm.sqlite"), arguments.concurrency, 60)  # warm up
            ideal = math.ceil(len(episodes) / arguments.concurrency) * arguments.delay
            print(f"{len(episodes)} trajectories ({steps} steps) at {arguments.concurrency} calls at once, ideal {ideal:.2f} s")
            ledger = Ledger(Path(folder) / "good.sqlite")
            for n in range(arguments.repeats):
                ledger = Ledger(Path(folder) / f"good-{n}.sqlite")
                answered, cpu, queue = server.counts.answered, time.process_time(), waited()
                seconds, kept = correct(world, episodes, server, ledger, arguments.concurrency, 60)
                print(
                    f"  {n + 1}: {seconds:.2f} s, ratio {seconds / ideal:.3f}; {waited() - queue:.2f} s waiting for a core; "
                    f"{time.process_time() - cpu:.2f} s of CPU (server and replays included); {kept} corrections kept, "
                    f"{server.counts.answered - answered} calls answered; {rss():.1f} MB resident",
                    flush=True,
                )
            answered = server.counts.answered
            again, _ = correct(world, episodes, server, ledger, arguments.concurrency, 60)
            print(f"the last once more, from its ledger: {again:.2f} s, {server.counts.answered - answered} calls")
        prices = {"openai/mock": Price(input=2.5, output=10)}
        ledger = Ledger(Path(folder) / "faults.sqlite", prices)
        with MockServer(teacher_says, delay=arguments.delay, faults=Faults(RATES), hang=30) as server:
            seconds, kept = correct(world, episodes, server, ledger, arguments.concurrency, 5)
            total, counts = ledger.total(), server.counts
            print(
                f"with failures in {sum(RATES.values()):.0%} of the calls ({dict(server.faults.counts)}): {seconds:.2f} s, "
                f"{kept} of {steps} corrections kept; {counts.requests} requests"
            )
            print(
                f"ledger: {total.calls} calls, {total.tokens_in} + {total.tokens_out} tokens, ${total.cost:.6f}; the server's "
                f"own count: {counts.answered} calls, {counts.prompt_tokens} + {counts.completion_tokens} tokens, "
                f"${(counts.prompt_tokens * 2.5 + counts.completion_tokens * 10) / 1e6:.6f}"
            )


if __name__ == "__main__":
    main()
