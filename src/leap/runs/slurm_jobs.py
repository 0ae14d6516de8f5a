"""Jobs of a batch system that work off a folder of files, and the driver's side of them.

A folder holds pieces of work by their content key: `KEY.work` (what is to be done, pickled), `KEY.claimed` (the job that does
it), `KEY.done` (its result) or `KEY.failed`; `JOB.here` is left by each job that has begun. The driver puts work there, has
jobs submitted, and takes results away; a job takes one piece after the other, with weights and environment kept, until it finds
none for some time. All that is known is on file: a driver that was killed finds its jobs and their results again.

What is loaded from a pickle is what this user's own driver wrote: the folder is closed to all others, and a job refuses one that
is not. The driver itself loads no pickle.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import platform
import random
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from leap import __version__
from leap.errors import ContractError, LeapError, PrerequisiteError, RecipeError, RunError, last_line
from leap.files import append_line, write_json

log = logging.getLogger(__name__)

_FINAL = (PrerequisiteError, RecipeError, ContractError)
"""Errors that another attempt does not mend."""
_SUFFIXES = (".work", ".claimed", ".failed", ".done")
_GONE = 2
"""A job has ended when the queue does not know it so many times: by then its files are to be seen, too."""


class Work(Protocol):
    """A piece of work, which can be pickled. It may leave files of its own beside those of its key."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    def __call__(self, folder: Path, key: str) -> bytes:
        """Does it, in a job, and returns the result."""
        ...


def private(folder: Path) -> None:
    """Makes a folder that nobody else may write to, or look into.

    Raises:
        RunError: It belongs to somebody else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)
    _check_private(folder)


def _check_private(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise RunError(f"{folder} is open to other users, and jobs run what lies there: delete it and give the command again.")


def _versions() -> list[str]:
    return [f"leap {__version__}", f"Python {'.'.join(platform.python_version_tuple()[:2])}"]


class Worker:
    """What a job does. It holds plain values alone, so that another version of leap can load it and say so.

    Args:
        folder: Where work lies.
        idle: Seconds that it waits for work before it ends.
        poll: Seconds between two looks.
    """

    def __init__(self, folder: str, idle: float, poll: float) -> None:
        self.folder, self.idle, self.poll, self.versions = folder, idle, poll, _versions()

    def checkpoint(self) -> Any:
        """What submitit runs when the job begins again after a preemption or its time-out: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def __call__(self) -> None:
        """Does all that is to be done."""
        from submitit import JobEnvironment

        folder, me = Path(self.folder), JobEnvironment().job_id
        _check_private(folder)
        same = _versions() == self.versions
        write_json(folder / f"{me}.here", {"versions": _versions(), "node": platform.node()})
        begun, waiting = False, time.monotonic()
        while same and time.monotonic() - waiting < max(self.idle, self.poll):
            if (key := _claim(folder, me, again=not begun)) is None:
                time.sleep(self.poll)
            elif _worked(folder, key, me):
                waiting = time.monotonic()
            else:  # another attempt is another process's: this one may be damaged
                return
            begun = True


def _claim(folder: Path, me: str, again: bool = False) -> str | None:
    """Takes a piece of work that nobody has; in a job that begins `again`, before all the one that it had when it was stopped."""
    names = {entry.name for entry in os.scandir(folder)}
    free = []
    for key in (name.removesuffix(".work") for name in names if name.endswith(".work")):
        if names & {f"{key}.done", f"{key}.failed"}:
            continue
        if f"{key}.claimed" not in names:
            free.append(key)
        elif again and _text(folder / f"{key}.claimed") == me:
            return key
    random.shuffle(free)  # a thousand jobs that begin at once are not all to try the first
    for key in free:
        with suppress(FileExistsError):
            file = os.open(folder / f"{key}.claimed", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            os.write(file, me.encode())
            os.close(file)
            return key
    return None


def _worked(folder: Path, key: str, me: str) -> bool:
    """Does a piece of work; whether it went well."""
    from submitit.core.utils import UncompletedJobError

    try:
        given = (folder / f"{key}.work").read_bytes()
    except FileNotFoundError:  # it is done already
        (folder / f"{key}.claimed").unlink(missing_ok=True)
        return True
    try:
        # Written by this user's own driver into a folder that is closed to others.
        work: Work = pickle.loads(given)  # noqa: S301
        _leave(folder / f"{key}.done", work(folder, key))
    except UncompletedJobError:  # the job's time is over
        raise
    except Exception as error:
        traceback.print_exc()
        told = str(error) if isinstance(error, LeapError) else f"{type(error).__name__}: {error}"
        final = isinstance(error, _FINAL)
        write_json(folder / f"{key}.failed", {"job": me, "node": platform.node(), "told": told, "final": final})
        return False
    return True


def _leave(file: Path, content: bytes) -> None:
    """Writes a file that is there complete, or not at all."""
    new = file.with_suffix(f".{os.getpid()}.tmp")
    with new.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)


def _text(file: Path) -> str:
    with suppress(OSError):
        return file.read_text(encoding="utf-8")
    return ""


class Cluster(Protocol):
    """A batch system."""

    def submit(self, worker: Worker, number: int, logs: Path) -> Sequence[str]:
        """Submits so many jobs, which leave what they say in `logs`; returns their ids.

        Raises:
            PrerequisiteError: They are not taken.
        """
        ...

    def alive(self, jobs: Collection[str], logs: Path) -> Mapping[str, str] | None:
        """Those of the jobs that run or wait, each with a word for people; None where that cannot be told now."""
        ...

    def cancel(self, jobs: Collection[str]) -> None:
        """Ends jobs."""
        ...

    def state(self, job: str, logs: Path) -> str:
        """How a job ended, in the batch system's own word."""
        ...


class Pool:
    """The driver's side of a folder of work.

    Args:
        folder: The folder, on a file system that the jobs' nodes share.
        cluster: Where jobs run.
        settings: Names what the jobs ask of it: those that a former driver submitted with others are ended.
        jobs: How many at once at most.
        attempts: So often a piece of work may fail, or its job end under it.
        poll: Seconds between two looks at the folder and the queue.
        idle: Seconds that a job without work waits for more.

    Attributes:
        status: What the jobs do, for people.
    """

    def __init__(
        self, folder: Path, cluster: Cluster, settings: str, *, jobs: int, attempts: int, poll: float, idle: float
    ) -> None:
        if "%" in str(folder):
            raise RunError(f"{folder}: Slurm reads a % in the name of a folder as its own. Choose another --run-dir.")
        private(folder)
        self.folder, self.logs, self.cluster, self.status = folder, folder / "logs", cluster, ""
        self._settings, self._most, self._attempts, self._poll = settings, jobs, attempts, poll
        self._worker = Worker(str(folder), idle, min(poll, 1.0))
        self._missed: Counter[str] = Counter()  # how often in turn the queue did not know a job
        self._tried: Counter[str] = Counter()
        self._begun = set[str]()
        self._owners = dict[str, str]()
        self._barren = 0
        lines = _text(folder / "jobs.jsonl").splitlines()
        known: dict[str, str] = dict(json.loads(line) for line in lines if line.endswith("]"))
        alive = cluster.alive(known, self.logs) if known else {}
        self._jobs = [job for job, asked in known.items() if asked == settings and (alive is None or job in alive)]
        cluster.cancel([job for job, asked in known.items() if asked != settings and (alive is None or job in alive)])

    async def results(
        self, works: Mapping[str, Work], on_look: Callable[[], object] = lambda: None
    ) -> AsyncGenerator[tuple[str, Path], None]:
        """Has work done, by jobs that are there or new ones. Yields each piece's key and the file with its result, which is gone
        afterwards. `on_look` is called between two looks.

        Raises:
            PrerequisiteError: The jobs cannot work, such as those of another version of leap.
            RunError: A piece of work failed too often.
        """
        left = set(works)
        self._owners.clear()
        for file in list(self.folder.iterdir()):  # of an earlier driver
            if file.suffix in _SUFFIXES and file.stem not in left:
                file.unlink(missing_ok=True)
        waiting = sorted((key for key in left if not (self.folder / f"{key}.work").exists()), reverse=True)
        while True:
            alive = await asyncio.to_thread(self.cluster.alive, {*self._jobs, *self._owners.values()}, self.logs)
            files = self._files()
            for key in sorted(files[".done"] & left):
                yield key, self.folder / f"{key}.done"
                left.remove(key)
                for suffix in _SUFFIXES:
                    (self.folder / f"{key}{suffix}").unlink(missing_ok=True)
            if not left:
                return
            self._check_versions(files[".here"])
            for key in sorted(files[".failed"] & left):
                self._count_failure(key, works[key])
            if alive is not None:
                self._count_lost(alive, files, works)
            files = self._files()
            # A claim is read once: it changes only where this takes it back.
            claimed = files[".claimed"] & left
            self._owners = {key: self._owners.get(key) or _text(self.folder / f"{key}.claimed") for key in claimed}
            ahead = len(files[".work"] & left) - len(claimed)
            for _ in range(min(len(waiting), 2 * self._most - ahead)):  # not all: every job looks through what is there
                await asyncio.to_thread(_leave, self.folder / f"{waiting[-1]}.work", pickle.dumps(works[waiting[-1]]))
                waiting.pop()
            if alive is not None:
                running = {job: alive[job] for job in self._jobs if job in alive}
                if (more := min(self._most - len(running), len(left) - len(claimed))) > 0:
                    await asyncio.to_thread(self._submit, more)
                self.status = self._told(running, len(works) - len(left), len(works))
            on_look()
            await asyncio.sleep(self._poll)

    def _files(self) -> Mapping[str, set[str]]:
        """The files that are there, by what they say of what."""
        self.folder.chmod(0o700)  # has a network file system look again
        found: defaultdict[str, set[str]] = defaultdict(set)
        for entry in os.scandir(self.folder):
            stem, _, kind = entry.name.rpartition(".")
            found[f".{kind}"].add(stem)
        return found

    def close(self) -> None:
        """Ends the jobs."""
        alive = self.cluster.alive(self._jobs, self.logs) if self._jobs else {}
        self.cluster.cancel(self._jobs if alive is None else list(alive))
        self._jobs.clear()

    def _submit(self, number: int) -> None:
        self.logs.mkdir(exist_ok=True)
        for job in self.cluster.submit(self._worker, number, self.logs):
            append_line(self.folder / "jobs.jsonl", json.dumps([job, self._settings]).encode() + b"\n")
            self._jobs.append(job)

    def _check_versions(self, here: set[str]) -> None:
        for job in here & {*self._jobs} - self._begun:
            self._begun.add(job)
            found = json.loads(_text(self.folder / f"{job}.here"))
            if found["versions"] != self._worker.versions:
                theirs, ours = (" and ".join(one) for one in (found["versions"], self._worker.versions))
                raise PrerequisiteError(
                    f"executor: job {job} on {found['node']} has {theirs}, this process {ours}. Have jobs use the same "
                    "environment, by executor.setup."
                )

    def _count_failure(self, key: str, work: Work) -> None:
        failed = json.loads(_text(self.folder / f"{key}.failed"))
        told = f"{failed['told']} (job {failed['job']} on {failed['node']})"
        if failed["final"]:
            raise PrerequisiteError(told)
        self._try_again(key, work, told, failed["job"])

    def _count_lost(self, alive: Mapping[str, str], files: Mapping[str, set[str]], works: Mapping[str, Work]) -> None:
        """Takes back the work of jobs that have ended, and sees whether jobs end before they begin."""
        held = {job: key for key, job in self._owners.items() if key not in files[".done"]}
        for job in {*self._jobs, *held}:
            self._missed[job] = 0 if job in alive else self._missed[job] + 1
            if self._missed[job] < _GONE:
                continue
            if job in held:
                told = f"its job {job} ended {self.cluster.state(job, self.logs)}: {self._last_words(job)}"
                self._try_again(held[job], works[held[job]], told, job)
            elif job in self._jobs and job not in self._begun:
                self._barren += 1
                if self._barren >= self._attempts:
                    raise PrerequisiteError(self._why_barren(job))
            if job in self._jobs:
                self._jobs.remove(job)

    def _try_again(self, key: str, work: Work, told: str, job: str) -> None:
        """Frees a piece of work for another attempt, unless it had enough of them."""
        self._tried[key] += 1
        if self._tried[key] >= self._attempts:
            raise RunError(f"{work.name} failed {self._tried[key]} times, the last: {told} Its log: {self._log(job)}")
        log.warning("%s is tried again: %s", work.name, told)
        (self.folder / f"{key}.failed").unlink(missing_ok=True)
        (self.folder / f"{key}.claimed").unlink(missing_ok=True)
        self._owners.pop(key, None)

    def _why_barren(self, job: str) -> str:
        told = f"executor: jobs end before they begin to work, the last, {job}, as {self.cluster.state(job, self.logs)}: "
        if not self._log(job).exists():
            return (
                f"{told}it left no log. Perhaps its node does not see {self.folder}: a run directory must lie on a file system "
                "that all nodes share (--run-dir)."
            )
        return f"{told}{self._last_words(job)} Its log: {self._log(job)}"

    def _log(self, job: str) -> Path:
        return self.logs / f"{job}_0_log.err"

    def _last_words(self, job: str) -> str:
        return last_line(_text(self._log(job)))

    def _told(self, alive: Mapping[str, str], done: int, of: int) -> str:
        jobs = ", ".join(f"{count} {word}" for word, count in Counter(alive.values()).most_common()) or "none"
        failures = self._tried.total() + self._barren
        return f"jobs: {jobs}; {done} of {of} shards{f', {failures} failed' if failures else ''}"
