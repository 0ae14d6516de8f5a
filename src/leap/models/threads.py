"""How many threads a model computes with on a CPU."""

from __future__ import annotations

import os
from typing import Any

SMALL = 20_000_000
"""Weights. A model with fewer gains little from a second thread, and loses manyfold where another program needs the core: at
every operation each thread waits for the slowest (benchmarks/threads.log)."""


def settle_threads(model: Any) -> None:
    """Has a small model on a CPU compute in one thread, so that its numbers are also the same on every machine.

    Larger ones keep PyTorch's choice, a thread for each core. OMP_NUM_THREADS overrides both.

    Args:
        model: A PyTorch module, where it will compute.
    """
    import torch

    small = sum(weights.numel() for weights in model.parameters()) < SMALL
    if small and "OMP_NUM_THREADS" not in os.environ and next(model.parameters()).device.type == "cpu":
        torch.set_num_threads(1)
