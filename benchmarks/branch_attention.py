"""Attention of trunk and branches in bfloat16 on a CPU: by plain matrix products against PyTorch's fused one.

    OMP_NUM_THREADS=1 python benchmarks/branch_attention.py

SmolLM2-135M's heads (9, of 3 for keys and values, 64 wide), an episode of the quickstart's world (a trunk of 436 tokens, two
groups of branches of 128), milliseconds of CPU a layer, forward and with backward, best of five in turn.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import torch

from leap.training.branches import _products

SCALE = 64**-0.5


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=None if mask is None else mask.to(q.dtype),
        is_causal=mask is None,
        scale=SCALE,
        enable_gqa=True,
    )


def products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return _products(q, k, v, mask, SCALE)


def milliseconds(attend: Callable[..., torch.Tensor], *, backward: bool) -> float:
    q, branches = (torch.randn(1, 9, n, 64, dtype=torch.bfloat16, requires_grad=True) for n in (436, 128))
    k, v = (torch.randn(1, 3, 436, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    mask = torch.zeros(128, 436)
    mask[:, 300:400] = -torch.inf
    with torch.set_grad_enabled(backward):
        began = time.process_time()
        outs = [attend(q, k, v, None), attend(branches, k, v, mask), attend(branches, k, v, mask)]
        if backward:
            torch.stack([out.float().sum() for out in outs]).sum().backward()
        return 1000 * (time.process_time() - began)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{platform.platform()}, torch {torch.__version__}, CPU capability {torch.backends.cpu.get_cpu_capability()}")
    for backward in (False, True):
        turns = [(milliseconds(fused, backward=backward), milliseconds(products, backward=backward)) for _ in range(6)][
            1:
        ]
        one, other = (min(column) for column in zip(*turns, strict=True))
        what = "forward and backward" if backward else "forward"
        print(f"{what}: fused {one:.1f} ms, products {other:.1f} ms, {one / other:.1f} times less")


if __name__ == "__main__":
    main()
