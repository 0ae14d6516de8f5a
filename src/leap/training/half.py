"""Training in half precision on a CPU, where the products of matrices are fast and each pass over memory beside them counts.

What PyTorch and PEFT compute in several passes is done in fewer here, with the same results up to rounding: attention of trunk
and branches by blocks, the sum of a layer's output and its adapter's, and the loss without the vocabulary in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


def is_half_on_cpu(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies on a CPU in a type of two bytes."""
    return tensor.device.type == "cpu" and tensor.is_floating_point() and tensor.dtype.itemsize < 4


# ---- attention -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    """Queries that are attended together: neighbours in the sequence, the last of the keys that they see.

    Attributes:
        shared: The first keys, a slice of the sequence, such as a trunk; empty where all keys are the queries' own.
        own: The places of the queries.
        mask: float [queries, shared + queries], 0 where seen and -inf elsewhere.
    """

    shared: slice
    own: slice
    mask: torch.Tensor

    def keys(self, tensor: torch.Tensor) -> torch.Tensor:
        """The block's part of [heads, n, d] keys or values; a view where it is of one piece."""
        if self.shared.stop == self.own.start:
            return tensor[:, self.shared.start : self.own.stop]
        return torch.cat([tensor[:, self.shared], tensor[:, self.own]], dim=1)

    def add(self, tensor: torch.Tensor, values: torch.Tensor) -> None:
        """Adds values of the block's keys to a tensor of all."""
        width = self.shared.stop - self.shared.start
        tensor[:, self.shared] += values[:, :width]
        tensor[:, self.own] += values[:, width:]


class BlockAttention(torch.autograd.Function):
    """Attention block by block, by plain products of matrices. Only queries, keys and values are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: Sequence[Block], scale: float
    ) -> torch.Tensor:
        """Takes [1, heads, n, d], with fewer heads of keys and values, and returns [1, n, heads, d]."""
        ctx.save_for_backward(query, key, value)
        ctx.blocks, ctx.scale = blocks, scale
        out = query.new_empty(query.shape[2], *query.shape[1::2])
        shares = _by_keys(out.transpose(0, 1), key)
        for block in blocks:
            _, _, weights = _attended(query, key, block, scale)
            shares[:, :, block.own] = torch.bmm(weights, block.keys(value[0])).view_as(shares[:, :, block.own])
        return out[None]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        d_query = torch.empty_like(query)
        d_key, d_value = (torch.zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32)) for x in (key, value))
        d_shares, shares = _by_keys(d_query[0], key), _by_keys(grad_outputs[0][0].transpose(0, 1), key)
        for block in ctx.blocks:
            q, k, weights = _attended(query, key, block, ctx.scale)
            d_out = shares[:, :, block.own].flatten(1, 2)
            block.add(d_value[0], torch.bmm(weights.transpose(1, 2), d_out))
            d_weights = torch.bmm(d_out, block.keys(value[0]).transpose(1, 2))
            d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, q.dtype).mul_(ctx.scale)
            block.add(d_key[0], torch.bmm(d_scores.transpose(1, 2), q))
            d_shares[:, :, block.own] = torch.bmm(d_scores, k).view_as(d_shares[:, :, block.own])
        return d_query, d_key.to(key.dtype), d_value.to(value.dtype), None, None


def _by_keys(heads: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """[heads, n, d] as [heads of keys, heads that share one, n, d]."""
    return heads.unflatten(0, (key.shape[1], -1))


def _attended(
    query: torch.Tensor, key: torch.Tensor, block: Block, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of a block: queries, those of heads that share keys one after the other; keys; and the attention's weights."""
    q, k = _by_keys(query[0], key)[:, :, block.own].flatten(1, 2), block.keys(key[0])
    hidden = block.mask.to(q.dtype).repeat(q.shape[1] // len(block.mask), 1)
    return q, k, torch.baddbmm(hidden, q, k.transpose(1, 2), alpha=scale).softmax(-1)


# ---- adapters --------------------------------------------------------------------------------------------------------


class _Adapted(torch.autograd.Function):
    """A layer's output and its adapter's, added where the first one lies."""

    @staticmethod
    def forward(
        ctx: Any, output: torch.Tensor, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Takes the output [..., out], the input [..., in], `down` [rank, in] and `up` [out, rank]."""
        narrow_down, narrow_up = down.to(output.dtype), up.to(output.dtype)
        flat = x.flatten(0, -2)
        inner = flat @ narrow_down.T
        output.flatten(0, -2).addmm_(inner, narrow_up.T, alpha=scale)
        ctx.save_for_backward(x, inner, narrow_down, narrow_up)
        ctx.scale, ctx.dtype = scale, down.dtype
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, inner, down, up = ctx.saved_tensors
        d_output = grad_outputs[0].flatten(0, -2)
        d_inner = (d_output @ up).mul_(ctx.scale)
        d_x = (d_inner @ down).view_as(x) if ctx.needs_input_grad[1] else None
        d_up = (d_output.T @ inner).mul_(ctx.scale)
        return grad_outputs[0], d_x, (d_inner.T @ x.flatten(0, -2)).to(ctx.dtype), d_up.to(ctx.dtype), None


@contextmanager
def added_in_place(model: torch.nn.Module) -> Iterator[None]:
    """While it lasts, a model's LoRA adapters are added to what their layers give in one pass, where they are plain ones on
    layers of half precision on a CPU. In PEFT's own way the adapter's output, its multiple and the sum are three tensors."""
    from peft.tuners.lora.layer import Linear, LoraVariant

    class InPlace(LoraVariant):
        @staticmethod
        def forward(module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            down, up = (part[active_adapter].weight for part in (module.lora_A, module.lora_B))
            return _Adapted.apply(result, x.to(result.dtype), down, up, module.scaling[active_adapter])

    changed: list[tuple[Linear, str]] = []
    for layer in model.modules():
        if not isinstance(layer, Linear) or type(layer.base_layer) is not torch.nn.Linear:
            continue
        for name, drop in layer.lora_dropout.items():
            plain = isinstance(drop, torch.nn.Identity) and layer.lora_B[name].bias is None
            if plain and name not in layer.lora_variant and is_half_on_cpu(layer.base_layer.weight):
                layer.lora_variant[name] = InPlace()
                changed.append((layer, name))
    try:
        yield
    finally:
        for layer, name in changed:
            del layer.lora_variant[name]


# ---- loss ------------------------------------------------------------------------------------------------------------

_LOSS_ROWS = 64
"""Tokens whose probabilities over the vocabulary are in memory in float32 at once."""


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        of_all = torch.cat([part.float().logsumexp(-1) for part in logits.split(_LOSS_ROWS)])
        ctx.save_for_backward(logits, labels, of_all)
        return (of_all - logits.gather(1, labels[:, None])[:, 0].float()).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, labels, of_all = ctx.saved_tensors
        d_logits = torch.empty_like(logits)
        parts = zip(*(one.split(_LOSS_ROWS) for one in (logits, labels, of_all, d_logits)), strict=True)
        for some, wanted, total, d_some in parts:
            shares = some.float().sub_(total[:, None]).exp_()
            shares[torch.arange(len(wanted)), wanted] -= 1
            d_some.copy_(shares.mul_(grad_outputs[0]))
        return d_logits, None


def summed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood in float32 of [n] labels under [n, vocabulary] logits, in all."""
    if is_half_on_cpu(logits) and len(labels):
        return _SummedCrossEntropy.apply(logits, labels)
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
