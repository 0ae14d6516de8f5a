"""`executor: {kind: ray}`: shards on the workers of a Ray cluster, and trainings by Ray Train. Ray starts workers, hands them
what they are sent and starts them again; records come back to this process, which alone writes the run directory."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from leap import __version__, registry
from leap.config import Options, Section
from leap.errors import LeapError, PrerequisiteError, RunError, last_line
from leap.progress import Progress
from leap.recipe import ExecutorConfig, Recipe
from leap.runs.actors import Actors
from leap.runs.executors import Executor
from leap.runs.ray_desk import DESK, Desk, attend, offer
from leap.runs.ray_generator import Generator
from leap.runs.ray_worker import Over, Worker
from leap.runs.shards import Shard
from leap.training.config import TrainingSettings
from leap.training.launch import shared_out

if TYPE_CHECKING:
    from leap.training.method import Job, Method, TrainingResult

log = logging.getLogger(__name__)

_SHIPPED = ("environment", "teacher", "model", "method", "policy", "sandbox", "demonstration")
"""Kinds of things that workers need."""


class GeneratorsConfig(Section):
    """Actors that answer for the student, placed apart from workers, which then hold environments alone."""

    number: int = Field(default=1, ge=1, description="How many; workers are shared out among them.")
    cpus: float = Field(default=1, ge=0, description="CPU cores of each.")
    gpus: float = Field(default=1, ge=0, description="GPUs of each.")
    resources: dict[str, float] = Field(default_factory=dict, description="Ray's custom resources that each takes.")


class RayConfig(ExecutorConfig):
    """Where the cluster is, and what its workers are given."""

    kind: Literal["ray"] = Field(default="ray", description="ray.")  # pyright: ignore[reportIncompatibleVariableOverride]
    address: str = Field(
        default="auto",
        description="auto: the cluster that this machine belongs to. HOST or HOST:PORT: that head's. local: this machine alone, "
        "for as long as the run is under way.",
    )
    workers: int = Field(default=8, ge=1, description="Workers; each holds an environment and, without generators, an engine.")
    cpus_per_worker: float = Field(default=1, ge=0, description="CPU cores of each.")
    gpus_per_worker: float = Field(default=0, ge=0, description="GPUs of each.")
    resources: dict[str, float] = Field(
        default_factory=dict, description="Ray's custom resources that each worker takes, to place them."
    )
    generators: GeneratorsConfig | None = Field(
        default=None,
        description="Where the student generates, if not in workers, as where environments are heavy and GPUs are elsewhere. "
        "Trainings are then placed as these.",
    )
    max_restarts: int = Field(default=-1, ge=-1, description="How often a worker that died is started again; -1: always.")
    max_task_retries: int = Field(
        default=3, ge=0, description="How often a shard is given out again, or a training goes on, that has lost a worker."
    )
    wait: float = Field(
        default=300, gt=0, description="Seconds after which a run ends in which no worker is there, as when nodes have gone."
    )
    grows: bool = Field(
        default=False, description="Whether the cluster grows when more is asked for than it has (an autoscaler)."
    )
    storage_path: str | None = Field(
        default=None,
        description="A folder that all nodes reach (a path, or an address such as s3://...), for checkpoints; without one they "
        "go through Ray's object store where workers do not see the run directory.",
    )
    runtime_env: Options = Field(default_factory=dict, description="Ray's runtime_env, such as {py_modules: [my_world]}.")


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
        shared_out(recipe.training, self._pool.ranks(recipe.training))
        try:
            Progress().say(self._pool.check(recipe))
        except LeapError:
            self._pool.close()
            raise

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        stage = _Stage(self, self._pool, shards, here, self._signed(here.run.root))
        async with aclosing(stage.records()) as records:
            async for record in records:
                yield record

    def train(self, method: Method[Any], rows: Any, job: Job) -> TrainingResult:
        """Trains pi_i on workers, each a rank; see `Method.train`."""
        from leap.runs.ray_training import train

        self.rest()
        return train(self._pool, method, rows, job)

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
        self._came = asyncio.Queue[Any]()
        self._turns = set[str]()  # under way, by name
        self._there = set[int]()  # workers that live
        self._shards, self._done, self._lost, self._gone = len(shards), 0, 0, 0
        self._leaving = False
        self._pays = shards[0].pays
        self._numbers = itertools.count()
        for place, shard in enumerate(shards):
            self._todo.put_nowait((0, place, shard))

    async def records(self) -> AsyncGenerator[Any]:
        """The records of all shards, as they come."""
        pool, config = self._pool, self._pool.config
        pool.employ()
        answers = {word: getattr(self, f"_{word}") for word in ("files", "claim", "admit", "settle", "release", "note", "unread")}
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
            await self._came.get()

    async def _next(self) -> Sequence[Any]:
        """The next records that have come.

        Raises:
            LeapError: What ended the work; or no worker is there any more.
        """
        while True:
            try:
                came = await asyncio.wait_for(self._came.get(), self._pool.config.wait)
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
        stream = worker.work.options(num_returns="streaming", max_task_retries=0)
        async for reference in stream.remote(shard, turn, self._sign):
            some = await reference
            over = some.pop() if isinstance(some[-1], Over) else None
            got.update(record.key for record in some)
            self._came.put_nowait(some)
            if over is not None:
                return over
        return Over(RunError(f"{shard.name}: a worker ended without a word."))

    # ---- answers to workers ------------------------------------------------------------------------------------------

    async def _files(self, path: str) -> Mapping[str, Any]:
        return await asyncio.to_thread(offer, self._here.run.root / path, self._pool.config.storage_path)

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


class Pool:
    """A connection to Ray with the desk and the workers of a recipe's `executor` section, started when they are first needed."""

    def __init__(self, config: RayConfig) -> None:
        self.config = config
        self.name = f"{DESK}-{id(self)}"
        self.workers: list[Any] = []
        self.generators: list[Any] = []
        self._desk: Any = None
        self._ours = False
        self._dashboard = ""

    def connect(self) -> None:
        """Connects to the cluster; a script that has done so already stays connected to its own.

        Raises:
            PrerequisiteError: There is no Ray here or at the address, or one of another version.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to Ray's makers unless the user says so
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray explains this setting
        os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # a recipe's relative paths are meant where it is run
        try:
            import ray
        except ImportError as error:
            raise PrerequisiteError("executor.kind: ray needs Ray: pip install 'leap-agents[ray]'") from error
        for other in _pools.values():
            if other is not self:
                other.close()  # of another recipe, which was looked at and not run
        if ray.is_initialized():
            return
        config, where = self.config, "" if self.config.address == "auto" else f" at {self.config.address}"
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # what matters is told by errors, in one line
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "runtime_env": config.runtime_env or None}
        try:
            if config.address == "local":
                all_of = self.needed()
                cpus, gpus = math.ceil(all_of.pop("CPU")), math.ceil(all_of.pop("GPU")) or None
                ray.init("local", num_cpus=cpus, num_gpus=gpus, resources=all_of, include_dashboard=False, **quiet)
            else:
                self._dashboard = ray.init(_answering(config.address), **quiet).dashboard_url or ""
        except Exception as error:  # Ray raises that itself, as where a node is too slow to start
            told = " ".join(str(error).split())
            if config.address == "auto" and isinstance(error, ConnectionError):
                told = "start one (ray start --head), or set executor.address"
            raise PrerequisiteError(f"executor.address: no Ray{where} that this process can join: {told[:300]}") from error
        self._ours = True

    @property
    def desk(self) -> Any:
        """The desk, on this machine."""
        if self._desk is None:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            asked = {"num_cpus": 0, "max_concurrency": 10_000, "scheduling_strategy": here}
            self._desk = ray.remote(Desk).options(name=self.name, **asked).remote()
        return self._desk

    def ranks(self, training: TrainingSettings) -> int:
        """In how many processes a student is trained; auto: as there are workers."""
        number = self.config.workers if self.config.generators is None else self.config.generators.number
        return number if training.processes == "auto" else training.processes

    def resources(self, apart: bool) -> dict[str, float]:
        """What each worker is given, or each generator where they are apart; a rank is given what generates."""
        config = self.config
        if apart and config.generators is not None:
            return {"CPU": config.generators.cpus, "GPU": config.generators.gpus, **config.generators.resources}
        return {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker, **config.resources}

    def needed(self) -> dict[str, float]:
        """What workers and generators are given in all."""
        generators = self.config.generators.number if self.config.generators else 0
        each = ((self.config.workers, self.resources(False)), (generators, self.resources(True)))
        names = {name for _, given in each for name in given}
        return {name: sum(number * given.get(name, 0) for number, given in each) for name in names}

    def serves(self, number: int) -> list[Any]:
        """Whoever generates for a worker, if it does not so itself."""
        return [self.generators[number % len(self.generators)]] if self.generators else []

    def employ(self) -> None:
        """Starts workers and generators, if they are not there."""
        import ray

        self.connect()
        if self.workers:
            return
        config = self.config

        def actor(kind: type, apart: bool, **more: Any) -> Any:
            given = self.resources(apart)
            placed = {"num_cpus": given.pop("CPU"), "num_gpus": given.pop("GPU"), "resources": given}
            return ray.remote(kind).options(max_restarts=config.max_restarts, **placed, **more)

        things = [
            (kind, name, thing)
            for kind in _SHIPPED
            for name, thing in getattr(registry, kind).decorated.items()
            if thing.__module__ == "__main__"  # others are imported there
        ]
        path = [str(Path(place).absolute()) for place in sys.path]
        ray.wait([self.desk.__ray_ready__.remote()])  # workers look for it by its name
        like, number = (str(Path.cwd()), path, things), config.generators.number if config.generators else 0
        names = [f"{self.name}-generator-{os.urandom(8).hex()}" for _ in range(number)]  # those of the dead are not free at once
        for name in names:
            self.generators.append(actor(Generator, True, name=name, max_concurrency=1000).remote(self.name, *like))
        for n in range(config.workers):
            self.workers.append(actor(Worker, False).remote(self.name, names[n % number] if number else "", *like))

    def check(self, recipe: Recipe) -> str:
        """See `RayExecutor.check`; says what is there."""
        import ray
        from ray.exceptions import RayActorError

        self.connect()
        config, there = self.config, ray.cluster_resources()
        apart = f" and {config.generators.number} generators" if config.generators else ""
        who = f"{config.workers} workers{apart}"
        for name, needed in sorted(self.needed().items()):
            if needed > (has := there.get(name, 0)) and not config.grows:
                raise PrerequisiteError(
                    f"executor: {who} need {needed:g} {name}, and the cluster has {has:g}. Ask for fewer, or "
                    "set executor.grows: true if it grows on demand."
                )
        self.employ()
        waiting = {actor.ready.remote(): actor for actor in (*self.workers, *self.generators)}
        ready, late = ray.wait([*waiting], num_returns=1 if config.grows else len(waiting), timeout=config.wait)
        if not ready or (late and not config.grows):
            raise PrerequisiteError(f"executor: {len(late)} of {who} have not started in {config.wait:g} s.")
        try:
            versions = {*ray.get(ready)} - {__version__}
            missing = {*ray.get([waiting[one].look.remote(recipe, registry.user_modules()) for one in ready])} - {""}
        except RayActorError as error:
            raise PrerequisiteError(f"executor: a worker cannot start: {last_line(error)}") from error
        if versions:
            raise PrerequisiteError(f"executor: workers have leap {', '.join(versions)}, and this is {__version__}.")
        if missing:
            raise PrerequisiteError(f"executor: a worker lacks something: {' '.join(missing)}")
        resources = ", ".join(f"{there[name]:g} {name}" for name in ("CPU", "GPU") if there.get(name))
        dashboard = f"; dashboard at http://{self._dashboard}" if self._dashboard else ""
        late_ones = f", {len(late)} of them not there yet" if late else ""
        return f"Ray: {resources}, {who}{late_ones}{dashboard}"

    def dismiss(self) -> None:
        """Ends the workers, which frees what they hold."""
        if not self.workers:
            return
        import ray

        with suppress(Exception):  # a cluster that is gone
            actors = [*self.workers, *self.generators]
            ray.wait([actor.leave.remote() for actor in actors], num_returns=len(actors), timeout=1)
            for actor in actors:
                ray.kill(actor)
        self.workers.clear()
        self.generators.clear()

    def close(self) -> None:
        """Ends the workers and leaves the cluster, if this process was not in it before."""
        self.dismiss()
        if self._ours:
            import ray

            ray.shutdown()
        self._desk, self._ours = None, False


_pools: dict[str, Pool] = {}


def pool_of(config: RayConfig) -> Pool:
    """The pool of a section: one that has been looked at before the run is opened is the one that the run works with."""
    return _pools.setdefault(config.model_dump_json(), Pool(config))


def _answering(address: str) -> str:
    """An address at which something listens.

    Raises:
        ConnectionError: Nothing does.
    """
    if address == "auto":
        return address
    if "://" in address:
        raise ConnectionError("an address is HOST or HOST:PORT; run leap on a node of the cluster")
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port or 6379)), timeout=5).close()
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from error
    return f"{host}:{port or 6379}"
