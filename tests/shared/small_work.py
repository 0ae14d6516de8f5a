"""Pieces of work and a training for jobs, which say by files which jobs began them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leap.errors import PrerequisiteError
from leap.training.method import Job, Method, TrainingResult


@dataclass(frozen=True)
class Tell:
    """Says its own name after a while.

    Attributes:
        name: What it says.
        begun: A file that gets a line each time that it is begun, with the job's id.
        seconds: How long it takes.
        fails: So often it raises before it goes well.
        final: By an error that another attempt does not mend.
    """

    name: str
    begun: Path
    seconds: float = 0.0
    fails: int = 0
    final: bool = False

    def __call__(self, folder: Path, key: str) -> bytes:
        from submitit import JobEnvironment

        with self.begun.open("a") as file:
            file.write(f"{JobEnvironment().job_id}\n")
        if self.times <= self.fails:
            raise PrerequisiteError("the data is not here") if self.final else ValueError("a bad moment")
        time.sleep(self.seconds)
        return f"{self.name} says so".encode()

    @property
    def times(self) -> int:
        return len(self.begun.read_text().splitlines())


class Steps(Method[Any]):
    """A training of six steps, which goes on from the last one on file and leaves their list as its weights."""

    name = "steps"

    def train(self, rows: Any, job: Job) -> TrainingResult:
        from submitit import JobEnvironment

        steps = job.work / "steps"
        for step in range(len(steps.read_text().splitlines()) if steps.exists() else 0, 6):
            with steps.open("a") as file:
                file.write(f"{step} {JobEnvironment().job_id}\n")
            job.on_step(step + 1, 6, 1 / (step + 1))
            time.sleep(0.3)
        (job.out / "weights").write_text(steps.read_text())
        return TrainingResult(steps=6, rows=len(rows), too_long=0, tokens=10, answer_tokens=5, loss=0.5, seconds=1.0)
