"""A training in several processes, started from this one by `accelerate launch`.

This process stays what it is: it alone works on the run directory and shows progress. It hands the work to rank 0 through a
socket, which every rank holds open: when it closes, for whatever reason this process ended, they end at once.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leap.errors import LeapError, RecipeError, RunError
from leap.training.config import TrainingSettings
from leap.training.method import Job, Method, TrainingResult, quiet

KEY = "LEAP_LAUNCH_KEY"
"""Environment variable by which ranks know the secret of the socket."""
LOG = "launch.log"
"""What launcher and ranks print, in the training's own folder, which goes with a training that ends well."""
_PATIENCE, _LAST_WORDS = 30.0, 2.0
"""Seconds that the launcher has to end its processes, and that these have to be heard where it has ended before them."""


class Elsewhere(Exception):
    """The traceback of a rank, shown with --debug."""


def processes(config: TrainingSettings) -> int:
    """In how many processes a training runs on this machine.

    Raises:
        RecipeError: There are fewer GPUs, or the rows of a step cannot be shared out.
    """
    if config.processes == 1:
        return 1
    import torch

    gpus = torch.cuda.device_count()
    number = max(1, gpus) if config.processes == "auto" else config.processes
    if gpus and number > gpus:
        raise RecipeError(f"training.processes: {number} processes need as many GPUs, and {gpus} are visible here.")
    shared_out(config, number)
    return number


def shared_out(config: TrainingSettings, number: int) -> None:
    """Looks whether the rows of a step can be shared out among so many processes.

    Raises:
        RecipeError: They cannot.
    """
    if config.batch_rows % number and not getattr(config, "branches", False):
        raise RecipeError(
            f"training.batch_rows: {config.batch_rows} rows cannot be shared out among {number} processes; choose a multiple."
        )


def launched(method: Method[Any], rows: Any, job: Job, number: int) -> TrainingResult:
    """Trains pi_i in so many processes of this machine; see `Method.train`.

    Raises:
        LeapError: What the first rank that failed says.
        RunError: The processes ended otherwise.
    """
    if type(method).__module__ == "__main__":
        raise RecipeError(
            f"training.processes: the method {type(method).__name__} is defined in a script, which other processes "
            "cannot import. Put it into a module of its own."
        )
    job.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="leap-") as folder:  # a socket's path has room for a hundred characters
        address, key = str(Path(folder) / "socket"), secrets.token_hex(16)
        launcher = _started(method, number, address, key, job)
        with Listener(address, "AF_UNIX", authkey=key.encode()) as listener, launcher as process:
            ranks = _Ranks(listener, process, job.work / LOG)
            try:
                return ranks.attend(method, rows, job)
            finally:
                ranks.close()
                with suppress(Exception):  # wakes the thread that waits for ranks
                    Client(address, "AF_UNIX", authkey=key.encode()).close()


@contextmanager
def _started(
    method: Method[Any], number: int, address: str, key: str, job: Job
) -> Iterator[subprocess.Popen[bytes]]:
    """The launcher; it is gone afterwards."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(method.config.launch_file)]
    alone = ["--num_processes", str(number), "--num_machines", "1", "--main_process_port", "0"]
    environment = os.environ | {KEY: key, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (job.work / LOG).open("wb") as log:
        process = subprocess.Popen(
            [*launcher, *alone, "-m", "leap.training.worker", address],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # an interrupt at the terminal is this process's to pass on
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Ranks:
    """The ranks' ends of the socket."""

    def __init__(self, listener: Listener, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log
        self._connections: list[Connection[Any, Any]] = []
        self._closed = False
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: Listener) -> None:
        while not self._closed:
            try:
                connection = listener.accept()
            except Exception:  # a rank that was killed on its way in, or one that does not know the secret
                time.sleep(0.1)
                continue
            self._connections.append(connection)
            if self._closed:
                connection.close()

    def attend(self, method: Method[Any], rows: Any, job: Job) -> TrainingResult:
        """Gives rank 0 its work, passes progress on, and returns what comes of it."""
        result: TrainingResult | None = None
        ended: float | None = None
        while True:
            for connection in self._ready():
                try:
                    kind, value = connection.recv()
                except (EOFError, OSError):
                    self._connections.remove(connection)
                    connection.close()
                    continue
                if kind == "work":
                    connection.send((method, rows, replace(job, on_step=quiet)))
                elif kind == "step":
                    job.on_step(*value)
                elif kind == "done":
                    result = value
                else:
                    error, trace = value
                    raise error from Elsewhere(f"\n{trace}")
            if self._process.poll() is None:
                continue
            ended = ended or time.monotonic()  # ranks end before their launcher, unless that was killed
            if not self._connections or time.monotonic() - ended > _LAST_WORDS:
                if result is not None and not self._process.returncode:
                    return result
                raise RunError(
                    f"the training in several processes ended with status {self._process.returncode}: {self._last_words()} "
                    f"({self._log} holds all that they said.)"
                )

    def _ready(self) -> Sequence[Any]:
        if not self._connections:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)
            return ()
        return wait(list(self._connections), timeout=0.5)

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines()]
        errors = [line for line in lines if "Error" in line]
        return (errors or [line for line in lines if line] or ["nothing was said."])[-1][:300]

    def close(self) -> None:
        """Ends the ranks."""
        self._closed = True
        for connection in self._connections:
            with suppress(OSError):
                connection.close()


def as_leap_error(error: BaseException, rank: int) -> LeapError:
    """What a rank's error is told as."""
    if isinstance(error, LeapError):
        return error
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return RunError(f"training, process {rank}: {type(error).__name__}: {first}")
