"""SFT: pi_i <- SFT(D_0 u D_1 u .. u D_i), the true union (DAgger's aggregation), loss on completions only.

Rows train one by one on TRL's SFTTrainer, or, for the dialogue renderer, all steps of an episode in one pass (see
`leap.training.branches`) on transformers' Trainer. Both start from a checkpoint directory and leave one.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer
from trl import SFTConfig as TRLConfig
from trl import SFTTrainer

from leap.datasets import Row
from leap.models.chat import ChatTokens
from leap.training.branches import ATTENTION, IGNORED, PackedEpisode, collate, filled
from leap.training.config import SFTConfig
from leap.training.distributed import rank, world
from leap.training.method import Progress, TrainingResult, quiet
from leap.training.rows import encode_rows, pack_rows
from leap.training.student import load_student, save_student, unrounded
from leap.training.trainer import arguments, logged, optimizers, row_batches, run


def train_sft(
    config: SFTConfig,
    rows: Sequence[Row],
    *,
    start: str,
    out: Path,
    work: Path,
    seed: int,
    steps: int | None = None,
    on_step: Progress = quiet,
) -> TrainingResult:
    """Fine-tunes a checkpoint on rows.

    Args:
        config: Settings.
        rows: The union of D_0..D_i; rows of one episode stand together.
        start: Checkpoint directory or hub name to start from.
        out: Where to leave the trained checkpoint.
        work: Folder for the trainer's own states, from which an interrupted training goes on.
        seed: Seed of the order of the rows.
        steps: Optimizer steps; the config's by default.
        on_step: Called after each step.
    """
    began = time.monotonic()
    torch.manual_seed(seed)
    model, tokenizer = load_student(start, config)
    build = _branch_trainer if config.branches else _row_trainer
    with logged(config, work), unrounded(model):
        trainer, totals = build(
            config, model, ChatTokens(tokenizer), rows, work=work, seed=seed, steps=steps or config.steps
        )
    watch = run(trainer, work, on_step)
    if config.branches:
        model.set_attn_implementation("sdpa")
    save_student(trainer, tokenizer, out)
    return TrainingResult(
        steps=trainer.state.global_step,
        rows=len(rows),
        too_long=totals["too_long"],
        tokens=totals["tokens"],
        answer_tokens=totals["answer_tokens"],
        loss=watch.last_loss(),
        seconds=round(time.monotonic() - began, 1),
    )


class _RowTrainer(SFTTrainer):
    """TRL's, without its message to its makers."""

    def _send_telemetry(self) -> None:
        pass


def _row_trainer(
    config: SFTConfig, model: Any, chat: ChatTokens, rows: Sequence[Row], *, work: Path, seed: int, steps: int | None
) -> tuple[Trainer, dict[str, int]]:
    from datasets import Dataset

    encoded, too_long = encode_rows(rows, chat, max_tokens=config.max_tokens)
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
        args=arguments(
            config,
            work,
            seed,
            steps,
            TRLConfig,
            completion_only_loss=True,
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            **row_batches(config),
        ),
        train_dataset=dataset,
        processing_class=copy.deepcopy(chat.tokenizer),  # it may be given a padding token
        optimizers=optimizers(config, model),
    )
    epochs = (steps * config.batch_rows / max(1, len(encoded))) if steps else config.epochs
    totals = {
        "too_long": too_long,
        "tokens": round(epochs * sum(len(row.prompt) + len(row.answer) for row in encoded)),
        "answer_tokens": round(epochs * sum(len(row.answer) for row in encoded)),
    }
    return trainer, totals


class _Batches(torch.utils.data.Dataset):
    """The whole training's batches, in order: token budgets filled with episodes, shuffled anew each epoch. With several
    processes, this one's share of each batch."""

    def __init__(self, episodes: Sequence[PackedEpisode], config: SFTConfig, seed: int, steps: int | None) -> None:
        order = random.Random(seed)
        self.batches: list[list[PackedEpisode]] = []
        epochs = 0.0
        while epochs < config.epochs if steps is None else len(self.batches) < steps:
            shuffled = list(episodes)
            order.shuffle(shuffled)
            self.batches += filled(shuffled, config.batch_tokens)
            epochs += 1
        if steps is not None:
            del self.batches[steps:]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[PackedEpisode]:
        return _share(self.batches[index], rank(), world())


def _share(batch: list[PackedEpisode], rank: int, world: int) -> list[PackedEpisode]:
    """One process's part of a batch. Where there are fewer episodes than processes, the rest compute one without loss:
    sharded weights are gathered by all of them together."""
    if part := batch[rank::world]:
        return part
    return [replace(batch[0], labels=torch.full_like(batch[0].labels, IGNORED))]


class BranchTrainer(Trainer):
    """transformers' Trainer on packed episodes: one sequence a step, the loss at answer tokens alone."""

    def get_train_dataloader(self) -> DataLoader:
        assert self.train_dataset is not None
        loader = DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=lambda items: collate(items[0]))  # type: ignore[arg-type]
        return self.accelerator.prepare(loader) if world() == 1 else loader  # the batches are shared out already

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels, layout = inputs["labels"][0], inputs["layout"]
        dtype = torch.bfloat16 if self.args.bf16 else next(model.parameters()).dtype
        layout = layout.placed(labels.device, dtype)
        # Logits only where the next token bears loss: the rest of the vocabulary-wide work would be thrown away.
        before = (labels[1:] != IGNORED).nonzero().squeeze(1)
        outputs = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            layout=layout,
            logits_to_keep=before,
            use_cache=False,
        )
        total = torch.nn.functional.cross_entropy(outputs.logits[0].float(), labels[before + 1], reduction="sum")
        count = torch.tensor(float(len(before)), device=labels.device)
        if world() > 1:  # gradients are averaged over processes, and each process has another number of tokens
            torch.distributed.all_reduce(count)
            count = count / world()
        loss = total / count
        return (loss, outputs) if return_outputs else loss


def _branch_trainer(
    config: SFTConfig, model: Any, chat: ChatTokens, rows: Sequence[Row], *, work: Path, seed: int, steps: int | None
) -> tuple[Trainer, dict[str, int]]:
    episodes, too_long = pack_rows(rows, chat, max_tokens=config.max_tokens)
    model.set_attn_implementation(ATTENTION)
    data = _Batches(episodes, config, seed, steps)
    trainer = BranchTrainer(
        model=model,
        args=arguments(config, work, seed, len(data), per_device_train_batch_size=1),
        train_dataset=data,
        optimizers=optimizers(config, model),
    )
    used = [episode for batch in data.batches for episode in batch]
    totals = {
        "too_long": too_long,
        "tokens": sum(len(episode.ids) for episode in used),
        "answer_tokens": sum(episode.answer_tokens for episode in used),
    }
    return trainer, totals
