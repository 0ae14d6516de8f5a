"""In which type a student computes on this machine where its recipe leaves that open: found by a short timing, once for a run."""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_WORTH = 1.15
"""bfloat16 rounds more: it must be so many times as fast."""
_WIDEST = 2048
"""Wider matrices tell nothing more, and take long."""


def bf16_pays(model: str | tuple[int, int]) -> bool:
    """Whether this machine computes in bfloat16 clearly faster than in float32. On a GPU: whether it can at all. On a CPU it is
    timed, in less than two seconds, with a batch of single tokens and with a text, by the fastest of several turns: another
    program's work beside it is not to decide.

    Args:
        model: A checkpoint, or how many numbers for each token a model has between its layers and within them.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    if isinstance(model, str):
        from leap.models.checkpoints import config_of

        config = config_of(model).get_text_config()
        model = config.hidden_size, getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    ratio = _times_faster(min(model[0], _WIDEST), min(model[1], _WIDEST))
    told = "bfloat16 is %.1f times as fast as float32 on this processor (matrices of %d by %d): %s used where types are open"
    log.warning(told, ratio, *model, "it is" if ratio > _WORTH else "float32 is")
    return ratio > _WORTH


@lru_cache
def _times_faster(width: int, inner: int) -> float:
    took = dict.fromkeys(_kinds(), 0.0)
    for tokens in (32, 256):
        for dtype, seconds in _fastest((width, inner), tokens).items():
            took[dtype] += seconds
    single, half = took.values()
    return single / half


def _kinds() -> tuple[torch.dtype, torch.dtype]:
    import torch

    return torch.float32, torch.bfloat16


def _fastest(shape: tuple[int, int], tokens: int) -> dict[torch.dtype, float]:
    """Seconds of a matrix product in both types, turn by turn: the processor's own, which run while this process does."""
    import torch

    factors = {
        dtype: (torch.ones(tokens, shape[0], dtype=dtype), torch.ones(*shape, dtype=dtype)) for dtype in _kinds()
    }
    best = dict.fromkeys(factors, float("inf"))
    end = time.perf_counter() + 0.3
    turns = 0
    while turns < 3 or time.perf_counter() < end:
        for dtype, (left, right) in factors.items():
            began = time.process_time()
            torch.matmul(left, right)
            best[dtype] = min(best[dtype], time.process_time() - began)
        turns += 1
    return best
