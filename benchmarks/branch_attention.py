"""Attention of trunk and branches in bfloat16 on a CPU: by plain matrix products against PyTorch's fused one.

    OMP_NUM_THREADS=1 python benchmarks/branch_attention.py

SmolLM2-135M's heads (9, of 3 for keys and values, 64 wide), an episode of the quickstart's world (a trunk of 436 tokens, two
groups of branches of 128), milliseconds of CPU a layer, forward and with backward, best of five in turn.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from leap.training.branches import Layout
from leap.training.half import BlockAttention

SCALE = 64**-0.5
TRUNK, GROUP, SEEN = 436, 128, 300


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
    """As `leap.training.branches.branch_attention` has it where the type is not narrow."""
    attend: Any = partial(torch.nn.functional.scaled_dot_product_attention, scale=SCALE, enable_gqa=True)
    parts = [attend(*(x[:, :, :TRUNK] for x in (q, k, v)), is_causal=True)]
    for at, mask in zip((TRUNK, TRUNK + GROUP), layout.episodes[0][1], strict=True):
        own = slice(at, at + GROUP)
        keys, values = (torch.cat([x[:, :, :SEEN], x[:, :, own]], dim=2) for x in (k, v))
        parts.append(attend(q[:, :, own], keys, values, attn_mask=mask))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
    return BlockAttention.apply(q, k, v, layout.blocks, SCALE)


def milliseconds(attend: Callable[..., torch.Tensor], *, backward: bool) -> float:
    n = TRUNK + 2 * GROUP
    q, k, v = (torch.randn(1, heads, n, 64, dtype=torch.bfloat16, requires_grad=True) for heads in (9, 3, 3))
    seen = torch.zeros(GROUP, SEEN, dtype=torch.bfloat16)
    own = torch.full((GROUP, GROUP), -torch.inf, dtype=torch.bfloat16).triu_(1)
    layout = Layout([(TRUNK, [torch.cat([seen, own], dim=1)] * 2)])
    with torch.set_grad_enabled(backward):
        began = time.process_time()
        out = attend(q, k, v, layout)
        if backward:
            out.float().sum().backward()
        return 1000 * (time.process_time() - began)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{platform.platform()}, torch {torch.__version__}, CPU capability {torch.backends.cpu.get_cpu_capability()}")
    for backward in (False, True):
        turns = [[milliseconds(attend, backward=backward) for attend in (fused, products)] for _ in range(6)][1:]
        one, other = (min(column) for column in zip(*turns, strict=True))
        what = "forward and backward" if backward else "forward"
        print(f"{what}: fused {one:.1f} ms, products {other:.1f} ms, {one / other:.1f} times less")


if __name__ == "__main__":
    main()
