"""What is measured of a distillation: on own answers of pi_{i-1}, before and after the training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from leap.datasets import PROBED, Probe
from leap.envs.answer import ACTION_MARKER
from leap.models.chat import ChatTokens
from leap.training.branches import TokenRow, collate, on, pack
from leap.training.sft import answers

if TYPE_CHECKING:
    from leap.training.distilling import DistillTrainer, TaughtRow

KINDS = ("name in the action", "action", "name in the reason", "reason", "form")
"""What a token is part of: of the action the names of things, and its other words; of the reason the same; markers and signs."""
_AT_ONCE = 20


def kinds_of(chat: ChatTokens, answer: Sequence[int], action: str, names: Iterable[str]) -> list[str]:
    """What each token of an answer is part of, one of `KINDS`. An action that does not stand in it as it was taken is not told
    from the reason."""
    ends = [len(chat.decode(answer[:k])) for k in range(len(answer) + 1)]
    text = chat.decode(answer)
    begin = text.rfind(action) if action else -1
    taken = range(begin, begin + len(action)) if begin >= 0 else range(0)
    named = {at for name in names for start in _places(text, name) for at in range(start, start + len(name))}
    form = {
        at for sign in ("REASON:", ACTION_MARKER) for start in _places(text, sign) for at in range(start, start + len(sign))
    }

    def kind(begin: int, end: int) -> str:
        part = [at for at in range(begin, end) if text[at : at + 1].isalnum() and at not in form]
        if not part:
            return "form"
        whole = "action" if part[0] in taken else "reason"
        return f"name in the {whole}" if part[0] in named else whole

    return [kind(a, b) for a, b in pairwise(ends)]


def _places(text: str, part: str) -> list[int]:
    found, at = list[int](), text.find(part) if part else -1
    while at >= 0:
        found.append(at)
        at = text.find(part, at + 1)
    return found


@torch.no_grad()
def measured(trainer: DistillTrainer) -> dict[str, object]:
    """On some of the student's own answers: KL(teacher || student) in all, by turn and by kind of token; how well it tells wrong
    steps from right ones (area under the curve: 0.5 is chance); the entropy of the student's distribution; in nats a token. And
    how alike the weights by `ratio` are: 1 where the answers are as likely as they were."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    kl, nats, entropy, now = list[float](), Counter[str](), list[float](), list[float]()
    training = model.training
    model.eval()
    for rows in (trainer.own[at : at + _AT_ONCE] for at in range(0, len(trainer.own), _AT_ONCE)):
        seen, shown = (on(collate([pack([one]) for one in some]), model) for some in ([r.seen for r in rows], rows))
        told = trainer.told(seen)
        output, wanted = answers(model, shown, bf16=trainer.args.bf16)
        logits = output.logits[0]
        logs = logits.float().log_softmax(-1)
        lengths = [len(row.answer) for row in rows]
        apart = trainer.apart(logits, told, "forward")
        for kind, one in zip((kind for row in rows for kind in row.kinds), apart.tolist(), strict=False):
            nats[kind] += one
        kl += [float(one.mean()) for one in apart.split(lengths)]
        entropy += [float(one.mean()) for one in (-(logs.exp() * logs).sum(-1)).split(lengths)]
        now += logs.gather(-1, wanted[:, None]).squeeze(1).tolist()
    found = figures(trainer.own, kl, entropy) | shares(nats)
    was = [one for row in trainer.own for one in row.was]
    found |= {"alike": alike(now, was)} if len(was) == len(now) and was else {}
    if trainer.probes:
        found["bias"] = bias(trainer, model)
    model.train(training)
    return found


def alike(now: Sequence[float], was: Sequence[float]) -> float:
    """The effective share of a sample whose log-probabilities have changed: (sum w)^2 / (n sum w^2) of the ratios w."""
    ratios = (torch.tensor(now) - torch.tensor(was)).exp()
    return round(float(ratios.sum() ** 2 / (len(now) * (ratios**2).sum())), 4)


def shares(nats: Counter[str]) -> dict[str, object]:
    """The shares of a divergence by kind of token."""
    total = sum(nats.values())
    return {"by_kind": [[kind, round(nats[kind] / total, 4)] for kind in KINDS]} if total > 0 else {}


def bias(trainer: DistillTrainer, model: Any) -> list[list[object]]:
    """How many nats likelier the privileged state makes each action of the probes for the teacher, on average."""
    gains: defaultdict[str, list[float]] = defaultdict(list)
    for prompt, privileged, said in trainer.probes:
        rows = [TokenRow(ids, answer) for ids in (prompt, privileged) for answer in said]
        batch = on(collate([pack([one]) for one in rows]), model)
        nats = cross_entropy(trainer.told(batch).float(), _wanted(rows, model), reduction="none")
        without_and_with = [float(one.sum()) for one in nats.split([len(row.answer) for row in rows])]
        for kind, without, told in zip(PROBED, without_and_with, without_and_with[len(said) :], strict=False):
            gains[kind].append(without - told)
    return [[kind, round(fmean(gains[kind]), 3), len(gains[kind])] for kind in PROBED]


def _wanted(rows: Sequence[TokenRow], model: Any) -> torch.Tensor:
    return torch.tensor([token for row in rows for token in row.answer], device=model.device)


def probes_of(probes: Iterable[Probe], chat: ChatTokens, most: int) -> list[tuple[list[int], list[int], list[list[int]]]]:
    """Probes in tokens: the prompt without and with the privileged state, and the answers. Those of more tokens are left out."""
    found = []
    for one in probes:
        prompt, told = (chat.prompt(said, one.tools, one.thinking) for said in (one.prompt, one.privileged))
        said = [chat.completion(answer, one.prompt, one.tools, one.thinking) for answer in one.answers]
        if len(told) + max(map(len, said)) <= most:
            found.append((prompt, told, said))
    return found


@torch.no_grad()
def logprobs(model: Any, rows: Sequence[TokenRow], *, bf16: bool) -> list[list[float]]:
    """Log-probabilities of the tokens of answers under a model."""
    found: list[list[float]] = []
    training = model.training
    model.eval()
    for some in (rows[at : at + _AT_ONCE] for at in range(0, len(rows), _AT_ONCE)):
        output, wanted = answers(model, on(collate([pack([one]) for one in some]), model), bf16=bf16)
        nats = -cross_entropy(output.logits[0].float(), wanted, reduction="none")
        found += [one.tolist() for one in nats.split([len(row.answer) for row in some])]
    model.train(training)
    return found


def figures(rows: Sequence[TaughtRow], kl: Sequence[float], entropy: Sequence[float]) -> dict[str, object]:
    """What is told of some own answers, given the nats of each."""
    if not rows:
        return {}
    turns: defaultdict[int, list[float]] = defaultdict(list)
    steps: dict[bool, list[float]] = {True: [], False: []}
    for row, nats in zip(rows, kl, strict=True):
        turns[row.t].append(nats)
        if row.wrong is not None:
            steps[row.wrong].append(nats)
    pairs = [(above > below) + (above == below) / 2 for above in steps[True] for below in steps[False]]
    return {
        "answers": len(rows),
        "kl": round(fmean(kl), 4),
        "kl_by_turn": [[t, round(fmean(turns[t]), 4), len(turns[t])] for t in sorted(turns)],
        "wrong": len(steps[True]),
        "right": len(steps[False]),
        "separation": round(fmean(pairs), 4) if pairs else None,
        "entropy": round(fmean(entropy), 4),
    }
