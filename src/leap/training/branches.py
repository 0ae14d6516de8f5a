"""Trunk and branches: all steps of an episode trained in one pass.

In the `dialogue` renderer the prompts of an episode's steps share a growing prefix. Written out as separate rows they
repeat it: T steps cost on the order of T squared tokens. Here the prefix is written once, as the *trunk*, and each step
adds a *branch*: the end of its prompt that the trunk does not hold (the task once more, the candidates) and its answer.
A branch sees the trunk up to where it forks and itself, its positions go on from there, and the loss is on answers only,
so that loss and gradients are those of the separate rows (a test compares them).

Several episodes lie end to end in one sequence without padding. A registered attention function runs each episode by
itself, so cost is proportional to real work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

ATTENTION = "leap_branches"
IGNORED = -100


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training row in tokens: a prompt and the answer that bears the loss."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True, slots=True)
class PackedEpisode:
    """An episode's rows as trunk and branches.

    Attributes:
        ids: Tokens of the trunk, then of each branch.
        positions: Position of each token in its own row.
        labels: The answer's tokens in place, IGNORED elsewhere (a token is predicted by the one before it).
        limit: For each token, how many trunk tokens it may see.
        branch: 0 for the trunk, k for the k-th branch.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    limit: torch.Tensor
    branch: torch.Tensor

    @property
    def answer_tokens(self) -> int:
        return int((self.labels != IGNORED).sum())

    def mask(self) -> torch.Tensor:
        """Which token may see which: bool [n, n], True where the row's query may attend to the column's key."""
        index = torch.arange(len(self.ids))
        earlier = index[:, None] >= index[None, :]
        in_trunk = (self.branch == 0)[None, :] & (index[None, :] < self.limit[:, None])
        same = self.branch[:, None] == self.branch[None, :]
        return earlier & (in_trunk | same)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    n = min(len(a), len(b))
    for i in range(n):
        if a[i] != b[i]:
            return i
    return n


def pack(rows: Sequence[TokenRow]) -> PackedEpisode:
    """Packs rows whose prompts share prefixes; the longest prompt gives the trunk. Any renderer's rows are packed right,
    those that share nothing merely gain nothing."""
    longest = max(rows, key=lambda row: len(row.prompt)).prompt
    # Every branch keeps at least its prompt's last token: it predicts the answer's first.
    forks = [min(common_prefix(row.prompt, longest), len(row.prompt) - 1) for row in rows]
    trunk = longest[: max(forks)]
    ids, positions = list(trunk), list(range(len(trunk)))
    labels, limit, branch = [IGNORED] * len(trunk), list(range(1, len(trunk) + 1)), [0] * len(trunk)
    for k, (row, fork) in enumerate(zip(rows, forks, strict=True), start=1):
        own = row.prompt[fork:]
        ids += own + row.answer
        positions += range(fork, fork + len(own) + len(row.answer))
        labels += [IGNORED] * len(own) + row.answer
        limit += [fork] * (len(own) + len(row.answer))
        branch += [k] * (len(own) + len(row.answer))
    return PackedEpisode(*(torch.tensor(values) for values in (ids, positions, labels, limit, branch)))


@dataclass(slots=True)
class Layout:
    """Where each packed episode lies in the sequence, and its mask. Travels through the model's forward as a keyword."""

    spans: list[tuple[int, int]]
    masks: list[torch.Tensor]


def collate(episodes: Sequence[PackedEpisode], device: torch.device | str = "cpu") -> dict[str, Any]:
    """One sequence [1, n] of episodes end to end, as keyword arguments of a causal LM prepared by `enable`."""
    spans, start = [], 0
    for episode in episodes:
        spans.append((start, start + len(episode.ids)))
        start += len(episode.ids)
    return {
        "input_ids": torch.cat([e.ids for e in episodes])[None].to(device),
        "position_ids": torch.cat([e.positions for e in episodes])[None].to(device),
        "labels": torch.cat([e.labels for e in episodes])[None].to(device),
        "layout": Layout(spans, [e.mask().to(device) for e in episodes]),
    }


def branch_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of [1, heads, n, d] queries, each episode against itself through its own mask."""
    if layout is None:
        raise ValueError("the branch attention needs the keyword `layout`; see leap.training.branches.collate")
    grouped = key.shape[1] != query.shape[1]
    output = torch.empty_like(query)
    for (start, stop), mask in zip(layout.spans, layout.masks, strict=True):
        output[:, :, start:stop] = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            attn_mask=mask,
            scale=scaling,
            dropout_p=dropout,
            enable_gqa=grouped,
        )
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, branch_attention)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)
