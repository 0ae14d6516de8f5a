"""`executor: {kind: ray}`: shards on the workers of a Ray cluster, and trainings by Ray Train. Ray starts workers, hands them
what they are sent and starts them again; records come back to this process, which alone writes the run directory."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap import __version__
from leap.errors import LeapError, RunError, last_line
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.actors import Actors
from leap.runs.executors import Executor
from leap.runs.ray_desk import attend, offer
from leap.runs.ray_pool import Pool, RayConfig, pool_of
from leap.runs.ray_training import in_thread
from leap.runs.ray_worker import Over
from leap.runs.shards import Shard

if TYPE_CHECKING:
    from leap.models.vllm import Served
    from leap.training.method import Job, Method, TrainingResult

log = logging.getLogger(__name__)

AHEAD = 64
"""So many deliveries of workers wait for this process at most; then workers wait with what they have made."""


class RayExecutor(Executor):
    """Hands shards to workers as these become free, and trains on workers."""

    Config = RayConfig
    pays = True
    config: RayConfig

    def __init__(self, config: RayConfig) -> None:
        super().__init__(config)
        self._pool = pool_of(config)
        self._sign: Path | None = None

    @classmethod
    def doctor(cls) -> list[tuple[bool, str]]:
        """Whether Ray is here, and a cluster."""
        if find_spec("ray") is None:
            return [(False, "Ray is missing: pip install 'leap-agents[ray]'")]
        import ray
        from ray._private.services import find_gcs_addresses

        found = ", ".join(sorted(find_gcs_addresses()))
        return [(True, f"Ray {ray.__version__}, {f'a cluster at {found}' if found else 'no cluster on this machine'}")]

    def check(self, recipe: Recipe) -> None:
        """Starts the workers and has them look for what the recipe needs.

        Raises:
            PrerequisiteError: Something is missing.
        """
        self._pool.ranks(recipe.training)
        try:
            Progress().say(self._pool.check(recipe))
        except LeapError:
            self._pool.close()
            raise

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        if getattr(here.recipe.teacher, "serve", None) is not None:
            self._pool.serving(here)
        stage = _Stage(self, self._pool, shards, here, self._signed(here.run.root))
        async with aclosing(stage.records()) as records:
            async for record in records:
                yield record

    def train(self, method: Method[Any], rows: Any, job: Job) -> TrainingResult:
        """Trains pi_i on workers, each a rank; see `Method.train`."""
        from leap.runs.ray_training import train

        self.rest()
        return train(self._pool, method, rows, job)

    def served(self, here: Actors) -> Served:
        return self._pool.served(here)

    def _signed(self, root: Path) -> str:
        """Name of a file of this run directory alone, by which workers know whether they see it."""
        if self._sign is None:
            self._sign = root / f".{os.urandom(8).hex()}.tmp"
            root.mkdir(parents=True, exist_ok=True)
            self._sign.touch()
        return self._sign.name

    def rest(self) -> None:
        self._pool.dismiss()

    def close(self) -> None:
        if self._sign is not None:
            self._sign.unlink(missing_ok=True)
        self._pool.close()


class _Stage:
    """One stage's shards on the workers of a pool."""

    def __init__(self, executor: RayExecutor, pool: Pool, shards: Sequence[Shard], here: Actors, sign: str) -> None:
        self._executor, self._pool, self._here, self._sign = executor, pool, here, sign
        self._todo = asyncio.PriorityQueue[tuple[int, int, Shard]]()  # how often lost, as a negative number: those first
        self._came, self._room = asyncio.Queue[Any](), asyncio.Semaphore(AHEAD)
        self._turns = set[str]()  # under way, by name
        self._there = set[int]()  # workers that live
        self._shards, self._done, self._lost, self._gone = len(shards), 0, 0, 0
        self._leaving = False
        self._starting: asyncio.Task[Served] | None = None  # the teacher, served with the run
        self._pays = shards[0].pays
        self._numbers = itertools.count()
        for place, shard in enumerate(shards):
            self._todo.put_nowait((0, place, shard))

    async def records(self) -> AsyncGenerator[Any]:
        """The records of all shards, as they come."""
        pool, config = self._pool, self._pool.config
        pool.employ()
        words = ("files", "served", "claim", "admit", "settle", "release", "note", "unread")
        answers = {word: getattr(self, f"_{word}") for word in words}
        helpers = [asyncio.create_task(self._heard(attend(pool.desk, answers)))]
        helpers += [asyncio.create_task(self._heard(self._serve(number))) for number in range(config.workers)]
        interrupted = False
        try:
            while self._done < self._shards:
                for record in await self._next():
                    yield record
        except asyncio.CancelledError:
            interrupted = True
            raise
        finally:
            self._leaving = True
            if self._pays and not interrupted:  # calls under way are paid for, so they end; no other begins
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended(), config.wait)
            if self._turns:  # what they work on is not wanted any more
                pool.dismiss()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._executor.status = ""

    async def _ended(self) -> None:
        while self._turns:
            await self._taken()

    async def _taken(self) -> Any:
        """What has come next; there is room for more then."""
        came = await self._came.get()
        if isinstance(came, list):
            self._room.release()
        return came

    async def _next(self) -> Sequence[Any]:
        """The next records that have come.

        Raises:
            LeapError: What ended the work; or no worker is there any more.
        """
        while True:
            try:
                came = await asyncio.wait_for(self._taken(), self._pool.config.wait)
            except TimeoutError:
                if self._there:
                    continue
                raise RunError(
                    f"no worker has been there for {self._pool.config.wait:g} s (executor.wait). All that came is on file; give "
                    "the same command again when the cluster has some."
                ) from None
            if isinstance(came, Over):
                if came.error is not None:
                    raise came.error
                self._done += 1
                came = ()
            lost = f", {self._lost} lost with their workers" if self._lost else ""
            self._executor.status = f"{len(self._there)} workers, {self._done} of {self._shards} shards{lost}"
            return came

    async def _heard(self, helper: Coroutine[Any, Any, None]) -> None:
        """A helper whose errors are told."""
        try:
            await helper
        except LeapError as error:
            self._came.put_nowait(Over(error))
        except Exception as error:
            self._came.put_nowait(Over(RunError(f"executor: {type(error).__name__}: {last_line(error)}")))

    # ---- workers ---------------------------------------------------------------------------------------------------

    async def _serve(self, number: int) -> None:
        """Gives a worker one shard after another, as long as it lives."""
        from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

        worker, config = self._pool.workers[number], self._pool.config
        while not self._leaving:
            try:
                version, *_ = await asyncio.gather(*(actor.ready.remote() for actor in (worker, *self._pool.serves(number))))
            except ActorDiedError as error:  # for good
                self._there.discard(number)
                self._gone += 1
                if self._gone == config.workers:
                    raise RunError(f"all workers have died; one said: {last_line(error)}") from error
                return
            except RayActorError:  # it is being started again
                self._there.discard(number)
                await asyncio.sleep(0.5)
                continue
            if version != __version__:
                raise RunError(f"a worker has leap {version}, and this is {__version__}.")
            self._there.add(number)
            losses, place, shard = await self._todo.get()
            turn, got = f"{number}-{next(self._numbers)}", set[str]()
            self._turns.add(turn)
            try:
                self._came.put_nowait(await self._turn(worker, shard, turn, got))
            except RayTaskError as error:
                raise RunError(f"{shard.name}: {last_line(error)}") from error
            except RayError as error:  # the worker, its node or what it had made is gone
                log.info("%s: %s", shard.name, error)
                self._lost += 1
                losses -= 1
                if -losses > config.max_task_retries:
                    told = f"{shard.name} was lost {-losses} times (executor.max_task_retries): {last_line(error)}"
                    raise RunError(told) from error
                self._todo.put_nowait((losses, place, replace(shard, done=shard.done | got)))
            finally:
                self._turns.discard(turn)
                if shard.pays:
                    self._here.ledger.abandon(turn)
                self._came.put_nowait(())

    async def _turn(self, worker: Any, shard: Shard, turn: str, got: set[str]) -> Over:
        """A worker's turn at a shard and how it ended; the keys of records that came are put into a set."""
        # Ray must not try this again itself: it would take records that now come in another order for those that came before.
        stream = worker.work.options(num_returns="streaming", max_task_retries=0, _generator_backpressure_num_objects=2)
        async for reference in stream.remote(shard, turn, self._sign):
            await self._room.acquire()
            try:
                some = await reference
            except BaseException:
                self._room.release()
                raise
            over = some.pop() if isinstance(some[-1], Over) else None
            got.update(record.key for record in some)
            self._came.put_nowait(some)
            if over is not None:
                return over
        return Over(RunError(f"{shard.name}: a worker ended without a word."))

    # ---- answers to workers ------------------------------------------------------------------------------------------

    async def _files(self, path: str) -> Mapping[str, Any]:
        return await asyncio.to_thread(offer, self._here.run.root / path, self._pool.config.storage_path)

    async def _served(self) -> Served:
        if self._starting is None:
            self._starting = asyncio.create_task(in_thread(partial(self._executor.served, self._here)))
        return await asyncio.shield(self._starting)

    async def _claim(self, turn: str, key: str) -> Any:
        answer = await self._here.ledger.claim(key, turn)
        if answer is None and (turn not in self._turns or self._leaving):
            self._here.ledger.release(key)
            raise LeapError("nobody wants it any more")
        return answer

    async def _admit(self, turn: str, key: str) -> None:
        if turn not in self._turns or self._leaving:
            raise LeapError("nobody wants it any more")
        await self._here.ledger.admit(key)

    async def _settle(self, turn: str, *call: Any) -> Any:
        return await self._here.ledger.settle(*call)  # what was paid is booked, whoever is gone

    async def _release(self, turn: str, key: str) -> None:
        if turn in self._turns:
            self._here.ledger.release(key)

    async def _note(self, turn: str, *call: Any) -> None:
        self._here.ledger.note(*call)

    async def _unread(self, turn: str, key: str, problem: str) -> None:
        self._here.ledger.unread(key, problem)
