"""Executors: where the shards of a stage are worked on. `local` does it in this process; others are registered by a decorator or
an entry point (`leap.executors`) and named in a recipe, `executor: {kind: NAME, ...}` with its own options.

What crosses to another process or machine is a `Shard`. Records come back; only the process that drives the run writes its files.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import aclosing, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from leap.errors import LeapError, RunError
from leap.recipe import ExecutorConfig, Recipe
from leap.runs.actors import Actors
from leap.runs.shards import Shard, run_shard
from leap.sync import run_sync
from leap.training.launch import processes
from leap.training.method import Job, Method, TrainingResult

if TYPE_CHECKING:
    from leap.models.vllm import Served

TRIES = 3
"""So many workers may die of a shard."""


class Executor(ABC):
    """Works on shards, somewhere.

    Args:
        config: Its options, an instance of its `Config`.

    Class attributes:
        pays: Whether its workers reach the run's ledger (`here.ledger`). Shards that pay are worked on in the driving process by
            executors whose workers do not.
        whole: Whether it works on all shards; else others work on the rest, and only they all know how many episodes were lost.

    Attributes:
        status: Workers, shards and failures so far, for the progress line.
    """

    Config: ClassVar[type[ExecutorConfig]] = ExecutorConfig
    pays: ClassVar[bool] = False
    whole: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        self.config = config
        self.status = ""

    @abstractmethod
    def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        """Works on shards of one stage and yields their records, which have a `key`, as they end, in any order. `run_shard` works
        on one in any process. A record may come twice, as when a worker has died and its shard was given to another.

        Args:
            shards: What to do.
            here: The actors of this process, for executors that work in it.

        Raises:
            LeapError: What work raised; or a shard could not be done.
        """

    def check(self, recipe: Recipe) -> None:
        """Looks for what it needs, before any work is done.

        Raises:
            LeapError: Something is missing.
        """
        processes(recipe.training)

    def train(self, method: Method[Any], rows: Any, job: Job) -> TrainingResult:
        """Trains a student; see `leap.training.distributed.train`, which does it on this machine."""
        from leap.training.distributed import train

        return train(method, rows, job)

    def served(self, here: Actors) -> Served:
        """Where the run's teacher is served (`teacher.serve`), started if need be.

        Raises:
            LeapError: It cannot be; or this executor serves no models.
        """
        raise RunError("teacher.serve: this executor serves no model; use executor.kind: ray.")

    def rest(self) -> None:  # noqa: B027 - most executors hold nothing
        """Frees weights, as before a training, which loads its own."""

    def close(self) -> None:  # noqa: B027 - most executors hold nothing
        """Frees what the executor holds."""


class LocalConfig(ExecutorConfig):
    """Options of work on this machine."""

    workers: int = Field(
        default=1,
        ge=1,
        description="Processes that work, each with an environment and weights of its own; 1: the process of the run itself.",
    )


class LocalExecutor(Executor):
    """Works on this machine: in this process, with the weights and the environment that it holds already, or in others. Work that
    waits for endpoints, or for the student's engine, stays here: one process waits for many."""

    Config = LocalConfig
    pays = True

    def __init__(self, config: LocalConfig | None = None) -> None:
        super().__init__(config or LocalConfig())
        number = self.config.workers
        self._workers = [_Worker(n) for n in range(number)] if number > 1 else []
        self._died = 0

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        self.status = ""
        waits = shards[0].pays or here.recipe.student.engine.kind != "hf"
        working = _in_process(shards, here) if waits or not self._workers else self._in_others(shards)
        async with aclosing(working):
            async for record in working:
                yield record

    async def _in_others(self, shards: Sequence[Shard]) -> AsyncGenerator[Any]:
        waiting, died, done = deque(shards), Counter[str](), 0
        ended: asyncio.Queue[list[Any] | None] = asyncio.Queue()

        async def employ(worker: _Worker) -> None:
            while waiting:
                shard = waiting.popleft()
                try:
                    ended.put_nowait(await worker.run(shard))
                except BrokenProcessPool as error:
                    died[shard.key] += 1
                    self._died += 1
                    if died[shard.key] == TRIES:
                        raise RunError(
                            f"{shard.name} ended its worker {TRIES} times (killed, for want of memory maybe, or a crash of a "
                            "library); with executor.workers: 1 it is worked on in this process, which may show why. All else "
                            "that is finished is on file."
                        ) from error
                    waiting.append(shard)

        employed = [asyncio.create_task(employ(worker)) for worker in self._workers[: len(shards)]]
        all_ended = asyncio.gather(*employed)
        all_ended.add_done_callback(lambda _: ended.put_nowait(None))
        try:
            while (records := await ended.get()) is not None:
                done += 1
                lost = f", {self._died} workers died" if self._died else ""
                self.status = f"{len(self._workers)} workers, {done} of {len(shards)} shards{lost}"
                for record in records:
                    yield record
            await all_ended
        finally:
            for task in employed:
                task.cancel()
            await asyncio.gather(*employed, return_exceptions=True)
            for worker in self._workers:
                worker.stop_if_busy()

    def rest(self) -> None:
        for worker in self._workers:
            worker.close()

    close = rest


class _Worker:
    """A process that works on one shard at a time, and stays for the next. One pool for each: where a process is killed, the
    standard library gives up its whole pool."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._pool: ProcessPoolExecutor | None = None
        self._pid: Future[int] | None = None
        self._working: Future[list[Any]] | None = None

    async def run(self, shard: Shard) -> list[Any]:
        """See `run_shard`.

        Raises:
            BrokenProcessPool: The process died. The next shard gets a new one.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, (self._number,))
            self._pid = self._pool.submit(os.getpid)
        self._working = self._pool.submit(run_shard, shard)
        try:
            return await asyncio.wrap_future(self._working)
        except BrokenProcessPool as error:
            begun = self._pid is not None and self._pid.exception() is None
            self.close()
            if not begun:
                raise RunError(
                    "workers cannot be started; what they print says why. A script that runs a recipe needs "
                    '`if __name__ == "__main__":` around that, for workers import it.'
                ) from error
            raise

    def stop_if_busy(self) -> None:
        """Ends a process whose work nobody wants any more."""
        if self._pid is not None and self._working is not None and not self._working.done():
            with suppress(BrokenProcessPool, ProcessLookupError):
                os.kill(self._pid.result(), signal.SIGKILL)
            self.close()

    def close(self) -> None:
        """Ends the process, with its weights and its environment."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _begin(number: int) -> None:
    """What a worker does first: it leaves Ctrl-C to the driving process, ends with that, and takes its share of the GPUs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    devices = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia*"))
    gpus = own_gpus(number, os.environ.get("CUDA_VISIBLE_DEVICES"), sorted(filter(str.isdigit, devices), key=int))
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus


def own_gpus(number: int, visible: str | None, devices: Sequence[str]) -> str | None:
    """What CUDA_VISIBLE_DEVICES is to be for a worker, so that each has a GPU of its own as far as they go; None where there
    is nothing to share out.

    Args:
        number: The worker's, from 0.
        visible: What the variable is now.
        devices: Numbers of the GPUs of this machine.
    """
    gpus = [one for one in visible.split(",") if one] if visible is not None else devices
    return gpus[number % len(gpus)] if len(gpus) > 1 else None


async def _in_process(shards: Sequence[Shard], here: Actors) -> AsyncGenerator[Any]:
    ended: asyncio.Queue[Any] = asyncio.Queue()
    left = False

    def hand_on(record: Any) -> None:
        if left:
            raise LeapError("nobody wants it any more")  # ends the work, after the calls under way
        ended.put_nowait(record)

    working = asyncio.create_task(shards[0].work(shards, here, hand_on))
    working.add_done_callback(lambda _: ended.put_nowait(None))
    try:
        while (record := await ended.get()) is not None:
            yield record
        await working
    except GeneratorExit:
        left = True
        if not shards[0].pays:
            working.cancel()
    except asyncio.CancelledError:
        working.cancel()
        raise
    finally:
        with suppress(asyncio.CancelledError, Exception):
            await working


def work_on(
    shards: Sequence[Shard], actors: Actors, keep: Callable[[Any], None], executor: Executor | None = None
) -> None:
    """Has shards of one stage worked on, by this process where there is no executor or where it may not pay, and has each record
    kept once."""
    if not shards:
        return
    chosen = executor if executor is not None and (executor.pays or not shards[0].pays) else LocalExecutor()
    kept = set[str]()

    async def everything() -> None:
        async with aclosing(chosen.map(shards, actors)) as records:  # pyright: ignore[reportArgumentType]
            async for record in records:
                if record.key not in kept:
                    kept.add(record.key)
                    keep(record)

    run_sync(everything())
