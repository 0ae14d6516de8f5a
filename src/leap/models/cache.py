"""The key-value cache of models in this process."""

from __future__ import annotations

from typing import Any

import torch


class SlotCache:
    """Keys and values of a batch in preallocated buffers, written in place; speaks the part of transformers' cache
    interface that attention layers use. Rows are independent: a mask says which slots of a row are valid."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.length = 0

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes [rows, heads, q, d] behind what is there; returns all of it."""
        stop = self.length + key.shape[2]
        if layer_idx == len(self.keys):
            self.keys.append(key.new_empty((*key.shape[:2], 64, key.shape[3])))
            self.values.append(value.new_empty((*value.shape[:2], 64, value.shape[3])))
        for store, new in ((self.keys, key), (self.values, value)):
            if store[layer_idx].shape[2] < stop:
                store[layer_idx] = _grown(store[layer_idx], self.length, stop)
            store[layer_idx][:, :, self.length : stop] = new
        return self.keys[layer_idx][:, :, :stop], self.values[layer_idx][:, :, :stop]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Slots in use."""
        return self.length

    def gather(self, rows: torch.Tensor, slots: torch.Tensor, room: int) -> None:
        """Keeps, for each new row, the given slots [rows, n] of an old row, with room for more behind them."""
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                index = slots[:, None, :, None].expand(-1, old.shape[1], -1, old.shape[3])
                new = old.new_empty((len(rows), old.shape[1], slots.shape[1] + room, old.shape[3]))
                torch.gather(old.index_select(0, rows), 2, index, out=new[:, :, : slots.shape[1]])
                store[layer] = new
        self.length = slots.shape[1]


def _grown(old: torch.Tensor, used: int, needed: int) -> torch.Tensor:
    new = old.new_empty((*old.shape[:2], max(needed, 2 * old.shape[2]), old.shape[3]))
    new[:, :, :used] = old[:, :, :used]
    return new
