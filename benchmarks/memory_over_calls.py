"""Resident memory over calls to an endpoint: does it level off, and who holds what grows?

    python benchmarks/memory_over_calls.py [--calls 6000] [--every 500] [--trace]

Prompts of 10 kB and answers of 4 kB, every one different, through the real client with the ledger and without it; the
scripted HTTP server is a process of its own. Then the model teacher on real ALFWorld episodes (`teacher_calls.py`), with its
server in a process of its own and in this one: what only the second adds is the test server's. With --trace Python's own
allocations are followed too (several times slower): what does not show there is held by C code, the allocator or SQLite.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import resource
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from leap.core import Episode
from leap.envs.base import Environment, load_environment
from leap.models.base import EndpointConfig, Model, Request, Sampling
from leap.models.ledger import Ledger
from leap.models.providers import open_model
from leap.rollouts import Play, rollout
from leap.testing.server import MockServer
from leap.testing.teachers import model_teacher
from teacher_calls import RandomPolicy, teacher_says

SERVER = """
import sys
from teacher_calls import teacher_says
answer = teacher_says if sys.argv[1] == "teacher" else lambda request: str(request.seed) * (4096 // len(str(request.seed)))
with MockServer(answer) as server:
    print(server.base_url, flush=True)
    sys.stdin.read()
"""
CONCURRENCY = 16


def rss() -> float:
    """Memory of this process now, in kB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e3


async def calls(model: Model, first: int, count: int) -> None:
    """So many calls, as many at once as the model takes."""
    numbers = iter(range(first, first + count))

    async def worker() -> None:
        async with model.conversation() as conversation:
            for n in numbers:
                text = f"{n} " * (10_000 // len(f"{n} "))
                await conversation.complete(Request([{"role": "user", "content": text}], seed=n))

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


def measure(label: str, url: str, ledger: Ledger | None, total: int, every: int) -> None:
    """Prints memory as the calls go on, in one event loop as a stage of a run has it."""
    endpoint = EndpointConfig(base_url=url, concurrency=CONCURRENCY)
    model = open_model("openai/mock", Sampling(max_tokens=4096), endpoint=endpoint, ledger=ledger)

    async def stage() -> None:
        now = before = start = 0.0
        for done in range(0, total, every):
            await calls(model, done, every)
            gc.collect()
            now, traced = rss(), tracemalloc.get_traced_memory()[0] / 1e3
            start = start or now
            more = f"{(now - before) / every:+.2f} kB a call" if before else ""
            follows = f"; Python's own {traced:,.0f} kB" if traced else ""
            print(f"  {label}, {done + every:5d} calls: {now:,.0f} kB resident {more}{follows}", flush=True)
            before = now
        print(f"  {label}: {now - start:+,.0f} kB from call {every} to call {total}", flush=True)

    asyncio.run(stage())
    model.close()


def measure_teacher(label: str, url: str, world: Environment, episodes: list[Episode], rounds: int, folder: Path) -> None:
    """Prints memory as a teacher corrects the same episodes again and again, asking anew each time."""
    endpoint = EndpointConfig(base_url=url, concurrency=CONCURRENCY)
    ledger = Ledger(folder / "calls.sqlite")
    model = open_model("openai/mock", Sampling(max_tokens=8192), endpoint=endpoint, ledger=ledger)
    before = 0.0
    for n in range(rounds):
        asyncio.run(model_teacher(world, model, seed=n).correct_all(episodes, lambda episode, corrections: None))
        gc.collect()
        now = rss()
        more = f"{(now - before) / len(episodes):+.2f} kB a call" if before else ""
        print(f"  {label}, {(n + 1) * len(episodes):5d} calls: {now:,.0f} kB resident {more}", flush=True)
        before = now
    ledger.close()


@contextmanager
def served(kind: str) -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, "-c", SERVER, kind]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=6000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=12, help="of 100 trajectories each")
    parser.add_argument("--trace", action="store_true")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, openai {version('openai')}, {os.cpu_count()} cores")
    if arguments.trace:
        tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder, served("text") as url:
        measure("client alone", url, None, arguments.calls, arguments.every)
        measure("with ledger", url, Ledger(Path(folder) / "calls.sqlite"), arguments.calls, arguments.every)
    world = load_environment("alfworld", {"generator": {"seed": 1, "games": {"train": 100, "valid": 1, "unseen": 1}}})
    world.prepare()
    episodes: list[Episode] = []
    tasks = world.tasks("train")
    rollout(world, RandomPolicy(), Play(tasks, 30, 0, "benchmark"), episodes.append)
    with tempfile.TemporaryDirectory() as folder, served("teacher") as url:
        measure_teacher("teacher, server elsewhere", url, world, episodes, arguments.rounds, Path(folder))
    with tempfile.TemporaryDirectory() as folder, MockServer(teacher_says) as here:
        measure_teacher("teacher, server in here", here.base_url, world, episodes, arguments.rounds, Path(folder))


if __name__ == "__main__":
    main()
