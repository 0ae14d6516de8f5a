"""Training by any method, in one process or in several.

Of several, rank 0 works as a single process would. When it comes to a training, it hands the
arguments to the other ranks, who take part in the computation and write nothing.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

import torch.distributed as dist

from leap.training.launch import launched, processes
from leap.training.method import Job, Method, TrainingResult, diverged, quiet


def world() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if world() > 1 else 0


def sharded() -> bool:
    """Whether FSDP shares out the weights among them."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in {"1", "true"}


def in_any(flag: bool) -> bool:
    """Whether it is so in any of them: what one does of it, all have to do."""
    flags = [flag] * world()
    if world() > 1:
        dist.all_gather_object(flags, flag)
    return any(flags)


def barrier() -> None:
    """Waits until all processes are here."""
    if world() > 1:
        dist.barrier()


def train(method: Method[Any], rows: Any, job: Job) -> TrainingResult:
    """Trains pi_i by a method on its rows (see `Method.train`). In several processes rank 0 calls this, the others `follow`;
    where the recipe asks for several and this is a single one, they are started."""
    if world() == 1 and (number := processes(method.config)) > 1:
        return launched(method, rows, job, number)
    from_rank_0((method, rows, replace(job, on_step=quiet)))
    result = method.train(rows, job)
    if not math.isfinite(result.loss):
        raise diverged(result.steps, f"its loss is {result.loss}")
    return result


def release() -> None:
    """Lets the followers go; called by rank 0 when there is nothing more to train."""
    from_rank_0(None)


def follow() -> None:
    """Takes part in the trainings that rank 0 starts, until it lets go."""
    while (work := from_rank_0(None)) is not None:
        method, rows, job = work
        method.train(rows, job)


def from_rank_0(value: Any) -> Any:
    """Returns rank 0's value in every process."""
    box = [value]
    if world() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]
