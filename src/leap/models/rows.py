"""Many conversations in one forward without padding: their tokens one behind the other, their keys and values row by row.

All that a decoder computes token by token, which is nearly everything, sees one row of tokens. Attention alone is told whose
each token is: what the conversations have in the cache is handed to the model's own attention as rows of a batch.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_STEP = 64
"""Rows of the cache grow by whole steps of so many slots."""
_FEW = 8
"""New tokens of a conversation up to which attention costs little beside reading the cache."""
_FEWEST = 2
"""Up to which plain products in a short type are no slower than fused attention (benchmarks/rollouts_llm.log)."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Whose the tokens of a forward are.

    Attributes:
        rows: The cache's row of each token.
        positions: Its position in its conversation, which is also its slot in the row.
        chosen: The cache's rows in the order in which attention sees them; None for all of them.
        places: Each token's place where all of the new tokens stand as a batch of rows, flattened.
        shape: That batch's rows and columns.
        slots: How many slots of each row are looked at.
    """

    rows: torch.Tensor
    positions: torch.Tensor
    chosen: torch.Tensor | None
    places: torch.Tensor
    shape: tuple[int, int]
    slots: int

    def padded(self, values: torch.Tensor) -> torch.Tensor:
        """Values [tokens, ...] as rows [rows, columns, ...], zeros where there is no token."""
        rows = values.new_zeros((self.shape[0] * self.shape[1], *values.shape[1:]))
        rows[self.places] = values
        return rows.view(*self.shape, *values.shape[1:])


_FEED: ContextVar[Feed | None] = ContextVar("feed", default=None)


@contextmanager
def feeding(feed: Feed) -> Iterator[None]:
    """While it lasts, a forward's tokens are those of a feed."""
    token = _FEED.set(feed)
    try:
        yield
    finally:
        _FEED.reset(token)


class RowCache:
    """Keys and values of conversations, each in a row of its own, where a token's slot is its position. Speaks the part of
    transformers' cache interface that attention layers use."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.rows, self.room = 0, 0

    @property
    def short(self) -> bool:
        """Whether they are in a type shorter than float32."""
        return bool(self.keys) and self.keys[0].dtype.itemsize < 4

    def reserve(self, rows: int, slots: int) -> None:
        """Makes room for so many rows of so many tokens; those behind them are dropped where it takes new memory."""
        if rows <= self.rows and slots <= self.room:
            return
        self.rows = rows
        if slots > self.room:
            self.room = -(-max(slots, self.room * 5 // 4) // _STEP) * _STEP
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                new = self._empty(old)
                new[: len(old), :, : old.shape[2]] = old[:rows]
                store[layer] = new

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        # Zeros: what is masked is multiplied by 0, which leaves what is no number. (They take no memory until written.)
        shape = (self.rows, like.shape[1], self.room, like.shape[3])
        if like.device.type != "cpu":
            return like.new_zeros(shape)
        # Pages of its own, which go back when it is dropped: where a cache grows on the heap, holes are left that the next,
        # larger one does not fit into (benchmarks/rollouts_llm.log).
        pages = mmap.mmap(-1, prod(shape) * like.element_size(), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return torch.frombuffer(pages, dtype=like.dtype).view(shape)

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the tokens of a feed [1, heads, tokens, d] into their rows; returns the rows [rows, heads, slots, d]."""
        feed = _FEED.get()
        assert feed is not None
        if layer_idx == len(self.keys):
            self.keys.append(self._empty(key))
            self.values.append(self._empty(value))
        heads = torch.arange(key.shape[1], device=key.device)
        at = (feed.rows[:, None] * key.shape[1] + heads) * self.room + feed.positions[:, None]
        both = []
        for store, new in ((self.keys[layer_idx], key), (self.values[layer_idx], value)):
            flat = store.view(-1, store.shape[-1])  # a tenth of the time that indexing rows and slots takes
            flat.index_copy_(0, at.flatten(), new[0].transpose(0, 1).reshape(-1, flat.shape[-1]))
            seen = store[:, :, : feed.slots]
            both.append(seen[: feed.shape[0]] if feed.chosen is None else seen.index_select(0, feed.chosen))
        return both[0], both[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Slots that are looked at; masks are made elsewhere."""
        feed = _FEED.get()
        return feed.slots if feed is not None else 0

    @torch.inference_mode()
    def copy(self, source: int, target: int, slots: int) -> None:
        """Copies a row's first slots to another row."""
        for store in (*self.keys, *self.values):
            store[target, :, :slots] = store[source, :, :slots]


def feed_of(
    rows: Sequence[int], before: Sequence[int], new: Sequence[int], used: int | None, cache: RowCache, device: torch.device
) -> Feed:
    """Whose tokens are fed.

    Args:
        rows: The cache's row of each conversation that is fed.
        before: How many of its tokens are cached.
        new: How many follow.
        used: How many rows of the cache are in use; None if attention can see those that are fed alone.
        cache: Where their keys and values are.
        device: Where the cache is.
    """
    # A view of all rows costs attention over those that are not fed; a choice among them costs a copy.
    columns = max(new)
    whole = used is not None and len(rows) * (2 if columns <= _FEW else 1) >= used
    order = list(rows) if whole else list(range(len(rows)))
    of = torch.repeat_interleave(
        torch.tensor([[r, o, b] for r, o, b in zip(rows, order, before, strict=True)]), torch.tensor(new), 0
    )
    at = torch.cat([torch.arange(n) for n in new])
    return Feed(
        rows=of[:, 0].to(device),
        positions=(of[:, 2] + at).to(device),
        chosen=None if whole else torch.tensor(rows, device=device),
        places=(of[:, 1] * columns + at).to(device),
        shape=(used if used is not None and whole else len(rows), columns),
        # Of whole rows products make no copy.
        slots=cache.room if columns <= _FEWEST and cache.short else max(b + n for b, n in zip(before, new, strict=True)),
    )


def attend_by_rows(network: PreTrainedModel) -> bool:
    """Has a network's attention see the tokens of a feed as rows; any other forward is as it was.

    Returns:
        Whether it can. Where it cannot (its attention is not transformers' interface), conversations are fed one at a time.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    own = str(network.config._attn_implementation)
    name = f"leap_{own}"
    if not network._can_set_attn_implementation():
        return False
    AttentionInterface.register(name, _by_rows(own))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[own])
    network.set_attn_implementation(name)
    return network.config._attn_implementation == name


def _by_rows(own: str) -> Callable[..., tuple[torch.Tensor, object]]:
    def attend(
        module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **more: Any
    ) -> tuple[torch.Tensor, object]:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(own, eager)
        feed = _FEED.get()
        if feed is None:
            return attention(module, query, key, value, mask, **more)
        rows = feed.padded(query[0].transpose(0, 1)).transpose(1, 2)
        if own == "sdpa" and query.device.type == "cpu" and key.shape[1] < query.shape[1]:
            output, weights = _by_groups(rows, key, value, mask, more.get("scaling")), None
        else:
            output, weights = attention(module, rows, key, value, mask, **more)
        return output.flatten(0, 1)[feed.places][None], weights

    return attend


def _by_groups(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """Attention of [rows, heads, columns, d] queries to fewer heads of keys and values, as [rows, columns, heads, d].

    Queries that share a head stand one behind the other before it: one by one, a CPU would read the cache again for each. Single
    queries in a short type go by plain products, as transformers' own eager attention does: fused attention may take several
    times as long (benchmarks/rollouts_llm.log).
    """
    rows, heads, columns, d = query.shape
    shared = heads // key.shape[1]
    together = query.reshape(rows, key.shape[1], shared * columns, d)
    mask = mask.repeat(1, 1, shared, 1)
    if columns <= _FEWEST and query.dtype.itemsize < 4:
        scores = (together @ key.transpose(2, 3)).float().mul_(scale or d**-0.5).add_(mask)
        output = scores.softmax(-1).to(query.dtype) @ value
    else:
        output = torch.nn.functional.scaled_dot_product_attention(together, key, value, attn_mask=mask, scale=scale)
    return output.view(rows, heads, columns, -1).transpose(1, 2)
