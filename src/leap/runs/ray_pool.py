"""A Ray cluster as a run has it: how it is reached, and the workers and generators of a recipe's `executor` section on it."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from leap import __version__, registry
from leap.config import Options, Section
from leap.errors import PrerequisiteError, RecipeError, last_line
from leap.recipe import ExecutorConfig, Recipe
from leap.runs.ray_desk import DESK, Desk
from leap.runs.ray_generator import Generator
from leap.runs.ray_worker import Worker
from leap.teachers.config import ModelTeacherConfig
from leap.training.config import TrainingSettings
from leap.training.launch import shared_out

if TYPE_CHECKING:
    from leap.models.vllm import Served
    from leap.runs.actors import Actors
    from leap.runs.ray_serving import Serving

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
    min_ranks: int | None = Field(
        default=None,
        ge=1,
        description="Fewest processes that a training goes on in where nodes are gone; training.processes again once they are "
        "back. Null: always all of them.",
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
        self._teacher: ModelTeacherConfig | None = None  # that is served
        self._serving: Serving | None = None

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

    def ranks(self, training: TrainingSettings) -> int | tuple[int, int]:
        """In how many processes a student is trained (auto: as there are workers), or in how many at least and at most.

        Raises:
            RecipeError: These cannot train together, or not go on in another number.
        """
        number = self.config.workers if self.config.generators is None else self.config.generators.number
        number, least = number if training.processes == "auto" else training.processes, self.config.min_ranks
        if least is not None and least > number:
            raise RecipeError(f"executor.min_ranks: {least} is more than the {number} of training.processes.")
        if least is not None and (not training.save_steps or training.accelerate != "ddp"):
            raise RecipeError(
                "executor.min_ranks needs training.save_steps, for a training in another number of processes goes on from its "
                "last state, and training.accelerate: ddp, for sharded states are for their number."
            )
        for some in range(number if least is None else least, number + 1):
            shared_out(training, some)
        return number if least is None else (least, number)

    def resources(self, apart: bool) -> dict[str, float]:
        """What each worker is given, or each generator where they are apart; a rank is given what generates."""
        config = self.config
        if apart and config.generators is not None:
            return {"CPU": config.generators.cpus, "GPU": config.generators.gpus, **config.generators.resources}
        return {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker, **config.resources}

    def needed(self) -> dict[str, float]:
        """What workers, generators and a served teacher are given in all."""
        generators = self.config.generators.number if self.config.generators else 0
        each = [(self.config.workers, self.resources(False)), (generators, self.resources(True))]
        serve = self._teacher.serve if self._teacher is not None else None
        if serve is not None:
            each += [(serve.replicas, {"CPU": 1, "GPU": serve.gpus}), (1, {"CPU": 1})]  # and who takes questions in
        names = {name for _, given in each for name in given}
        return {name: sum(number * given.get(name, 0) for number, given in each) for name in names}

    def served(self, here: Actors) -> Served:
        """Where the run's teacher is served, started if it is not there."""
        self.connect()
        return self.serving(here).served()

    def serving(self, here: Actors) -> Serving:
        """The run's teacher, which need not be served yet, or was so by a driver that was killed."""
        from leap.runs.ray_serving import Serving

        teacher = cast(ModelTeacherConfig, here.recipe.teacher)
        if self._serving is None:
            assert teacher.serve is not None
            self._serving = Serving(teacher.model.partition("/")[2], teacher.serve, here.run.root)
        return self._serving

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

        teacher = recipe.teacher
        self._teacher = teacher if isinstance(teacher, ModelTeacherConfig) and teacher.serve is not None else None
        if self._teacher is not None:
            from leap.runs.ray_serving import check_serving

            check_serving(self._teacher.model.partition("/")[2])
        self.connect()
        config, there = self.config, ray.cluster_resources()
        apart = f" and {config.generators.number} generators" if config.generators else ""
        served = " and a served teacher" if self._teacher else ""
        who = f"{config.workers} workers{apart}"
        for name, needed in sorted(self.needed().items()):
            if needed > (has := there.get(name, 0)) and not config.grows:
                raise PrerequisiteError(
                    f"executor: {who}{served} need {needed:g} {name}, and the cluster has {has:g}. Ask for fewer, or "
                    "set executor.grows: true if it grows on demand."
                )
        self.employ()
        waiting = {actor.ready.remote(): actor for actor in (*self.workers, *self.generators)}
        ready, late = ray.wait([*waiting], num_returns=1 if config.grows else len(waiting), timeout=config.wait)
        if not ready or (late and not config.grows):
            free = ", ".join(f"{ray.available_resources().get(name, 0):g} {name}" for name in self.needed())
            raise PrerequisiteError(f"executor: {len(late)} of {who} have not started in {config.wait:g} s; free now: {free}.")
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
        return f"Ray: {resources}, {who}{served}{late_ones}{dashboard}"

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
        """Ends workers and a served teacher, and leaves the cluster, if this process was not in it before."""
        self.dismiss()
        if self._serving is not None:
            self._serving.stop()
            self._serving = None
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
