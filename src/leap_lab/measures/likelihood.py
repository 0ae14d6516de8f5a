"""How likely a student finds corrections: the negative log-likelihood of each answer under a checkpoint.

Each episode is one pass of trunk and branches, as in training, whatever its prompts share. A model whose attention is
replaced by that without its numbers changing is scored so; any other (sliding windows, soft caps, recurrent layers),
row by row.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap.core.record import Record
from leap.datasets import Row
from leap.envs.answer import ACTION_MARKER
from leap_lab.measures.figures import Figure, mean
from leap_lab.measures.records import Likelihood, LossSummary

if TYPE_CHECKING:
    from leap.models.chat import ChatTokens
    from leap.training.branches import TokenRow

_log = logging.getLogger(__name__)


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
    """Answers under one student, in the order of the rows, and how many rows were too long for it."""

    answers: tuple[AnswerLoss, ...]
    left_out: int = 0


def nll(
    checkpoint: Path | str,
    rows: Sequence[Row],
    *,
    batch_tokens: int = 8192,
    max_tokens: int | None = None,
    device: str | None = None,
) -> Losses:
    """Negative log-likelihoods, in nats, of the rows' completions given their prompts, under a checkpoint.

    Args:
        checkpoint: Directory or hub name; a LoRA adapter is put on its base.
        rows: Rows in any order; the prompts of rollouts and corrections as answers.
        batch_tokens: Tokens computed at once; one episode may be more by itself.
        max_tokens: Longest row; longer ones are left out and counted. The model's own limit by default.
        device: Where to compute; the fastest device by default.

    Raises:
        PrerequisiteError: There is no usable model, or its tokenizer has no chat template.
    """
    import torch

    from leap.models.chat import ChatTokens
    from leap.models.checkpoints import load_causal_lm

    if not rows:
        return Losses(answers=())
    model, tokenizer = load_causal_lm(str(checkpoint), dtype="auto", device=device)
    try:
        return answer_losses(model, ChatTokens(tokenizer), rows, batch_tokens=batch_tokens, max_tokens=max_tokens)
    finally:
        del model
        torch.cuda.empty_cache()


def answer_losses(
    model: Any, chat: ChatTokens, rows: Sequence[Row], *, batch_tokens: int = 8192, max_tokens: int | None = None
) -> Losses:
    """Returns what `nll` returns, for a model that is loaded already."""
    import torch

    from leap.training.branches import answer_nats, encode_row, filled, pack

    limit = max_tokens or getattr(model.config, "max_position_embeddings", None) or math.inf
    encoded = {i: encode_row(row, chat) for i, row in enumerate(rows)}
    encoded = {i: row for i, row in encoded.items() if len(row.prompt) + len(row.answer) <= limit}
    if not encoded:
        return Losses(answers=(), left_out=len(rows))
    episodes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i in encoded:
        episodes[rows[i].source, rows[i].episode].append(i)
    largest = max(episodes.values(), key=lambda group: sum(len(encoded[i].prompt) for i in group))
    with torch.inference_mode(), _attending_by_branches(model.eval(), [encoded[i] for i in largest]) as packs:
        groups = list(episodes.values()) if packs else [[i] for i in encoded]
        batches = filled([pack([encoded[i] for i in group]) for group in groups], batch_tokens if packs else 1)
        nats = chain.from_iterable(answer_nats(model, batch).tolist() for batch in batches)
        losses = {i: list(islice(nats, len(encoded[i].answer))) for group in groups for i in group}
    answers = []
    for i, row in encoded.items():
        action = losses[i][_action_start(rows[i], row, chat) :]
        answers.append(
            AnswerLoss(
                episode=rows[i].episode,
                t=rows[i].t,
                nats=math.fsum(losses[i]),
                tokens=len(losses[i]),
                action_nats=math.fsum(action),
                action_tokens=len(action),
            )
        )
    return Losses(answers=tuple(answers), left_out=len(rows) - len(answers))


def _action_start(row: Row, encoded: TokenRow, chat: ChatTokens) -> int:
    """Returns the first token of the action: behind the tokens that the reason and the marker have to themselves."""
    from leap.training.branches import common_prefix

    said, begin = row.completion[0], 0
    if row.thinking:  # the thought stands before all of it
        bare: Any = {key: value for key, value in said.items() if key != "reasoning_content"}
        begin = len(encoded.answer) - len(chat.completion(bare, row.prompt, row.tools, False))
    if said.get("tool_calls"):  # the call stands behind the reason, in the template's own form
        return begin + common_prefix(chat.text(said["content"]), encoded.answer[begin:])
    head, marker, _ = said["content"].rpartition(ACTION_MARKER)
    return begin + common_prefix(chat.text(head + marker), encoded.answer[begin:]) if marker else begin


@contextmanager
def _attending_by_branches(model: Any, episode: Sequence[TokenRow]) -> Iterator[bool]:
    """While it lasts, the model attends by trunk and branches if that gives the numbers of separate rows; says whether."""
    from leap.training.branches import attending_by_branches, tolerance

    own = model.config._attn_implementation
    with attending_by_branches(model, episode) as apart:
        if not (holds := apart <= tolerance(model)):
            _log.info(
                "by trunk and branches this model's numbers are %g nats a token off; rows are scored one by one", apart
            )
            model.set_attn_implementation(own)
        yield holds


def summarise(losses: Losses, *, policy: str, horizon: int) -> LossSummary:
    """Means over answers and tokens, clustered by episode.

    Raises:
        ValueError: There is no answer.
    """
    episodes: dict[str, list[AnswerLoss]] = defaultdict(list)
    for answer in losses.answers:
        episodes[answer.episode].append(answer)

    def average(value: Callable[[AnswerLoss], float], *, most: float = math.inf) -> Figure:
        return _mean([(sum(map(value, group)), len(group)) for group in episodes.values()], most=most)

    sums = [(sum(a.nats for a in group), sum(a.tokens for a in group)) for group in episodes.values()]
    return LossSummary(
        policy=policy,
        per_answer=average(lambda a: a.nats),
        per_token=_mean(sums),
        action=average(lambda a: a.action_nats),
        missed=average(lambda a: -math.expm1(-a.nats), most=1.0),
        per_step=_mean([(nats / horizon, 1) for nats, _ in sums]),
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
    return Likelihood(
        before=summarise(before, policy=policies[0], horizon=horizon),
        after=summarise(after, policy=policies[1], horizon=horizon),
        change=_mean([(math.fsum(group), len(group)) for group in changes.values()], least=-math.inf),
    )


def _mean(groups: Sequence[tuple[float, int]], *, least: float = 0.0, most: float = math.inf) -> Figure:
    figure = mean(groups, least=least, most=most)
    if figure is None:
        raise ValueError("no answer was scored, or none under both students")
    return figure
