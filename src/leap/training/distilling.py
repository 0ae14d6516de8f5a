"""The loss of `distill` and its trainer, on trunk and branches.

    L = weight * mean over taught answers of D(teacher, student) + ce_weight * mean over cloned tokens of -log student

Each part is a mean over what it is about, so that neither thins the other out. D is summed over the vocabulary at each token of
an answer, then averaged over the answer (`balance: turns`), so that long and short answers count alike.
"""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, kl_div
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from leap.datasets import Lesson, Taught
from leap.errors import RecipeError, RunError
from leap.models.chat import ChatTokens
from leap.training.branches import (
    ATTENTION,
    Batch,
    PackedEpisode,
    TokenRow,
    check_branches,
    collate,
    encode_row,
    filled,
    pack,
    parted,
)
from leap.training.config import DistillConfig
from leap.training.diagnostics import kinds_of, logprobs, measured, probes_of
from leap.training.distributed import rank, sharded, world
from leap.training.half import summed_cross_entropy
from leap.training.method import Job, TrainingResult
from leap.training.sft import PASS_TOKENS, BranchTrainer, answers, batches_of, in_passes, once_through
from leap.training.student import load_reference, load_student
from leap.training.trainer import fit

WHOLE = 4096
"""Vocabularies of up to so many tokens are always told apart token by token."""
_MEASURED = 300
"""Own answers on which is measured, before and after the training."""


# ---- divergence ------------------------------------------------------------------------------------------------------


def divergence(
    student: torch.Tensor, teacher: torch.Tensor, kind: str, *, alpha: float = 0.5, top_k: int | None = None
) -> torch.Tensor:
    """Nats between two distributions at each token.

    Args:
        student, teacher: Logits [n, vocabulary]; those of the teacher as constants.
        kind: forward is KL(teacher || student), reverse KL(student || teacher); jsd is alpha KL(teacher || m) + (1 - alpha)
            KL(student || m) with m = alpha teacher + (1 - alpha) student.
        alpha: As above.
        top_k: Tells so many tokens apart: the teacher's likeliest (forward) or the student's. The rest is one.
    """
    q, p = (logits.float().log_softmax(-1) for logits in (student, teacher))
    if top_k is not None and top_k < q.shape[-1]:
        likeliest = (p if kind == "forward" else q).topk(top_k).indices
        q, p = (_with_rest(one.gather(-1, likeliest)) for one in (q, p))
    if kind == "forward":
        return _kl(p, q)
    if kind == "reverse":
        return _kl(q, p)
    share = torch.tensor(alpha, device=q.device)
    mixture = torch.logaddexp(q + torch.log1p(-share), p + share.log())
    return alpha * _kl(p, mixture) + (1 - alpha) * _kl(q, mixture)


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return kl_div(q, p, reduction="none", log_target=True).sum(-1)


def beyond(nats: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The share of a divergence that goes beyond another one, 0..1."""
    return ((nats - other) / nats.clamp(min=1e-9)).clamp(0.0, 1.0)


def _with_rest(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Some tokens' log-probabilities, and behind them that of all others together."""
    told = log_probabilities.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
    return torch.cat([log_probabilities, torch.log(-torch.expm1(told))], -1)


# ---- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaughtRow(TokenRow):
    """A row and what a teacher has to say of it.

    Attributes:
        privileged: The prompt with the privileged state; None where the row is not taught.
        cloned: Whether the answer's own likelihood counts.
        t, wrong: As of a `Lesson`.
        kinds: Of an own answer, what each of its tokens is part of.
        contrast: The prompt with the privileged state of another task, where there is one.
        was: Of an own answer, the log-probabilities of its tokens under pi_{i-1}, where they are asked for.
    """

    privileged: list[int] | None = None
    cloned: bool = True
    t: int = 0
    wrong: bool | None = None
    kinds: Sequence[str] = ()
    contrast: list[int] | None = None
    was: Sequence[float] = ()

    @property
    def seen(self) -> TokenRow:
        """The row as the teacher sees it."""
        assert self.privileged is not None
        return TokenRow(self.privileged, self.answer)

    @property
    def contrasted(self) -> TokenRow:
        """The row as the teacher sees it who is told of another task; of none where there is no other."""
        return TokenRow(self.contrast or self.prompt, self.answer)


@dataclass(frozen=True, slots=True)
class TaughtEpisode(PackedEpisode):
    """An episode's rows, packed; `rows` are those of the student's branches, in order."""

    rows: Sequence[TaughtRow]


def encode(data: Taught, chat: ChatTokens, config: DistillConfig, context: int) -> tuple[list[list[TaughtRow]], int]:
    """Rows in tokens by episode, and how many were too long. Where the privileged state does not fit nothing is taught."""
    taught = {(one.episode, one.t): one for one in data.lessons if one.corrected}
    groups: defaultdict[tuple[str, str], list[TaughtRow]] = defaultdict(list)
    too_long = 0

    def fits(prompt: Sequence[int], answer: Sequence[int], most: int = config.max_tokens) -> bool:
        return len(prompt) + len(answer) <= most

    def told(lesson: Lesson, answer: Sequence[int], thinking: bool | None) -> list[int] | None:
        ids = chat.prompt(lesson.privileged, lesson.tools, thinking)
        return ids if fits(ids, answer, min(config.max_tokens, context)) else None

    def strange(lesson: Lesson, answer: Sequence[int], thinking: bool | None) -> list[int] | None:
        ids = chat.prompt(lesson.contrast, lesson.tools, thinking) if lesson.contrast else None
        return ids if ids and fits(ids, answer, min(config.max_tokens, context)) else None

    for row in data.rows:
        one = encode_row(row, chat)
        lesson = taught.get((row.episode, row.t))
        privileged = told(lesson, one.answer, row.thinking) if lesson else None
        if fits(one.prompt, one.answer):
            contrast = strange(lesson, one.answer, row.thinking) if lesson else None
            groups[row.source, row.episode].append(TaughtRow(one.prompt, one.answer, privileged, t=row.t, contrast=contrast))
        else:
            too_long += 1
    for lesson in data.lessons:
        if lesson.tokens:
            prompt, answer = chat.prompt(lesson.prompt, lesson.tools, lesson.thinking), list(lesson.tokens)
            privileged = told(lesson, answer, lesson.thinking)
            if privileged and fits(prompt, answer):
                kinds = kinds_of(chat, answer, lesson.action, lesson.names)
                more = {"wrong": lesson.wrong, "kinds": kinds, "contrast": strange(lesson, answer, lesson.thinking)}
                own = TaughtRow(prompt, answer, privileged, cloned=False, t=lesson.t, **more)
                groups["correction", lesson.episode].append(own)
            else:
                too_long += 1
    return [*groups.values()], too_long


def packed_rows(rows: Sequence[TaughtRow], *, together: bool) -> TaughtEpisode:
    """Packs rows; together with the teacher's, whose branches stand behind them on the same trunk."""
    teachers = [row.seen for row in rows if row.privileged] if together else []
    packed = pack([*rows, *teachers])
    return TaughtEpisode(*(getattr(packed, name) for name in PackedEpisode.__slots__), rows=rows)


class Pass(TypedDict):
    """What is computed at once.

    Attributes:
        student: The student's branches; where `teacher` is None the teacher's, too.
        teacher: The teacher's branches alone.
        own: Of the tokens of `student`, which are of the student's branches.
        cloned: Of those, which count with their likelihood; each of them with the weight `each`.
        taught: The weight of the divergence at each of them; 0 where nothing is taught.
        contrast: As `teacher`, told of other tasks; None where that is not asked for.
        was: The log-probability of each of them under pi_{i-1}; not a number where it is not known.
    """

    student: Batch
    teacher: Batch | None
    contrast: Batch | None
    was: torch.Tensor
    own: torch.Tensor
    cloned: torch.Tensor
    each: float
    taught: torch.Tensor


def passes_of(batch: Sequence[TaughtEpisode], config: DistillConfig, *, together: bool, most: int | None) -> list[Pass]:
    """This process's part of a batch in passes, whose losses add up to the batch's; gradients are averaged over processes."""
    rows = [row for episode in batch for row in episode.rows]
    cloned = sum(len(row.answer) for row in rows if row.cloned)
    taught = sum(1 if config.balance == "turns" else len(row.answer) for row in rows if row.privileged)
    each, unit = world() * config.ce_weight / max(cloned, 1), world() * config.weight / max(taught, 1)
    mine = batch[rank() :: world()]
    if not mine:  # sharded or not, each process takes part in each step
        mine, each, unit = batch[:1], 0.0, 0.0
    return [_pass(part, config, each, unit, together) for part in (filled(mine, most) if most else [mine])]


def _pass(episodes: Sequence[TaughtEpisode], config: DistillConfig, each: float, unit: float, together: bool) -> Pass:
    own, cloned, taught, teachers, strangers, was = [], [], [], [], [], []
    for episode in episodes:
        told = [row for row in episode.rows if row.privileged]
        for row in episode.rows:
            n = len(row.answer)
            cloned += [row.cloned] * n
            taught += [unit * bool(row.privileged) / (n if config.balance == "turns" else 1)] * n
            was += row.was or [math.nan] * n
        own += [True] * sum(len(row.answer) for row in episode.rows)
        if together:
            own += [False] * sum(len(row.answer) for row in told)
        elif told:
            teachers.append(pack([row.seen for row in told]))
            strangers += [pack([row.contrasted for row in told])] if config.contrast else []
    return {
        "student": collate(episodes),
        "teacher": collate(teachers) if teachers else None,
        "contrast": collate(strangers) if strangers else None,
        "was": torch.tensor(was),
        "own": torch.tensor(own),
        "cloned": torch.tensor(cloned),
        "each": each,
        "taught": torch.tensor(taught),
    }


# ---- teacher ---------------------------------------------------------------------------------------------------------


class OwnTeacher:
    """The student's weights of another moment: those that are trained, kept beside them and put in their place for a while.

    Args:
        model: The student as it begins.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.weights = {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}

    def _exchange(self, model: torch.nn.Module) -> None:
        for name, one in model.named_parameters():
            if name in self.weights:
                one.data, self.weights[name] = self.weights[name], one.data

    @contextmanager
    def in_place(self, model: torch.nn.Module) -> Iterator[torch.nn.Module]:
        """While it lasts the model has these weights."""
        self._exchange(model)
        try:
            yield model
        finally:
            self._exchange(model)

    def follow(self, model: torch.nn.Module, share: float) -> None:
        """Moves towards the model's weights."""
        for name, one in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(one.detach(), share)


class _Follows(TrainerCallback):
    """Moves the average, and keeps it with the trainer's state."""

    def __init__(self, teacher: OwnTeacher, share: float) -> None:
        self._teacher, self._share = teacher, share

    def _file(self, args: TrainingArguments, state: TrainerState) -> Path:
        return Path(str(args.output_dir), f"checkpoint-{state.global_step}", "teacher.safetensors")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step:
            for name, kept in load_file(self._file(args, state)).items():
                self._teacher.weights[name].copy_(kept)

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: torch.nn.Module, **_: Any) -> None:
        self._teacher.follow(getattr(model, "module", model), self._share)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        if not rank():
            save_file({name: one.contiguous() for name, one in self._teacher.weights.items()}, self._file(args, state))


class DistillTrainer(BranchTrainer):
    """BranchTrainer with a teacher. A step may be several passes, whose gradients add up.

    Args:
        config: The method's settings.
        **more: Arguments of transformers' Trainer.

    Attributes:
        measured: What was measured before and after the training.
        own, probes: On what.
    """

    def __init__(self, config: DistillConfig, **more: Any) -> None:
        super().__init__(**more)
        model: Any = self.model
        self.config = config
        self.measured: dict[str, dict[str, object]] = {}
        self.own: list[TaughtRow] = []
        self.probes: list[tuple[list[int], list[int], list[list[int]]]] = []
        self._other: Any = None
        self._teacher = OwnTeacher(model) if config.teacher in ("frozen", "ema") else None
        most = PASS_TOKENS if in_passes(model) else None
        self.together = config.teacher == "live"
        self.share = partial(_shared, config=config, together=self.together, most=most)
        vocabulary = model.get_input_embeddings().weight.shape[0]
        self._top_k = config.top_k if vocabulary > WHOLE else None
        if config.teacher == "ema" and self._teacher is not None:
            self.add_callback(_Follows(self._teacher, config.ema))
        if not config.own_weights:
            self._other = load_reference(config.teacher.removeprefix("hf/"), dtype="auto")
            self._other.set_attn_implementation(ATTENTION)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self.model
        own = model.config._attn_implementation
        model.set_attn_implementation(ATTENTION)
        try:
            self.measured["before"] = measured(self)
            done = super().train(*args, **kwargs)
            self.measured["after"] = measured(self)
            return done
        finally:
            model.set_attn_implementation(own)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        one_pass = super(BranchTrainer, self).training_step
        return torch.stack([one_pass(model, {**part}) for part in inputs["passes"]]).sum()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        config, own, cloned = self.config, inputs["own"], inputs["cloned"]
        told = None if inputs["teacher"] is None else self.told(inputs["teacher"])
        outputs, wanted = answers(model, inputs["student"], bf16=self.args.bf16)
        logits = outputs.logits[0]
        if self.together:
            told, logits, wanted = logits[~own].detach(), logits[own], wanted[own]
        loss = summed_cross_entropy(logits[cloned], wanted[cloned]) * inputs["each"]
        if told is not None and bool((at := inputs["taught"] > 0).any()):
            apart = self.apart(logits[at], told, config.divergence)
            if config.clip is not None:
                apart = apart.clamp(max=config.clip)
            if inputs["contrast"] is not None:
                with torch.no_grad():
                    other = self.apart(logits[at], self.told(inputs["contrast"]), config.divergence)
                apart = apart * beyond(apart.detach(), other)
            if config.ratio is not None:
                now = -cross_entropy(logits[at].detach().float(), wanted[at], reduction="none")
                apart = apart * (now - inputs["was"][at]).exp().clamp(max=config.ratio).nan_to_num(1.0)
            if config.gated:
                better = cross_entropy(logits[at].detach().float(), wanted[at], reduction="none")
                better -= cross_entropy(told.float(), wanted[at], reduction="none")
                apart = apart * torch.sigmoid(5 * better)
            loss = loss + (apart * inputs["taught"][at]).sum()
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def told(self, batch: Batch) -> torch.Tensor:
        """The teacher's logits where answers stand."""
        model = self._other
        if model is not None:
            return answers(model, batch, bf16=False)[0].logits[0]
        model = self.accelerator.unwrap_model(self.model)
        training = model.training
        model.eval()
        try:
            if self._teacher is None:
                return answers(model, batch, bf16=self.args.bf16)[0].logits[0]
            with self._teacher.in_place(model):
                return answers(model, batch, bf16=self.args.bf16)[0].logits[0]
        finally:
            model.train(training)

    def apart(self, student: torch.Tensor, teacher: torch.Tensor, kind: str) -> torch.Tensor:
        """The divergence at each token; models of one tokenizer may be padded to different lengths."""
        size = min(student.shape[-1], teacher.shape[-1])
        alpha = self.config.alpha
        return divergence(student[:, :size], teacher[:, :size], kind, alpha=alpha, top_k=self._top_k)


def _shared(batches: Sequence[Sequence[TaughtEpisode]], *, config: DistillConfig, together: bool, most: int | None) -> Any:
    passes = passes_of(batches[0], config, together=together, most=most)
    return {"input_ids": passes[0]["student"]["input_ids"], "passes": passes}  # by the first the Trainer counts tokens


# ---- training --------------------------------------------------------------------------------------------------------


def as_it_was(model: Any, groups: Sequence[Sequence[TaughtRow]], config: DistillConfig) -> list[list[TaughtRow]]:
    """Rows with how likely pi_{i-1}, the model as it begins, finds its own answers: at temperature 1 and without constraint, as
    they are trained on, where what is on file of the rollout is the probability at which each token was drawn there."""
    kind = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    own = [row for rows in groups for row in rows if not row.cloned]
    was = iter(logprobs(model, own, bf16=config.bf16 is True))
    model.set_attn_implementation(kind)
    return [[row if row.cloned else replace(row, was=next(was)) for row in rows] for rows in groups]


def train_distill(config: DistillConfig, data: Taught, job: Job) -> TrainingResult:
    """Trains pi_i from pi_{i-1}, the job's `start`.

    Raises:
        RecipeError: The weights are sharded.
        RunError: All rows are too long, or there is none.
    """
    began = time.monotonic()
    if sharded():
        raise RecipeError("training.method: distill needs whole weights, and FSDP shards them; use accelerate: ddp.")
    model, tokenizer = load_student(job.start, config, job.seed)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or config.max_tokens
    groups, too_long = encode(data, ChatTokens(tokenizer), config, context)
    if not groups:
        told = f"none of the rows has at most training.max_tokens: {config.max_tokens} tokens" if too_long else "there is no row"
        raise RunError(f"nothing to train on: {told}.")
    check_branches(model, groups, "; use training.method: sft")
    if config.ratio is not None:
        groups = as_it_was(model, groups, config)
    most, together = PASS_TOKENS if in_passes(model) else None, config.teacher == "live"
    episodes = [packed_rows(part, together=together) for group in groups for part in parted(group, most)]
    batches = batches_of(episodes, config, job.seed)
    trainer = DistillTrainer(config, **once_through(config, model, batches, job))
    own = [row for group in groups for row in group if row.privileged and not row.cloned]
    trainer.own = random.Random(job.seed).sample(own, min(len(own), _MEASURED))
    trainer.probes = probes_of(data.probes, ChatTokens(tokenizer), min(config.max_tokens, context))
    done = fit(trainer, tokenizer, job)
    rows = [row for batch in batches for episode in batch for row in episode.rows]
    return TrainingResult(
        rows=len(data.rows),
        too_long=too_long,
        tokens=sum(len(episode.ids) for batch in batches for episode in batch),
        answer_tokens=sum(len(row.answer) for row in rows if row.cloned),
        seconds=round(time.monotonic() - began, 1),
        figures={"distill": {**data.told, "taught": sum(bool(row.privileged) for row in rows), **trainer.measured}},
        **done,
    )
