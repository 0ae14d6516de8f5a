"""The value network: the student's architecture, read as one number behind an action.

It is shown what the student is shown, a rendered `History`, with an action as the answer. Its scalar is the logit of the token
that ends an answer, read at the answer's last token, where a language model says nothing of use: so it is saved, loaded, adapted
and merged as any checkpoint of a student. The actions of a step are branches of one trunk (`leap.training.branches`), and one
pass scores them all. The answer has no reason: what comes of an action does not depend on what was thought before it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import Trainer

from leap.core import Decision, Episode, History
from leap.core.message import Message, ToolSpec
from leap.errors import ContextTooLong, RunError
from leap.models.chat import ChatTokens
from leap.models.checkpoints import end_tokens, load_causal_lm
from leap.policies.rendering import Renderer
from leap.training.branches import (
    ATTENTION,
    IGNORED,
    PackedEpisode,
    TokenRow,
    check_branches,
    collate,
    on,
    pack,
    parted,
)
from leap.training.distributed import rank, sharded, world
from leap.training.method import Job, Method, TrainingResult
from leap.training.sft import BranchTrainer, batches_of, once_through
from leap.training.student import load_student
from leap.training.trainer import fit
from leap.value.config import ValueTrainingConfig
from leap.value.labels import Labels

# ---- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """A step and some actions there.

    Attributes:
        episode, t: Key of the episode, and the step in it; steps of one are packed together.
        prompt: What the student is shown.
        tools, thinking: As of a row.
        answers: The assistant message of each action.
        values: What each was worth; empty where that is asked for.
    """

    episode: str
    t: int
    prompt: list[Message]
    tools: Sequence[ToolSpec]
    thinking: bool | None
    answers: list[Message]
    values: list[float] = field(default_factory=list)


def judged(
    history: History, decisions: Sequence[Decision], renderer: Renderer, *, reasons: bool = False, episode: str = ""
) -> Judged:
    """The actions at the end of a history, as a value network reads them: with the reasons given for them, or without.

    Raises:
        ContextTooLong: The history does not fit even without any step but the present one.
    """
    grammar = renderer.grammar_of(history.task)
    answers = [grammar.write(one if reasons else Decision(reason="", action=one.action)) for one in decisions]
    return Judged(
        episode, len(history.actions), renderer.render(history), list(grammar.tools), renderer.thinking, answers
    )


def judged_steps(episode: Episode, labels: Labels, renderer: Renderer, *, reasons: bool = False) -> Iterator[Judged]:
    """The labelled steps of an episode that fit into the student's context."""
    for t, valued in groupby(labels.valued, key=lambda one: one.t):
        some = list(valued)
        try:
            decisions = [each.decision for each in some]
            one = judged(episode.history(t), decisions, renderer, reasons=reasons, episode=episode.key)
        except ContextTooLong:
            continue
        one.values.extend(each.value for each in some)
        yield one


@dataclass(frozen=True, slots=True)
class ValueRow(TokenRow):
    """An action of a step in tokens, and what it was worth."""

    value: float = 0.0
    t: int = 0


@dataclass(frozen=True, slots=True)
class ValuedEpisode(PackedEpisode):
    """Rows, packed; `values` are those of the branches, in order, and `steps` the steps that they belong to."""

    values: Sequence[float]
    steps: Sequence[int]


def encode(step: Judged, chat: ChatTokens) -> list[ValueRow]:
    """The actions of a step in tokens."""
    prompt = chat.prompt(step.prompt, step.tools, step.thinking)
    answers = [chat.completion(one, step.prompt, step.tools, step.thinking) for one in step.answers]
    values = step.values or [0.0] * len(answers)
    return [ValueRow(prompt, answer, value, step.t) for answer, value in zip(answers, values, strict=True)]


def _packed(rows: Sequence[ValueRow]) -> ValuedEpisode:
    packed = pack(rows)
    return ValuedEpisode(
        *(getattr(packed, name) for name in PackedEpisode.__slots__),
        values=[row.value for row in rows],
        steps=[row.t for row in rows],
    )


# ---- scores ----------------------------------------------------------------------------------------------------------


def scalars(model: Any, inputs: Any, token: int, dtype: torch.dtype) -> torch.Tensor:
    """The scalar of each branch of packed episodes: logits of values, float32 [branches]."""
    labels = inputs["labels"][0]
    behind = torch.cat([labels[1:], labels.new_full((1,), IGNORED)])
    last = (labels != IGNORED) & (behind == IGNORED)  # each branch begins with a token of its prompt
    outputs = model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        layout=inputs["layout"].placed(labels.device, dtype),
        logits_to_keep=last.nonzero().squeeze(1),
        use_cache=False,
    )
    return outputs.logits[0, :, token].float()


class ValueModel:
    """A value network that scores actions.

    Args:
        path: Its checkpoint.
        dtype: The weights' type; "auto" takes the checkpoint's.
    """

    def __init__(self, path: str, dtype: str = "auto") -> None:
        self._model, tokenizer = load_causal_lm(path, dtype=dtype, merge=True)
        self._model.eval()
        self._model.set_attn_implementation(ATTENTION)
        self.chat = ChatTokens(tokenizer, end_tokens(path))

    @torch.inference_mode()
    def scores(self, step: Judged) -> list[float]:
        """What each action of a step is worth, 0..1, in one pass."""
        inputs = on(collate([pack(encode(step, self.chat))]), self._model)
        return scalars(self._model, inputs, self.chat.end_of_turn, self._model.dtype).sigmoid().tolist()


# ---- training --------------------------------------------------------------------------------------------------------


def _collate_share(batches: Sequence[Sequence[ValuedEpisode]]) -> dict[str, Any]:
    """This process's part of a batch; each takes part in each step."""
    (batch,) = batches
    mine = batch[rank() :: world()] or batch[:1]
    values = torch.tensor([value for episode in mine for value in episode.values])
    step_of = [(number, t) for number, episode in enumerate(mine) for t in episode.steps]
    numbers = {step: number for number, step in enumerate(dict.fromkeys(step_of))}
    return {**collate(mine), "values": values, "steps": torch.tensor([numbers[step] for step in step_of])}


def choice_loss(said: torch.Tensor, values: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """How far the values of the actions of a step, as shares of their sum, are from those of the labels: a cross-entropy in nats
    a step, over steps with several actions of which one was worth something. It says nothing of how good a step is: what
    actions differ by counts as much where all of them are good, and where success is far.

    Args:
        said: Logits of values, [actions].
        values: Labels, 0..1, [actions].
        steps: The number of the step that each belongs to, from 0, [actions].
    """
    logs = torch.nn.functional.logsigmoid(said)
    several = int(steps.max()) + 1

    def summed(of: torch.Tensor) -> torch.Tensor:
        return of.new_zeros(several).index_add(0, steps, of)

    most = logs.new_full((several,), -torch.inf).scatter_reduce(0, steps, logs.detach(), "amax")
    whole = most + summed((logs - most[steps]).exp()).log()
    worth, counted = summed(values), summed(torch.ones_like(values))
    told = (worth > 0) & (counted > 1)
    shares = values / worth.clamp(min=1e-9)[steps]
    lost = summed(shares * (whole[steps] - logs))
    return lost[told].mean() if told.any() else said.sum() * 0


class ValueTrainer(BranchTrainer):
    """BranchTrainer whose loss is the cross-entropy between values of 0 to 1 and what the scalars say, in nats an action, and
    `compare` times the `choice_loss`."""

    share = staticmethod(_collate_share)
    token: int
    compare: float = 0.0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        return Trainer.training_step(self, model, inputs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        dtype = torch.bfloat16 if self.args.bf16 else next(model.parameters()).dtype
        said = scalars(model, inputs, self.token, dtype)
        values = inputs["values"].to(said)
        loss = binary_cross_entropy_with_logits(said, values)
        if self.compare:
            loss = loss + self.compare * choice_loss(said, values, inputs["steps"].to(said.device))
        return (loss, said) if return_outputs else loss


class ValueTraining(Method[ValueTrainingConfig]):
    """Trains a value network from pi_i; a method so that every executor can do it."""

    name = "value"
    Config = ValueTrainingConfig

    def train(self, rows: Sequence[Judged], job: Job) -> TrainingResult:
        """Trains on steps, those of one episode together.

        Raises:
            RunError: None of them can be used.
        """
        began, config = time.monotonic(), self.config
        if sharded():
            raise RunError("a value model needs whole weights, and FSDP shards them; use training.accelerate: ddp.")
        model, tokenizer = load_student(job.start, config, job.seed)
        chat = ChatTokens(tokenizer)
        groups = [
            [
                row
                for step in steps
                for row in encode(step, chat)
                if len(row.prompt) + len(row.answer) <= config.max_tokens
            ]
            for _, steps in groupby(rows, key=lambda step: step.episode)
        ]
        groups, actions = [group for group in groups if group], sum(len(step.answers) for step in rows)
        if not groups:
            raise RunError(f"there is no labelled action of at most training.max_tokens: {config.max_tokens} tokens.")
        check_branches(model, groups, "; a value model cannot be made of it")
        episodes = [_packed(part) for group in groups for part in parted(group, config.batch_tokens)]
        batches = batches_of(episodes, config, job.seed)
        trainer = ValueTrainer(**once_through(config, model, batches, job))
        trainer.token, trainer.compare = chat.end_of_turn, config.compare
        done = fit(trainer, tokenizer, job)
        used = [episode for batch in batches for episode in batch]
        return TrainingResult(
            rows=actions,
            too_long=actions - sum(map(len, groups)),
            tokens=sum(len(one.ids) for one in used),
            answer_tokens=sum(len(one.values) for one in used),
            seconds=round(time.monotonic() - began, 1),
            **done,
        )


def rows_of(
    episodes: Iterable[Episode], labels: dict[str, Labels], renderer: Renderer, *, reasons: bool = False
) -> list[Judged]:
    """The labelled steps of episodes, by episode."""
    known = [one for one in episodes if one.key in labels]
    return [step for one in known for step in judged_steps(one, labels[one.key], renderer, reasons=reasons)]
