"""The executor `slurm`: shards and trainings are jobs of a Slurm cluster, submitted by submitit from its login node.

    executor: {kind: slurm, jobs: 8, gpus: 1, partition: gpu, training: {gpus: 8, time: 720}}

The run directory lies on a file system that all nodes share. Jobs find their work there and leave results there; the process of
the run alone writes journals (see `slurm_jobs`).
"""

from __future__ import annotations

import getpass
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, redirect_stderr, suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, TypeAdapter

from leap.config import Section
from leap.core import content_key
from leap.errors import PrerequisiteError, last_line
from leap.files import read_records
from leap.recipe import ExecutorConfig, Recipe
from leap.runs.actors import Actors
from leap.runs.executors import Executor
from leap.runs.shards import Shard, run_shard
from leap.runs.slurm_jobs import Pool, Worker
from leap.sync import run_sync
from leap.training.method import Job, Method, TrainingResult

log = logging.getLogger(__name__)

Word = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f]+$")]


class JobSection(Section):
    """What a job asks of Slurm."""

    partition: Word | None = Field(default=None, description="Partition; Slurm's own choice if null.")
    time: int = Field(
        default=240, ge=1, description="Minutes that a job may take; where that is too short, it goes on in another."
    )
    gpus: int = Field(default=0, ge=0, description="GPUs of a job.")
    cpus: int = Field(default=4, ge=1, description="CPU cores of a job.")
    memory: float | None = Field(default=None, gt=0, description="GiB of memory of a job; Slurm's own choice if null.")
    setup: list[str] = Field(
        default_factory=list, description="Shell lines before a job's work, such as `module load cuda`. They are run as they are."
    )
    options: dict[Word, Word | int | bool] = Field(
        default_factory=dict, description="Further options of sbatch by name, for example {account: lab, qos: high}."
    )

    def flags(self) -> Iterator[str]:
        """The same as options of sbatch."""
        values = {"partition": self.partition, "time": self.time, "cpus-per-task": self.cpus}
        values |= {"gpus-per-node": self.gpus or None, "mem": self.memory and f"{int(self.memory * 1024)}MB", **self.options}
        for name, value in values.items():
            if value not in (None, False):
                yield f"--{name}" if value is True else f"--{name}={value}"

    def asked(self, name: str, at_once: int) -> dict[str, Any]:
        """The same for submitit's AutoExecutor."""
        return {
            "name": name,
            "timeout_min": self.time,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem_gb": self.memory,
            "slurm_partition": self.partition,
            "slurm_array_parallelism": at_once,
            "slurm_setup": self.setup or None,
            "slurm_additional_parameters": {"requeue": True, **self.options},  # by Slurm, where a node fails or is wanted back
        }


class SlurmConfig(ExecutorConfig, JobSection):
    """Shards and trainings are jobs."""

    cluster: Literal["slurm", "local", "debug"] = Field(
        default="slurm", description="local, debug: submitit's own stand-ins for Slurm, to try things out on one machine."
    )
    jobs: int = Field(default=8, ge=1, description="Jobs at once at most.")
    idle: float = Field(default=120, ge=0, description="Seconds that a job without work waits for more before it ends.")
    attempts: int = Field(default=3, ge=1, description="So often a shard may fail, or its job end under it.")
    poll: float = Field(default=5, gt=0, description="Seconds between two looks at the queue and at results.")
    training: JobSection | Literal["here"] | None = Field(
        default=None, description="What a training asks for; as above if null. here: it runs in the process of the run."
    )


@dataclass(frozen=True, slots=True)
class Shards:
    """A shard to be worked on."""

    shard: Shard

    @property
    def name(self) -> str:
        return self.shard.name

    def __call__(self, folder: Path, key: str) -> bytes:
        return b"".join(record.line() for record in run_shard(self.shard))


@dataclass(frozen=True, slots=True)
class Training:
    """A training, in as many processes as the recipe says. Stopped, it goes on from its last state."""

    name: str
    method: Method[Any]
    rows: Any
    job: Job

    def __call__(self, folder: Path, key: str) -> bytes:
        from leap.training.distributed import train

        out, told = folder / "out", [0.0]
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()

        def on_step(done: int, total: int, loss: float) -> None:
            if time.monotonic() - told[0] > 1 or done == total:
                told[0] = time.monotonic()
                (new := folder / "progress.tmp").write_text(json.dumps([done, total, loss]))
                new.replace(folder / "progress.json")

        result = train(self.method, self.rows, replace(self.job, out=out, on_step=on_step))
        return json.dumps(asdict(result)).encode()


class SlurmExecutor(Executor):
    """Has jobs play and train."""

    Config: ClassVar[type[ExecutorConfig]] = SlurmConfig
    config: SlurmConfig

    def __init__(self, config: SlurmConfig) -> None:
        super().__init__(config)
        self._pool: Pool | None = None
        self._folder: Path | None = None
        self._failed = False

    def check(self, recipe: Recipe) -> None:
        if self.config.training == "here":
            super().check(recipe)
        if find_spec("submitit") is None:
            raise PrerequisiteError("executor: slurm needs submitit: pip install 'leap-agents[slurm]'")
        if self.config.cluster != "slurm":
            return
        if lacking := [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]:
            raise PrerequisiteError(f"executor: slurm: no {', '.join(lacking)} here; start the run on a login node of a cluster.")
        trained = self.config.training if isinstance(self.config.training, JobSection) else self.config
        for section in dict.fromkeys(tuple(one.flags()) for one in (self.config, trained)):
            tried = subprocess.run(["sbatch", "--test-only", *section, "--wrap=true"], capture_output=True, text=True)
            if tried.returncode:
                raise PrerequisiteError(f"executor: sbatch does not take such jobs: {last_line(tried.stderr)}")

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        # A run goes on under one recipe but for what decides nothing; whoever changed more finds no results of before.
        asked = shards[0].recipe.model_dump(mode="json")
        works = {content_key(shard.key, asked): Shards(replace(shard, root=shard.root.absolute())) for shard in shards}
        self._folder = here.run.jobs.absolute()
        pool = self._pool = self._pool or self._opened(self._folder, self.config, here.recipe.name, self.config.jobs)
        self._failed = True
        async with aclosing(pool.results(works)) as results:
            async for key, file in results:
                self.status = pool.status
                shard = works[key].shard
                records: Iterator[tuple[int, Any]] = read_records(file, shard.record)
                for _, record in records:
                    if record.key not in shard.done:  # a job of an earlier driver knew of fewer
                        yield record
        self._failed = False

    def train(self, method: Method[Any], rows: Any, job: Job) -> TrainingResult:
        section = self.config.training
        if section == "here":
            return super().train(method, rows, job)
        start, work = Path(job.start), job.work.absolute()
        there = replace(job, start=str(start.absolute()) if start.exists() else job.start, work=work, on_step=_quiet)
        key = content_key("training", (job.work / "key").read_text())
        pool = self._opened(work / "job", section or self.config, f"train-{job.iteration}", 1, idle=0)

        def on_look() -> None:
            with suppress(OSError, ValueError):
                job.on_step(*json.loads((pool.folder / "progress.json").read_text()))

        async def trained() -> TrainingResult:
            work = Training(f"training of pi_{job.iteration}", method, rows, there)
            async with aclosing(pool.results({key: work}, on_look)) as results:
                async for _, file in results:
                    on_look()  # what was told since the last look
                    shutil.copytree(pool.folder / "out", job.out, copy_function=_link, dirs_exist_ok=True)
                    return TypeAdapter(TrainingResult).validate_json(file.read_bytes())
            raise AssertionError("unreachable")

        try:
            return run_sync(trained())
        finally:
            pool.close()

    def _opened(self, folder: Path, section: JobSection, name: str, jobs: int, idle: float | None = None) -> Pool:
        asked = section.asked(f"leap-{name}", jobs)
        return Pool(
            folder,
            CLUSTERS[self.config.cluster](asked),
            content_key(self.config.cluster, asked),
            jobs=jobs,
            attempts=self.config.attempts,
            poll=self.config.poll,
            idle=self.config.idle if idle is None else idle,
        )

    def rest(self) -> None:
        """Ends the jobs that play: their nodes may be those that are to train."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def close(self) -> None:
        self.rest()
        if self._folder is not None and not self._failed:
            shutil.rmtree(self._folder, ignore_errors=True)  # a job may be ending still

    @classmethod
    def doctor(cls) -> list[tuple[bool, str]]:
        """What is here of Slurm."""
        if find_spec("submitit") is None:
            return [(False, "submitit missing: pip install 'leap-agents[slurm]'")]
        if shutil.which("sbatch") is None:
            return [(False, "no sbatch here: runs are started on a login node of a Slurm cluster")]
        version = _said("sbatch", "--version")
        return [(True, f"{version}; partitions: {', '.join(_said('sinfo', '--noheader', '--format=%R').split()) or 'none told'}")]


def _said(*command: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    return ""


def _quiet(done: int, total: int, loss: float) -> None:
    """A job tells its progress by a file."""


def _link(source: str, target: str) -> None:
    """The same file under a second name, where the file system knows such."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


class Slurm:
    """Slurm, through submitit and Slurm's own commands.

    Args:
        asked: What submitit's AutoExecutor is told of a job.
    """

    kind = "slurm"

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._asked = asked

    def submit(self, worker: Worker, number: int, logs: Path) -> list[str]:
        """See `Cluster`, as for the rest."""
        from submitit import AutoExecutor

        logging.getLogger("submitit").setLevel(logging.ERROR)
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints what it raises
                executor = AutoExecutor(folder=logs, cluster=self.kind)
                executor.update_parameters(**self._asked)
                return self._begun(executor.submit_array([worker] * number))
        except (RuntimeError, OSError) as error:
            raise PrerequisiteError(f"executor: sbatch does not take the jobs: {last_line(str(error))}") from error

    def _begun(self, jobs: Sequence[Any]) -> list[str]:
        return [job.job_id for job in jobs]

    def alive(self, jobs: Collection[str], logs: Path) -> dict[str, str] | None:
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%r"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("squeue gives no answer and is asked again: %s", error)
            return None
        found = [line.strip().split("|", 2) for line in said.splitlines() if line.count("|") > 1]
        words = {job: f"pending ({why})" if state == "PENDING" else state.lower() for job, state, why in found}
        return {job: word for job, word in words.items() if job in jobs}

    def cancel(self, jobs: Collection[str]) -> None:
        if jobs:
            _said("scancel", *jobs)

    def state(self, job: str, logs: Path) -> str:
        from submitit import SlurmJob

        return SlurmJob(logs, job).state


class Processes(Slurm):
    """submitit's jobs on this machine, without a batch system."""

    kind = "local"

    def alive(self, jobs: Collection[str], logs: Path) -> dict[str, str] | None:
        def command(job: str) -> str:
            with suppress(OSError):
                return Path("/proc", job, "cmdline").read_text()
            return ""

        return {job: "running" for job in jobs if str(logs) in command(job)}

    def cancel(self, jobs: Collection[str]) -> None:
        for job in jobs:
            with suppress(OSError):
                for process in (job, *Path(f"/proc/{job}/task/{job}/children").read_text().split()):
                    os.kill(int(process), signal.SIGKILL)

    def state(self, job: str, logs: Path) -> str:
        return "ENDED"


class Here(Processes):
    """submitit's debug executor: a job is done in this process, as soon as it is submitted."""

    kind = "debug"

    def _begun(self, jobs: Sequence[Any]) -> list[str]:
        jobs[0].results()
        return [jobs[0].job_id]

    def alive(self, jobs: Collection[str], logs: Path) -> dict[str, str] | None:
        return {}

    def cancel(self, jobs: Collection[str]) -> None:
        pass


CLUSTERS = {one.kind: one for one in (Slurm, Processes, Here)}
