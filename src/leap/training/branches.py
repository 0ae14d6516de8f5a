"""Trunk and branches: all steps of an episode trained in one pass.

In the `dialogue` renderer the prompts of an episode's steps share a growing prefix. Written out as separate rows they
repeat it: T steps cost on the order of T squared tokens. Here the prefix is written once, as the *trunk*, and each step
adds a *branch*: the end of its prompt that the trunk does not hold (the task once more, the candidates) and its answer.
A branch sees the trunk up to where it forks and itself, its positions go on from there, and the loss is on answers only,
so that loss and gradients are those of the separate rows (a test compares them).

Several episodes lie end to end in one sequence without padding. A registered attention function runs each episode by
itself, so cost is proportional to real work. In half precision on a CPU it is leap's own (`leap.training.half`): PyTorch's takes
1.8 times as long there (benchmarks/branch_attention.log).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any, TypedDict, TypeVar

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from leap.datasets import Row
from leap.errors import PrerequisiteError
from leap.models.attention import check_kinds, layer_kinds, reaches
from leap.models.chat import ChatTokens
from leap.training.half import Block, BlockAttention, is_half_on_cpu

ATTENTION = "leap_branches"
IGNORED = -100


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training row in tokens: a prompt and the answer that bears the loss."""

    prompt: list[int]
    answer: list[int]


R = TypeVar("R", bound=TokenRow)
E = TypeVar("E", bound="PackedEpisode")


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

    def sees(self, queries: slice, keys: torch.Tensor) -> torch.Tensor:
        """Which of some tokens may attend to which: bool [queries, keys], both counted from the episode's first token."""
        earlier = torch.arange(len(self.ids))[queries, None] >= keys
        in_trunk = (self.branch[keys] == 0) & (keys < self.limit[queries, None])
        return earlier & (in_trunk | (self.branch[queries, None] == self.branch[keys]))


def encode_row(row: Row, chat: ChatTokens) -> TokenRow:
    """A row's prompt and answer as the model sees and gives them at rollout."""
    answer = chat.completion(row.completion[0], row.prompt, row.tools, row.thinking)
    return TokenRow(chat.prompt(row.prompt, row.tools, row.thinking), answer)


def encode_rows(rows: Iterable[Row], chat: ChatTokens, *, max_tokens: int) -> tuple[list[TokenRow], int]:
    """All rows that are not too long, and how many were."""
    encoded = [encode_row(row, chat) for row in rows]
    kept = [row for row in encoded if len(row.prompt) + len(row.answer) <= max_tokens]
    return kept, len(encoded) - len(kept)


def encode_episodes(rows: Iterable[Row], chat: ChatTokens, *, max_tokens: int) -> tuple[list[list[TokenRow]], int]:
    """Rows in tokens, grouped by episode; and how many were too long. Rows of one episode stand together."""
    groups = [
        encode_rows(group, chat, max_tokens=max_tokens)
        for _, group in groupby(rows, key=lambda row: (row.source, row.episode))
    ]
    return [kept for kept, _ in groups if kept], sum(too_long for _, too_long in groups)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


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


def packed(rows: Sequence[TokenRow], most: int | None = None) -> list[PackedEpisode]:
    """Packs an episode's rows; in several parts, each with the trunk that its rows need, where the whole has more tokens than
    that."""
    return [pack(part) for part in parted(rows, most)]


def parted(rows: Sequence[R], most: int | None) -> list[Sequence[R]]:
    """An episode's rows in parts that, packed, have at most so many tokens. A row that is longer by itself is a part."""
    if most is None or len(rows) == 1 or len(pack(rows).ids) <= most:
        return [rows]
    fitting = max(1, bisect_right(range(1, len(rows)), most, key=lambda n: len(pack(rows[:n]).ids)))
    return [rows[:fitting], *parted(rows[fitting:], most)]


@dataclass(frozen=True)
class Layout:
    """Where each packed episode lies in the sequence. Travels through the model's forward as a keyword.

    Attributes:
        episodes: In the sequence's order, the length of each trunk, and a mask for each group of neighbouring branches behind
            it: float [queries, first trunk tokens + queries], 0 where seen and -inf elsewhere.
    """

    episodes: list[tuple[int, list[torch.Tensor]]]

    def placed(self, device: torch.device, dtype: torch.dtype) -> Layout:
        """The same with its masks on a device and in the type of the queries."""
        return Layout([(trunk, [mask.to(device, dtype) for mask in masks]) for trunk, masks in self.episodes])

    def lengths(self) -> list[int]:
        """Tokens of each episode."""
        return [trunk + sum(map(len, masks)) for trunk, masks in self.episodes]

    @cached_property
    def blocks(self) -> list[Block]:
        """All that is attended, some queries at a time: trunks in pieces and branches in groups."""
        blocks, first = [], 0
        for (trunk, masks), length in zip(self.episodes, self.lengths(), strict=True):
            sizes = [min(_GROUP_TOKENS, trunk - at) for at in range(0, trunk, _GROUP_TOKENS)]
            ends = accumulate(sizes)
            causal = [torch.full((n, end), -torch.inf).triu_(end - n + 1) for n, end in zip(sizes, ends, strict=True)]
            start = first
            for mask in (*causal, *masks):
                shared = slice(first, first + mask.shape[1] - len(mask))
                blocks.append(Block(shared, slice(start, start + len(mask)), mask.to(masks[0])))
                start += len(mask)
            first += length
        return blocks


_GROUP_TOKENS = 128
"""Branches are attended in groups of about so many tokens: one call each would cost more in calls than it saves."""


def _grouped(episode: PackedEpisode) -> tuple[int, list[torch.Tensor]]:
    """An episode's part of a layout."""
    branch = episode.branch.tolist()
    start = trunk = branch.index(1)
    ends = [i for i in range(trunk + 1, len(branch)) if branch[i] != branch[i - 1]] + [len(branch)]
    masks = []
    for end in ends:
        if end - start >= _GROUP_TOKENS or end == ends[-1]:
            width = int(episode.limit[start:end].max())
            seen = episode.sees(slice(start, end), torch.cat([torch.arange(width), torch.arange(start, end)]))
            masks.append(torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf))
            start = end
    return trunk, masks


def _shared_out(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Numbers of what is so long, in order, in parts of at most so much in all, or of one."""
    parts: list[list[int]] = []
    room = 0
    for number, length in enumerate(lengths):
        if not parts or length > room:
            parts.append([])
            room = budget
        parts[-1].append(number)
        room -= length
    return parts


def filled(episodes: Sequence[E], budget: int) -> list[list[E]]:
    """Returns episodes in batches of at most so many tokens, or of one episode."""
    return [[episodes[i] for i in part] for part in _shared_out([len(one.ids) for one in episodes], budget)]


class Batch(TypedDict):
    """Keyword arguments of a causal LM that attends by ATTENTION; tensors are [1, n]."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    layout: Layout


def collate(episodes: Sequence[PackedEpisode]) -> Batch:
    """One sequence of episodes end to end."""
    return {
        "input_ids": torch.cat([e.ids for e in episodes])[None],
        "position_ids": torch.cat([e.positions for e in episodes])[None],
        "labels": torch.cat([e.labels for e in episodes])[None],
        "layout": Layout([_grouped(episode) for episode in episodes]),
    }


def on(batch: Batch, model: Any) -> Batch:
    """A batch on a model's device."""
    moved: Any = {name: one.to(model.device) if isinstance(one, torch.Tensor) else one for name, one in batch.items()}
    return moved


def cut(batch: Batch, most: int) -> Iterator[Batch]:
    """A batch in pieces of whole episodes, each of at most so many tokens or of one episode."""
    episodes, lengths = batch["layout"].episodes, batch["layout"].lengths()
    parts = _shared_out(lengths, most)
    sizes = [sum(lengths[i] for i in part) for part in parts]
    ids, positions, labels = (batch[name].split(sizes, dim=1) for name in ("input_ids", "position_ids", "labels"))
    for i, part in enumerate(parts):
        layout = Layout([episodes[k] for k in part])
        yield {"input_ids": ids[i], "position_ids": positions[i], "labels": labels[i], "layout": layout}


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
    **more: object,
) -> tuple[torch.Tensor, None]:
    """Attention of [1, heads, n, d] queries: each trunk causally, each group of branches against its trunk and itself. The
    arguments are those of transformers' attention functions."""
    if layout is None:
        raise ValueError("the branch attention needs the keyword `layout`; see leap.training.branches.collate")
    if any(more.get(name) is not None for name in ("softcap", "s_aux")):
        raise ValueError("the branch attention knows neither soft caps nor sinks")
    if is_half_on_cpu(query) and not dropout:
        return BlockAttention.apply(query, key, value, layout.blocks, scaling or query.shape[-1] ** -0.5), None
    grouped = key.shape[1] != query.shape[1]

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, dropout_p=dropout, enable_gqa=grouped
        )

    # Cut once, by `split`: a slice's gradient would be a tensor of zeros as long as the sequence, for each slice.
    sizes = [size for trunk, masks in layout.episodes for size in (trunk, *map(len, masks))]
    pieces = zip(*(x.split(sizes, dim=2) for x in (query, key, value)), strict=True)
    parts = []
    for trunk, masks in layout.episodes:
        q, k, v = next(pieces)
        if trunk:
            parts.append(attend(q, k, v, None))
        for mask in masks:
            q, *own = next(pieces)
            width = mask.shape[1] - len(mask)
            keys, values = (torch.cat([x[:, :, :width], y], dim=2) for x, y in zip((k, v), own, strict=True))
            parts.append(attend(q, keys, values, mask))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def answer_nats(model: PreTrainedModel, episodes: Sequence[PackedEpisode]) -> torch.Tensor:
    """Negative log-likelihood of each answer's tokens in turn; without the branch attention, of one row alone."""
    inputs = collate(episodes)
    labels, layout = inputs["labels"][0].to(model.device), inputs["layout"].placed(model.device, model.dtype)
    before = (labels[1:] != IGNORED).nonzero().squeeze(1)
    logits = model(
        input_ids=inputs["input_ids"].to(model.device),
        position_ids=inputs["position_ids"].to(model.device),
        logits_to_keep=before,
        use_cache=False,
        **({"layout": layout} if model.config._attn_implementation == ATTENTION else {}),
    ).logits[0]
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    return torch.nn.functional.cross_entropy(wide, labels[before + 1], reduction="none")


@contextmanager
def attending_by_branches(model: PreTrainedModel, rows: Sequence[TokenRow]) -> Iterator[float]:
    """While it lasts, the model attends by trunk and branches; tells how many nats a token that changes its numbers.

    Args:
        model: The model, whose own way of attending comes back in the end.
        rows: Rows of one episode, the longest of which is scored both ways; together with the others it stands last, where
            a model that does not know about branches would see the others too.
    """
    own = model.config._attn_implementation
    longest, *others = sorted(rows, key=lambda row: len(row.prompt), reverse=True)
    alone = answer_nats(model, [pack([longest])])
    try:
        try:
            model.set_attn_implementation(ATTENTION)
            together = answer_nats(model, [pack([*others, longest])])[-len(longest.answer) :]
            apart = float((together - alone).abs().mean())
        except Exception:  # an architecture may fail in any way when it is used otherwise than it knows
            apart = math.inf
        yield apart
    finally:
        model.set_attn_implementation(own or "eager")


def tolerance(model: PreTrainedModel) -> float:
    """Nats a token that two ways of computing the same may lie apart."""
    return 0.1 if model.dtype.itemsize < 4 else 1e-3


@torch.no_grad()
def check_branches(
    model: PreTrainedModel, groups: Sequence[Sequence[TokenRow]], advice: str = "; set training.branches: false"
) -> None:
    """Compares a model's numbers by trunk and branches with those of a separate row, on a short episode; a layer that sees
    no further than so many tokens must see the whole of every row.

    Raises:
        PrerequisiteError: They differ: the model would be trained on another attention than it plays with.
    """
    try:
        check_kinds(model.config, "this student")
    except PrerequisiteError as error:
        raise PrerequisiteError(f"training.branches does not fit: {error}") from error
    longest = max(len(row.prompt) + len(row.answer) for rows in groups for row in rows)
    for kind, reach in reaches(model.config).items():
        if reach < longest:
            layer = layer_kinds(model.config).index(kind)
            raise PrerequisiteError(
                f"training.branches: layer {layer} of this student ({kind}) sees {reach} tokens, and a row has "
                f"{longest}{advice}."
            )
    training = model.training
    shortest = min(groups, key=lambda rows: (len(rows) < 2, max(len(row.prompt) for row in rows)))
    try:
        with attending_by_branches(model.eval(), shortest) as apart:
            if not apart <= tolerance(model):
                off = f"{apart:.3g} nats a token off" if math.isfinite(apart) else "not"
                raise PrerequisiteError(
                    f"training.branches: by branches the numbers of this student ({type(model).__name__}) are {off} those of "
                    f"separate rows{advice}."
                )
    finally:
        model.train(training)


AttentionInterface.register(ATTENTION, branch_attention)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)
