"""How likely a student finds corrections: the negative log-likelihood of each answer under a checkpoint.

Rows are scored in batches. Where the steps of an episode share their prompts' beginning (dialogue renderer) and the model
attends to everything, an episode is one pass of trunk and branches; otherwise rows of similar length are padded together,
which alone would take three times as long (62 steps of three episodes: 6.0 s of CPU for 2.0). Both give what a row gives by
itself (tests compare them).
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from leap.core.record import Record
from leap.datasets import Row
from leap.envs.answer import ACTION_MARKER
from leap_lab.measures.figures import Figure, mean
from leap_lab.measures.records import Likelihood, LossSummary

if TYPE_CHECKING:
    import torch

    from leap.models.chat import ChatTokens
    from leap.training.branches import TokenRow

T = TypeVar("T")
_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""
WORTH_PACKING = 0.7
"""Trunk and branches are used where they need less than this share of the separate rows' tokens."""


class AnswerLoss(Record):
    """One answer under one student.

    Attributes:
        episode, t: Which step it corrects.
        nats: Negative log-likelihood of the whole answer, the end of the turn included.
        tokens: The answer's length in tokens.
        action_nats: The part of the action and the end of the turn, given the reason before them.
        action_tokens: Their tokens.
    """

    episode: str
    t: int
    nats: float
    tokens: int
    action_nats: float
    action_tokens: int


class Losses(Record):
    """Answers under one student, in the order of the rows.

    Attributes:
        answers: Those that could be scored.
        left_out: Rows that are too long for the student.
    """

    answers: tuple[AnswerLoss, ...]
    left_out: int = 0


def nll(
    checkpoint: Path | str,
    rows: Sequence[Row],
    *,
    batch_tokens: int = 8192,
    max_tokens: int | None = None,
    packed: bool | None = None,
    dtype: str = "auto",
    device: str | None = None,
    on_rows: Progress = lambda done, total: None,
) -> Losses:
    """Negative log-likelihoods, in nats, of the rows' completions given their prompts, under a checkpoint.

    Args:
        checkpoint: Directory or hub name; a LoRA adapter is put on its base.
        rows: Rows in any order; the prompts of rollouts and corrections as answers.
        batch_tokens: Tokens computed at once, padding included; one episode or row may be more by itself.
        max_tokens: Longest row; longer ones are left out and counted. The model's own limit by default.
        packed: Score an episode in one pass of trunk and branches. By default where it pays and the model gives the same
            numbers that way.
        dtype: The weights' type; `auto` is the checkpoint's own.
        device: Where to compute; the fastest device by default.
        on_rows: Called after each batch.

    Raises:
        PrerequisiteError: There is no usable model, or its tokenizer has no chat template.
    """
    import torch

    from leap.models.chat import ChatTokens
    from leap.models.hf import load_causal_lm

    if not rows:
        return Losses(answers=())
    model, tokenizer = load_causal_lm(str(checkpoint), dtype=dtype, device=device)
    try:
        return answer_losses(
            model,
            ChatTokens(tokenizer),
            rows,
            batch_tokens=batch_tokens,
            max_tokens=max_tokens,
            packed=packed,
            on_rows=on_rows,
        )
    finally:
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def answer_losses(
    model: Any,
    chat: ChatTokens,
    rows: Sequence[Row],
    *,
    batch_tokens: int = 8192,
    max_tokens: int | None = None,
    packed: bool | None = None,
    on_rows: Progress = lambda done, total: None,
) -> Losses:
    """Returns what `nll` returns, for a model that is loaded already."""
    import torch

    from leap.training.rows import encode_row

    limit = max_tokens or getattr(model.config, "max_position_embeddings", None) or math.inf
    encoded = [encode_row(row, chat) for row in rows]
    fits = [i for i, row in enumerate(encoded) if len(row.prompt) + len(row.answer) <= limit]
    model.eval()
    scored: dict[int, list[float]] = {}
    with torch.inference_mode():
        for part in _scored(model, rows, encoded, fits, batch_tokens, packed):
            scored.update(part)
            on_rows(len(scored), len(fits))
    answers = []
    for i in fits:
        losses, start = scored[i], _action_start(rows[i], encoded[i], chat)
        answers.append(
            AnswerLoss(
                episode=rows[i].episode,
                t=rows[i].t,
                nats=math.fsum(losses),
                tokens=len(losses),
                action_nats=math.fsum(losses[start:]),
                action_tokens=len(losses) - start,
            )
        )
    return Losses(answers=tuple(answers), left_out=len(rows) - len(fits))


def _action_start(row: Row, encoded: TokenRow, chat: ChatTokens) -> int:
    """Returns the first token of the action: behind the tokens that the reason and the marker have to themselves."""
    from leap.training.branches import common_prefix

    if row.completion[0].get("tool_calls"):  # the call stands behind the reason, in the template's own form
        return common_prefix(chat.text(row.completion[0]["content"]), encoded.answer)
    head, marker, _ = row.completion[0]["content"].rpartition(ACTION_MARKER)
    return common_prefix(chat.text(head + marker), encoded.answer) if marker else 0


def _scored(
    model: Any,
    rows: Sequence[Row],
    encoded: Sequence[TokenRow],
    fits: Sequence[int],
    batch_tokens: int,
    packed: bool | None,
) -> Iterator[dict[int, list[float]]]:
    """Losses of each answer's tokens, by row, a batch at a time."""
    episodes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i in fits:
        episodes[rows[i].source, rows[i].episode].append(i)
    if packed or (packed is None and _packs_well(model, encoded, list(episodes.values()))):
        own = model.config._attn_implementation
        try:
            yield from _packed(model, encoded, list(episodes.values()), batch_tokens)
        finally:
            model.set_attn_implementation(own)
    else:
        yield from _padded(model, encoded, fits, batch_tokens)


def _packs_well(model: Any, encoded: Sequence[TokenRow], episodes: Sequence[Sequence[int]]) -> bool:
    """Whether packing saves enough, and gives the numbers of separate rows: it knows nothing of sliding windows or other
    ways of attending, so the longest row is scored both ways."""
    from leap.training.branches import pack

    if not episodes:
        return False
    size = [sum(len(encoded[i].prompt) + len(encoded[i].answer) for i in group) for group in episodes]
    longest = episodes[size.index(max(size))]
    if len(pack([encoded[i] for i in longest]).ids) > WORTH_PACKING * max(size):
        return False
    last = max(longest, key=lambda i: len(encoded[i].prompt))
    own = model.config._attn_implementation
    alone = next(_padded(model, encoded, [last], 1))[last]
    try:
        together = next(_packed(model, encoded, [longest], 1))[last]
    except (ValueError, TypeError, NotImplementedError) as error:
        _log.info("this model's attention cannot be replaced (%s); its rows are scored one by one", error)
        return False
    finally:
        model.set_attn_implementation(own)
    apart = abs(sum(alone) - sum(together)) / len(alone)
    if apart > (0.1 if model.dtype.itemsize < 4 else 1e-3):
        _log.info("trunk and branches give other numbers for this model (%.2g nats); rows are scored one by one", apart)
        return False
    return True


def _packed(
    model: Any, encoded: Sequence[TokenRow], episodes: Sequence[Sequence[int]], batch_tokens: int
) -> Iterator[dict[int, list[float]]]:
    """Episodes as trunk and branches, several to a batch."""
    from leap.training.branches import ATTENTION, IGNORED, collate, pack

    model.set_attn_implementation(ATTENTION)
    packs = ((pack([encoded[i] for i in group]), group) for group in episodes)
    for batch in _batches(packs, batch_tokens, size=lambda one: len(one[0].ids)):
        inputs = collate([one for one, _ in batch])
        labels, layout = inputs["labels"][0].to(model.device), inputs["layout"].placed(model.device, model.dtype)
        before = (labels[1:] != IGNORED).nonzero().squeeze(1)
        logits = model(
            input_ids=inputs["input_ids"].to(model.device),
            position_ids=inputs["position_ids"].to(model.device),
            layout=layout,
            logits_to_keep=before,
            use_cache=False,
        ).logits[0]
        losses = iter(_cross_entropy(logits, labels[before + 1]).tolist())  # answers lie in the order of their rows
        yield {i: list(islice(losses, len(encoded[i].answer))) for _, group in batch for i in group}


def _batches(items: Iterable[T], room: int, *, size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yields items in lists whose sizes add up to no more than there is room for, or that have one item."""
    batch: list[T] = []
    used = 0
    for item in items:
        if batch and used + size(item) > room:
            yield batch
            batch, used = [], 0
        batch.append(item)
        used += size(item)
    if batch:
        yield batch


def _padded(
    model: Any, encoded: Sequence[TokenRow], chosen: Sequence[int], batch_tokens: int
) -> Iterator[dict[int, list[float]]]:
    """Rows padded on the left, so that answers end together and logits are made for their length only."""
    import torch

    def length(i: int) -> int:
        return len(encoded[i].prompt) + len(encoded[i].answer)

    order = sorted(chosen, key=length, reverse=True)
    while order:
        width = length(order[0])
        batch, order = order[: max(1, batch_tokens // width)], order[max(1, batch_tokens // width) :]
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, i in enumerate(batch):
            ids[place, width - length(i) :] = torch.tensor(encoded[i].prompt + encoded[i].answer)
            mask[place, width - length(i) :] = 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        answer = max(len(encoded[i].answer) for i in batch)
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=answer + 1,
            use_cache=False,
        ).logits[:, :-1]
        losses = _cross_entropy(logits.flatten(0, 1), ids[:, -answer:].flatten()).view(len(batch), answer).tolist()
        yield {i: own[answer - len(encoded[i].answer) :] for i, own in zip(batch, losses, strict=True)}


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Nats of each target [n], from logits [n, vocabulary], in float32 or better."""
    import torch

    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    return torch.nn.functional.cross_entropy(wide, targets, reduction="none")


# ---- summaries -------------------------------------------------------------------------------------------------------


def summarise(losses: Losses, *, policy: str, horizon: int) -> LossSummary:
    """Means over answers and tokens, clustered by episode.

    Args:
        losses: At least one answer.
        policy: Whose losses they are.
        horizon: Steps of an episode, for the loss per step.

    Raises:
        ValueError: There is no answer.
    """
    groups = _by_episode(losses)
    return LossSummary(
        policy=policy,
        per_answer=_mean([(sum(a.nats for a in group), len(group)) for group in groups]),
        per_token=_mean([(sum(a.nats for a in group), sum(a.tokens for a in group)) for group in groups]),
        action=_mean([(sum(a.action_nats for a in group), len(group)) for group in groups]),
        missed=_mean([(sum(-math.expm1(-a.nats) for a in group), len(group)) for group in groups], most=1.0),
        per_step=_mean([(sum(a.nats for a in group) / horizon, 1) for group in groups]),
        left_out=losses.left_out,
    )


def compare(before: Losses, after: Losses, *, policies: tuple[str, str], horizon: int) -> Likelihood:
    """Compares the losses of the same answers before and after training.

    Raises:
        ValueError: They share no answer.
    """
    later = {(a.episode, a.t): a.nats for a in after.answers}
    changes: dict[str, list[float]] = defaultdict(list)
    for a in before.answers:
        if (a.episode, a.t) in later:
            changes[a.episode].append(later[a.episode, a.t] - a.nats)
    change = mean([(math.fsum(group), len(group)) for group in changes.values()])
    if change is None:
        raise ValueError("no answer was scored under both students")
    return Likelihood(
        before=summarise(before, policy=policies[0], horizon=horizon),
        after=summarise(after, policy=policies[1], horizon=horizon),
        change=change,
    )


def _by_episode(losses: Losses) -> list[list[AnswerLoss]]:
    groups: dict[str, list[AnswerLoss]] = defaultdict(list)
    for answer in losses.answers:
        groups[answer.episode].append(answer)
    return list(groups.values())


def _mean(groups: Sequence[tuple[float, int]], *, most: float = math.inf) -> Figure:
    figure = mean(groups, least=0.0, most=most)
    if figure is None:
        raise ValueError("there is no answer to take the mean of")
    return figure
