"""What the process that drives a run bears: a thousand workers, a million episodes, failures. The waiting is simulated, the
driver is not: `play_tasks`, its journal and an executor's own handing out of shards run as in a run, on a clock that jumps over
what nobody computes. In place of workers there are stubs, whose times and failures are drawn.

    python benchmarks/scale_simulation.py [--executor seam|ray|slurm] [--workers 1000] [--episodes 1000000] [--failures 0.01]

`seam`: shards are handed to whichever worker is free, and come back as bytes. `ray`: the driver's side of
`leap.runs.ray_executor`, its desk included, with stub actors and without Ray's own transport. `slurm`: that of
`leap.runs.slurm_jobs` in a real folder, with stub jobs that claim and leave files as real ones do, and a queue that answers at
once.

Drawn: an episode's actions are those of a scripted expert's play of generated games, played here; each takes 4.7 s, the time of
a round of 60 of SmolLM2-135M on one CPU thread (`rollouts_llm.log`: 112.6 s for 2 x 12 rounds); a shard lasts as long as its
longest episode of 16. Workers fail at the given rate per hour, each by itself, and are back after three minutes (assumed).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pickle
import random
import resource
import selectors
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests" / "scale"))

from stub_workers import Remote, StubPool, gone

from leap import __version__
from leap.core import Episode, Task
from leap.envs.base import Environment, listed, load_environment
from leap.files import Journal
from leap.policies.base import ExpertPolicy
from leap.progress import Bar
from leap.recipe import resolved
from leap.rollouts import Play, rollout
from leap.runs import slurm_jobs
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.runs.executors import Executor
from leap.runs.playing import play_tasks
from leap.runs.policies import scripted
from leap.runs.ray_executor import _Stage
from leap.runs.ray_worker import Over
from leap.runs.shards import Shard
from leap.runs.slurm import SlurmConfig, SlurmExecutor
from leap.runs.slurm_jobs import Pool, Worker

ROUND, BACK, WAIT = 112.6 / 24, 180.0, 60.0
"""Seconds of an action; until a failed worker works again; and that a new job waits at most."""


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while anything is computed, and jumps to the next timer where nothing is."""

    def __init__(self) -> None:
        self.now = 0.0
        loop = self

        class Skipping(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                found = super().select(0 if timeout is not None else None)
                if not found and timeout:
                    loop.now += timeout
                return found

        super().__init__(Skipping())

    def time(self) -> float:
        return self.now


class Clocks(asyncio.DefaultEventLoopPolicy):
    """Every loop has such a clock."""

    def new_event_loop(self) -> Clock:
        return Clock()


class Workers:
    """What stub workers do, and what becomes of it.

    Attributes:
        busy, wasted: Simulated seconds of work that was kept, and that was lost to failures.
        failures: How many there were.
        recoveries: Simulated seconds from each failure until the shard in hand was done.
        cpu: Seconds of this process's CPU that stubs took, where workers would have paid.
    """

    def __init__(self, templates: Sequence[Episode], rate: float) -> None:
        self.templates, self.rate = templates, rate
        self.busy = self.wasted = self.cpu = 0.0
        self.failures, self.recoveries = 0, list[float]()
        self._failed: dict[str, float] = {}
        self._dice = random.Random(0)

    def until_failure(self) -> float:
        return self._dice.expovariate(self.rate / 3600) if self.rate else float("inf")

    async def work(self, shard: Shard, life: float) -> bytes | None:
        """A shard's episodes, or None if the worker, which has so long to live, fails before they are done."""
        loop = asyncio.get_running_loop()
        drawn = self._dice.choices(self.templates, k=len(shard.items))
        lasts = ROUND * max(len(episode.steps) for episode in drawn)
        await asyncio.sleep(min(lasts, life))
        if lasts > life:
            self.failures += 1
            self.wasted += life
            self._failed.setdefault(shard.name, loop.time())
            return None
        self.busy += lasts
        if began := self._failed.pop(shard.name, None):
            self.recoveries.append(loop.time() - began)
        with self.counted():
            play = shard.spec.what
            made = [
                fresh(one, task=task, seed=play.seed_of(task), horizon=play.horizon)
                for one, task in zip(drawn, shard.items, strict=True)
            ]
            return pickle.dumps(made) if self.pickled else b"".join(one.line() for one in made)

    pickled = True

    @contextmanager
    def counted(self) -> Any:
        began = time.thread_time()
        yield
        self.cpu += time.thread_time() - began


class Stub(Executor):
    """Hands shards to whoever is free, and again where a worker failed."""

    def __init__(self, workers: Workers, number: int) -> None:
        super().__init__(None)
        self.workers, self.number = workers, number

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        waiting, done = list(reversed(shards)), asyncio.Queue[bytes]()

        async def worker() -> None:
            life = self.workers.until_failure()
            while len(finished) < len(shards):
                if not waiting:
                    await asyncio.sleep(1)
                    continue
                shard, began = waiting.pop(), asyncio.get_running_loop().time()
                answer = await self.workers.work(shard, life)
                life -= asyncio.get_running_loop().time() - began
                if answer is None:
                    waiting.append(shard)
                    await asyncio.sleep(BACK)
                    life = self.workers.until_failure()
                else:
                    finished.add(shard.name)
                    done.put_nowait(answer)

        finished = set[str]()
        tasks = [asyncio.create_task(worker()) for _ in range(self.number)]
        for _ in shards:
            for record in pickle.loads(await done.get()):  # noqa: S301 - this process's own
                yield record
        await asyncio.gather(*tasks)


class RayStub(Executor):
    """Ray's driver with stub actors."""

    def __init__(self, workers: Workers, number: int) -> None:
        super().__init__(None)
        self._pool: Any = StubPool(None, None, 0, max_task_retries=20)  # type: ignore[arg-type]
        self._pool.config = self._pool.config.model_copy(update={"workers": number})
        self._pool.workers = [RayWorker(workers) for _ in range(number)]

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        async for record in _Stage(self, self._pool, shards, here, "sign").records():  # type: ignore[arg-type]
            yield record


class RayWorker:
    """A stub actor: it fails, is away for a while, and works again."""

    def __init__(self, workers: Workers) -> None:
        self._workers, self._life, self._back = workers, workers.until_failure(), 0.0
        self.ready, self.work = Remote(self._ready), Remote(self._work)

    async def _ready(self) -> str:
        if asyncio.get_running_loop().time() < self._back:
            raise gone()
        return __version__

    async def _work(self, shard: Shard, turn: str, sign: str) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await self._workers.work(shard, self._life)
        self._life -= loop.time() - began
        if answer is None:
            self._life, self._back = self._workers.until_failure(), loop.time() + BACK
            raise gone()

        async def records() -> list[Any]:
            return [*pickle.loads(answer), Over()]  # noqa: S301 - this process's own

        yield records()


class Queue:
    """A Slurm of stub jobs, each in a folder of real files."""

    def __init__(self, workers: Workers) -> None:
        self.workers, self.jobs = workers, dict[str, asyncio.Task[None]]()

    def submit(self, worker: Worker, number: int, logs: Path) -> list[str]:
        new = [f"{len(self.jobs) + i}" for i in range(number)]
        self.jobs |= {job: asyncio.get_running_loop().create_task(self._job(job, worker)) for job in new}
        return new

    async def _job(self, job: str, worker: Worker) -> None:
        await asyncio.sleep(random.Random(job).uniform(0, WAIT))
        folder, life, idle = Path(worker.folder), self.workers.until_failure(), 0.0
        loop = asyncio.get_running_loop()
        with self.workers.counted():
            slurm_jobs.write_json(folder / f"{job}.here", {"versions": worker.versions, "node": "n"})
        while idle < worker.idle:
            with self.workers.counted():
                key = slurm_jobs._claim(folder, job)
                work: Any = pickle.loads((folder / f"{key}.work").read_bytes()) if key else None  # noqa: S301
            if key is None:
                await asyncio.sleep(worker.poll * 5)
                idle += worker.poll * 5
                continue
            idle, began = 0.0, loop.time()
            if (answer := await self.workers.work(work.shard, life)) is None:
                return  # the job is gone, its claim stays
            life -= loop.time() - began
            with self.workers.counted():
                (folder / f"{key}.new").write_bytes(answer)
                (folder / f"{key}.new").replace(folder / f"{key}.done")

    def alive(self, jobs: Collection[str], logs: Path) -> dict[str, str]:
        return {job: "running" for job in jobs if job in self.jobs and not self.jobs[job].done()}

    def cancel(self, jobs: Collection[str]) -> None:
        for job in jobs:
            self.jobs[job].cancel()

    def state(self, job: str, logs: Path) -> str:
        return "NODE_FAIL"


class SimulatedSlurm(SlurmExecutor):
    """The executor, but for its cluster."""

    def __init__(self, workers: Workers, number: int) -> None:
        super().__init__(SlurmConfig(kind="slurm", jobs=number, attempts=20))
        self.workers = workers
        workers.pickled = False

    def _opened(self, folder: Path, section: Any, name: str, jobs: int, idle: float | None = None) -> Pool:
        return Pool(folder, Queue(self.workers), "", jobs=jobs, attempts=20, poll=self.config.poll, idle=self.config.idle)

    def close(self) -> None:
        pass


def fresh(record: Any, **values: Any) -> Any:
    """A record with some values in place of its own; `model_copy` would keep the key."""
    return type(record).model_construct(**{name: getattr(record, name) for name in type(record).model_fields} | values)


async def _at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """In place of a thread, for which the clock would not wait."""
    return function(*arguments)


def games(folder: Path) -> tuple[Environment, list[Task], list[Episode]]:
    """An environment, its tasks, and an expert's episodes of them."""
    os.environ["LEAP_CACHE"] = str(folder / "cache")
    environment = load_environment("alfworld", {"generator": {"seed": 1, "games": {"train": 200, "valid": 2, "unseen": 2}}})
    environment.prepare()
    tasks, played = listed(environment, "train"), list[Episode]()
    rollout(environment, ExpertPolicy(environment), Play(tasks, 30, 0, "x"), played.append)
    return environment, tasks, played


def memory() -> float:
    """GB of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--executor", choices=["seam", "ray", "slurm"], default="seam")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--failures", type=float, default=0.01, help="of a worker, per hour")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="leap-simulation-"))
    try:
        simulate(asked, folder)
    finally:
        shutil.rmtree(folder)


def simulate(asked: argparse.Namespace, folder: Path) -> None:
    environment, tasks, played = games(folder)
    lengths = sorted(len(episode.steps) for episode in played)
    size = statistics.mean(len(episode.line()) for episode in played)
    print(f"{len(played)} episodes played: actions median {lengths[100]}, p90 {lengths[180]}; {size / 1000:.1f} kB on file each")
    many = [fresh(tasks[i % len(tasks)], id=f"game-{i:07}") for i in range(asked.episodes)]
    values = {"name": "simulation", "environment": {"name": "alfworld"}}
    actors = Actors(resolved(values, "the recipe"), RunDirectory(folder / "run"), environment)
    workers = Workers(played, asked.failures)
    executor = {"seam": Stub, "ray": RayStub, "slurm": SimulatedSlurm}[asked.executor](workers, asked.workers)
    journal, before = Journal(folder / "run/episodes.jsonl", Episode), memory()
    asyncio.set_event_loop_policy(Clocks())
    asyncio.to_thread = _at_once  # type: ignore[assignment]
    ended: list[float] = []
    most = [before]

    @contextmanager
    def under_way() -> Any:
        def show(done: int, total: int, rate: float, note: str) -> None:
            if done % 1000 == 0:
                most.append(memory())
                with suppress(RuntimeError):
                    ended[:] = [asyncio.get_running_loop().time()]

        yield Bar(show), lambda **_: None

    began, cpu = time.monotonic(), time.process_time()
    play_tasks(scripted(), Play(many, 30, 0, "simulation"), actors, journal, under_way, executor)
    spent, cpu = time.monotonic() - began, time.process_time() - cpu - workers.cpu
    number, hours, found = len(journal), ended[0] / 3600, workers.recoveries or [0.0]
    lasts, size = ROUND * lengths[-1], journal.path.stat().st_size / 1e9
    print(f"{asked.executor}: {asked.workers:,} workers, {number:,} episodes, failures {asked.failures:.0%} an hour")
    print(f"  simulated: {hours:.2f} h, of which workers worked {workers.busy / 3600 / asked.workers / hours:.1%};")
    print(f"  simulated: {workers.failures} failures cost {workers.wasted / 3600:.2f} of {workers.busy / 3600:,.0f} hours;")
    mean = statistics.mean(found)
    print(f"    from a failure to its shard done {mean:.0f} s, at most {max(found):.0f}; a shard takes up to {lasts:.0f}")
    print(f"  driver, real: {cpu:.0f} s of CPU, {1e6 * cpu / number:.0f} us an episode, {number / cpu:,.0f} episodes a second")
    print(f"  driver, real: {before:.2f} GB before, with its tasks, {max(most):.2f} at most; the journal has {size:.2f}")
    print(f"  beside: {workers.cpu:.0f} s of CPU for stubs, {spent:.0f} s by the clock in all")
    began = time.process_time()
    again = Journal(journal.path, Episode)
    print(f"  driver, real: killed, it knows its {len(again):,} episodes after {time.process_time() - began:.1f} s of CPU")


if __name__ == "__main__":
    main()
