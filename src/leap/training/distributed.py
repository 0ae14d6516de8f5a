"""Training in several processes: one leads, the others follow.

Rank 0 works on the run directory as a single process would. When it comes to a training, it hands the arguments to the
other ranks, who take part in the computation and write nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

_RELEASE = None


def world() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if world() > 1 else 0


def lead(job: dict[str, Any]) -> None:
    """Hands a training to the followers; called by rank 0 just before it starts the same."""
    if world() > 1:
        dist.broadcast_object_list([job], src=0)


def release() -> None:
    """Lets the followers go; called by rank 0 when there is nothing more to train."""
    if world() > 1:
        dist.broadcast_object_list([_RELEASE], src=0)


def follow(do: Callable[..., Any]) -> None:
    """Takes part in every training that rank 0 starts, until it lets go.

    Args:
        do: The training function; gets the keywords that rank 0 gave it.
    """
    while True:
        box: list[Any] = [_RELEASE]
        dist.broadcast_object_list(box, src=0)
        if box[0] is _RELEASE:
            return
        do(**box[0])


def barrier() -> None:
    """Waits until all processes are here."""
    if world() > 1:
        dist.barrier()
