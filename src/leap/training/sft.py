"""SFT: pi_i <- SFT(D_0 u D_1 u .. u D_i), the true union (DAgger's aggregation), loss on completions only.

Rows train one by one on TRL's SFTTrainer, or, for the dialogue renderer, all steps of an episode in one pass (see
`leap.training.branches`) on transformers' Trainer. Both start from a checkpoint directory and leave one.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypedDict

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments
from trl import SFTConfig as TRLConfig
from trl import SFTTrainer

from leap.datasets import Row
from leap.errors import RunError
from leap.models.chat import ChatTokens
from leap.models.checkpoints import is_small
from leap.training.branches import (
    ATTENTION,
    IGNORED,
    Batch,
    E,
    PackedEpisode,
    check_branches,
    collate,
    cut,
    encode_episodes,
    encode_rows,
    filled,
    packed,
)
from leap.training.config import SFTConfig
from leap.training.distributed import rank, world
from leap.training.half import summed_cross_entropy
from leap.training.method import Job, TrainingResult
from leap.training.student import load_student, unrounded
from leap.training.trainer import Tokenized, arguments, fit, optimizers, row_batches


def train_sft(config: SFTConfig, rows: Sequence[Row], job: Job) -> TrainingResult:
    """Fine-tunes the job's `start` on the union of D_0..D_i, in which rows of one episode stand together.

    Raises:
        RunError: All rows are too long.
    """
    began = time.monotonic()
    model, tokenizer = load_student(job.start, config, job.seed)
    build = _branch_trainer if config.branches else _row_trainer
    with unrounded(model):
        trainer, figures = build(config, model, ChatTokens(tokenizer), rows, job)
    done = fit(trainer, tokenizer, job)
    return TrainingResult(rows=len(rows), seconds=round(time.monotonic() - began, 1), **figures, **done)


class Counts(TypedDict):
    """Fields of a `TrainingResult`."""

    too_long: int
    tokens: int
    answer_tokens: int


class _RowTrainer(Tokenized, SFTTrainer):
    """SFTTrainer on `input_ids` and `labels`."""


def _row_trainer(
    config: SFTConfig, model: PreTrainedModel, chat: ChatTokens, rows: Sequence[Row], job: Job
) -> tuple[Trainer, Counts]:
    """A trainer, and figures for its result."""
    encoded, too_long = encode_rows(rows, chat, max_tokens=config.max_tokens)
    _some(encoded, rows, config)
    dataset = Dataset.from_list(
        [
            {
                "input_ids": row.prompt + row.answer,
                "completion_mask": [0] * len(row.prompt) + [1] * len(row.answer),
                "labels": [IGNORED] * len(row.prompt) + row.answer,  # what newer TRL reads instead of the mask
            }
            for row in encoded
        ]
    )
    trainer = _RowTrainer(
        model=model,
        args=arguments(config, job, TRLConfig, completion_only_loss=True, max_length=None, **row_batches(config)),
        train_dataset=dataset,
        processing_class=copy.deepcopy(chat.tokenizer),  # it may be given a padding token
        optimizers=optimizers(config, model),
    )
    epochs = config.steps * config.batch_rows / len(encoded) if config.steps else config.epochs
    answers = sum(len(row.answer) for row in encoded)
    prompts = sum(len(row.prompt) for row in encoded)
    tokens, answer_tokens = round(epochs * (prompts + answers)), round(epochs * answers)
    return trainer, {"too_long": too_long, "tokens": tokens, "answer_tokens": answer_tokens}


def _some(kept: Sequence[object], rows: Sequence[Row], config: SFTConfig) -> None:
    if not rows:
        raise RunError("there is no row to train on: no correction was kept.")
    if not kept:
        raise RunError(f"none of the {len(rows)} rows has at most training.max_tokens: {config.max_tokens} tokens.")


def batches_of(episodes: Sequence[E], config: SFTConfig, seed: int) -> list[list[E]]:
    """The whole training's batches, in order: token budgets filled with episodes, shuffled anew each epoch."""
    order, epochs = random.Random(seed), 0
    batches: list[list[E]] = []
    while epochs < config.epochs if config.steps is None else len(batches) < config.steps:
        shuffled = list(episodes)
        order.shuffle(shuffled)
        batches += filled(shuffled, config.batch_tokens)
        epochs += 1
    return batches[: config.steps]


def _collate_share(batches: Sequence[list[PackedEpisode]]) -> Batch:
    """This process's part of a batch. Where there are fewer episodes than processes, the rest compute one without loss:
    sharded weights are gathered by all of them together."""
    (batch,) = batches
    return collate(batch[rank() :: world()] or [replace(batch[0], labels=torch.full_like(batch[0].labels, IGNORED))])


PASS_TOKENS = 1000
"""Most tokens that a larger model computes at once on a CPU: more take more memory and no less time."""


def in_passes(model: torch.nn.Module) -> bool:
    """Whether a step is computed in several passes, to hold less in memory."""
    return world() == 1 and next(model.parameters()).device.type == "cpu" and not is_small(model)


class BranchTrainer(Trainer):
    """transformers' Trainer on packed episodes: one sequence a step, the loss at answer tokens alone.

    Class attributes:
        share: Makes this process's part of a batch.
    """

    share: Callable[[Any], Any] = staticmethod(_collate_share)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self.model
        own = model.config._attn_implementation
        model.set_attn_implementation(ATTENTION)
        try:
            return super().train(*args, **kwargs)
        finally:
            model.set_attn_implementation(own)

    def get_train_dataloader(self) -> DataLoader:
        assert self.train_dataset is not None
        loader = DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=self.share)  # type: ignore[arg-type]
        return self.accelerator.prepare(loader) if world() == 1 else loader  # the batches are shared out already

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """A step's passes forwards and backwards: one, or several whose gradients add up to the same."""
        if not in_passes(model):
            return super().training_step(model, inputs)
        count = int((inputs["labels"] != IGNORED).sum())
        one_pass = super().training_step
        return torch.stack([one_pass(model, {**part}, count) for part in cut(inputs, PASS_TOKENS)]).sum()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs, wanted = answers(model, inputs, bf16=self.args.bf16)
        total = summed_cross_entropy(outputs.logits[0], wanted)
        count = torch.tensor(float(len(wanted) if num_items_in_batch is None else num_items_in_batch), device=wanted.device)
        if world() > 1:  # gradients are averaged over processes, and each process has another number of tokens
            torch.distributed.all_reduce(count)
            count = count / world()
        loss = total / count
        return (loss, outputs) if return_outputs else loss


def answers(model: Any, inputs: Batch, *, bf16: bool) -> tuple[Any, torch.Tensor]:
    """What a model that attends by branches says where answers stand, and their tokens in turn."""
    labels, layout = inputs["labels"][0], inputs["layout"]
    dtype = torch.bfloat16 if bf16 else next(model.parameters()).dtype
    layout = layout.placed(labels.device, dtype)
    # Logits only where the next token bears loss: the rest of the vocabulary-wide work would be thrown away.
    before = (labels[1:] != IGNORED).nonzero().squeeze(1)
    # What accelerate has put around a model makes float32 of all its logits: where they are many the model itself is asked.
    plain = bf16 and in_passes(model)
    forward = partial(type(model).forward, model) if plain else model
    with torch.autocast("cpu", torch.bfloat16) if plain else nullcontext():
        outputs = forward(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            layout=layout,
            logits_to_keep=before,
            use_cache=False,
        )
    return outputs, labels[before + 1]


def once_through(config: SFTConfig, model: PreTrainedModel, batches: Sequence[Any], job: Job) -> dict[str, Any]:
    """Arguments of a `BranchTrainer` that takes each batch once, in order."""
    return {
        "model": model,
        "args": arguments(config, job, TrainingArguments, max_steps=len(batches), per_device_train_batch_size=1),
        "train_dataset": batches,
        "optimizers": optimizers(config, model),
    }


def _branch_trainer(
    config: SFTConfig, model: PreTrainedModel, chat: ChatTokens, rows: Sequence[Row], job: Job
) -> tuple[Trainer, Counts]:
    """A trainer, and figures for its result."""
    groups, too_long = encode_episodes(rows, chat, max_tokens=config.max_tokens)
    _some(groups, rows, config)
    check_branches(model, groups)
    most = PASS_TOKENS if in_passes(model) else None
    episodes = [part for group in groups for part in packed(group, most)]
    batches = batches_of(episodes, config, job.seed)
    trainer = BranchTrainer(**once_through(config, model, batches, job))
    used = [episode for batch in batches for episode in batch]
    tokens, answers = sum(len(one.ids) for one in used), sum(one.answer_tokens for one in used)
    return trainer, {"too_long": too_long, "tokens": tokens, "answer_tokens": answers}
