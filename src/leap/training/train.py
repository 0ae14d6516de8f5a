"""Training by any method, in one process or in several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from leap.training.distributed import follow, lead
from leap.training.method import Job, Method, TrainingResult, quiet


def train(method: Method[Any], rows: Any, job: Job) -> TrainingResult:
    """Trains pi_i. In several processes rank 0 calls this, and the others `train_as_follower`.

    Args:
        method: The recipe's method.
        rows: What it is trained on, as the method's `rows` gave them.
        job: The training.

    Raises:
        LeapError: See `Method.train`.
    """
    lead({"method": method, "rows": rows, "job": replace(job, on_step=quiet)})
    return method.train(rows, job)


def train_as_follower() -> None:
    """Takes part in the trainings that rank 0 starts; returns when rank 0 has no more."""
    follow(lambda method, rows, job: method.train(rows, job))
