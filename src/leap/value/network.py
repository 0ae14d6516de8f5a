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
from leap.training.config import SFTConfig
from leap.training.distributed import rank, sharded, world
from leap.training.method import Job, Method, TrainingResult
from leap.training.sft import BranchTrainer, batches_of, once_through
from leap.training.student import load_student
from leap.training.trainer import fit
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


def judged(history: History, actions: Sequence[str], renderer: Renderer, *, episode: str = "") -> Judged:
    """The actions at the end of a history, as a value network reads them.

    Raises:
        ContextTooLong: The history does not fit even without any step but the present one.
    """
    grammar = renderer.grammar_of(history.task)
    answers = [grammar.write(Decision(reason="", action=action)) for action in actions]
    return Judged(
        episode, len(history.actions), renderer.render(history), list(grammar.tools), renderer.thinking, answers
    )


def judged_steps(episode: Episode, labels: Labels, renderer: Renderer) -> Iterator[Judged]:
    """The labelled steps of an episode that fit into the student's context."""
    for t, valued in groupby(labels.valued, key=lambda one: one.t):
        some = list(valued)
        try:
            one = judged(episode.history(t), [each.action for each in some], renderer, episode=episode.key)
        except ContextTooLong:
            continue
        one.values.extend(each.value for each in some)
        yield one


@dataclass(frozen=True, slots=True)
class ValueRow(TokenRow):
    """An action in tokens, and what it was worth."""

    value: float = 0.0


@dataclass(frozen=True, slots=True)
class ValuedEpisode(PackedEpisode):
    """Rows, packed; `values` are those of the branches, in order."""

    values: Sequence[float]


def encode(step: Judged, chat: ChatTokens) -> list[ValueRow]:
    """The actions of a step in tokens."""
    prompt = chat.prompt(step.prompt, step.tools, step.thinking)
    answers = [chat.completion(one, step.prompt, step.tools, step.thinking) for one in step.answers]
    values = step.values or [0.0] * len(answers)
    return [ValueRow(prompt, answer, value) for answer, value in zip(answers, values, strict=True)]


def _packed(rows: Sequence[ValueRow]) -> ValuedEpisode:
    packed = pack(rows)
    return ValuedEpisode(
        *(getattr(packed, name) for name in PackedEpisode.__slots__), values=[row.value for row in rows]
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
    return {**collate(mine), "values": values}


class ValueTrainer(BranchTrainer):
    """BranchTrainer whose loss is the cross-entropy between values of 0 to 1 and what the scalars say, in nats an action."""

    share = staticmethod(_collate_share)
    token: int

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        return Trainer.training_step(self, model, inputs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        dtype = torch.bfloat16 if self.args.bf16 else next(model.parameters()).dtype
        said = scalars(model, inputs, self.token, dtype)
        loss = binary_cross_entropy_with_logits(said, inputs["values"].to(said))
        return (loss, said) if return_outputs else loss


class ValueTraining(Method[SFTConfig]):
    """Trains a value network from pi_i; a method so that every executor can do it."""

    name = "value"
    Config = SFTConfig

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
        trainer.token = chat.end_of_turn
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


def rows_of(episodes: Iterable[Episode], labels: dict[str, Labels], renderer: Renderer) -> list[Judged]:
    """The labelled steps of episodes, by episode."""
    return [step for one in episodes if one.key in labels for step in judged_steps(one, labels[one.key], renderer)]
