"""A method that fails in every process, and notes each try beside the job's folders."""

from __future__ import annotations

from typing import Any, Literal

from leap import registry
from leap.training.config import TrainingSettings
from leap.training.distributed import rank
from leap.training.method import Job, Method, TrainingResult, diverged


class FailingConfig(TrainingSettings):
    method: Literal["failing"] = "failing"  # pyright: ignore[reportIncompatibleVariableOverride]


@registry.method("failing")
class Failing(Method[FailingConfig]):
    """Diverges."""

    Config = FailingConfig

    def train(self, rows: Any, job: Job) -> TrainingResult:
        if not rank():
            with (job.out.parent / "tries").open("a") as tries:
                tries.write("x")
        raise diverged(3, "its loss is nan")
