"""SFT: pi_i <- SFT(D_0 u D_1 u .. u D_i), the true union (DAgger's aggregation), loss on completions only.

Rows train one by one on TRL's SFTTrainer, or, for the dialogue renderer, all steps of an episode in one pass (see
`leap.training.branches`) on transformers' Trainer. Both start from a checkpoint directory and leave one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from leap.datasets import Row
from leap.models.chat import ChatTokens
from leap.models.hf import load_causal_lm
from leap.training.branches import ATTENTION, IGNORED, PackedEpisode, collate
from leap.training.config import SFTConfig
from leap.training.optim import muon_with_adamw
from leap.training.rows import encode_rows, pack_rows

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training did.

    Attributes:
        steps: Optimizer steps.
        rows: Rows in the union.
        too_long: Rows left out because they exceed max_tokens.
        tokens: Tokens computed, prompts included.
        answer_tokens: Tokens that bore loss.
        loss: Mean loss per answer token over the last tenth of the steps, in nats.
        seconds: Wall-clock time.
    """

    steps: int
    rows: int
    too_long: int
    tokens: int
    answer_tokens: int
    loss: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def train_sft(
    config: SFTConfig,
    rows: Sequence[Row],
    *,
    start: str,
    out: Path,
    work: Path,
    seed: int,
    steps: int | None = None,
    on_step: Progress = lambda done, total, loss: None,
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
    model, tokenizer = load_causal_lm(start, dtype=torch.bfloat16 if config.bf16 and config.lora else torch.float32)
    chat = ChatTokens(tokenizer)
    if config.lora is not None:
        model = _with_lora(model, config)
    build = _branch_trainer if config.branches else _row_trainer
    trainer, totals = build(config, model, chat, rows, work=work, seed=seed, steps=steps or config.steps)
    trainer.remove_callback(PrinterCallback)  # leap shows the progress itself
    watch = _Watch(on_step)
    trainer.add_callback(watch)
    trainer.train(resume_from_checkpoint=_last_state(work))
    trained: Any = trainer.model
    if config.branches:
        trained.set_attn_implementation("sdpa")
    trained.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return TrainingResult(
        steps=trainer.state.global_step,
        rows=len(rows),
        too_long=totals["too_long"],
        tokens=totals["tokens"],
        answer_tokens=totals["answer_tokens"],
        loss=watch.last_loss(),
        seconds=round(time.monotonic() - began, 1),
    )


def _arguments(
    config: SFTConfig, work: Path, seed: int, steps: int | None, cls: type = TrainingArguments, **extra: Any
) -> Any:
    return cls(
        output_dir=str(work),
        seed=seed,
        data_seed=seed,
        max_steps=steps or -1,
        num_train_epochs=config.epochs,
        learning_rate=config.lr,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16,
        save_strategy="steps" if config.save_steps else "no",
        save_steps=config.save_steps or 500,
        save_total_limit=1,
        logging_steps=1,
        logging_strategy="steps",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        **({"gradient_checkpointing": True} if config.gradient_checkpointing else {}),
        **extra,
    )


def _optimizers(config: SFTConfig, model: torch.nn.Module) -> tuple[torch.optim.Optimizer | None, None]:
    if config.optimizer == "muon":
        return muon_with_adamw(model, lr=config.lr, muon_lr=config.muon_lr, weight_decay=config.weight_decay), None
    return None, None


def _with_lora(model: Any, config: SFTConfig) -> Any:
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model, PeftModel):  # goes on training the adapter of pi_{i-1}
        for name, parameter in model.named_parameters():
            parameter.requires_grad = "lora_" in name
        return model
    assert config.lora is not None
    adapter = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    return get_peft_model(model, adapter)


def _row_trainer(
    config: SFTConfig, model: Any, chat: ChatTokens, rows: Sequence[Row], *, work: Path, seed: int, steps: int | None
) -> tuple[Trainer, dict[str, int]]:
    from datasets import Dataset
    from trl import SFTConfig as TRLConfig
    from trl import SFTTrainer

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
    arguments = _arguments(
        config,
        work,
        seed,
        steps,
        TRLConfig,
        per_device_train_batch_size=config.device_rows,
        gradient_accumulation_steps=max(1, config.batch_rows // config.device_rows),
        completion_only_loss=True,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=chat.tokenizer,
        optimizers=_optimizers(config, model),  # type: ignore[arg-type]
    )
    epochs = (steps * config.batch_rows / max(1, len(encoded))) if steps else config.epochs
    totals = {
        "too_long": too_long,
        "tokens": round(epochs * sum(len(row.prompt) + len(row.answer) for row in encoded)),
        "answer_tokens": round(epochs * sum(len(row.answer) for row in encoded)),
    }
    return trainer, totals


class _Batches(torch.utils.data.Dataset):
    """The whole training's batches, in order: token budgets filled with episodes, shuffled anew each epoch."""

    def __init__(self, episodes: Sequence[PackedEpisode], config: SFTConfig, seed: int, steps: int | None) -> None:
        order = random.Random(seed)
        self.batches: list[list[PackedEpisode]] = []
        epochs = 0.0
        while epochs < config.epochs if steps is None else len(self.batches) < steps:
            shuffled = list(episodes)
            order.shuffle(shuffled)
            self.batches += _fill(shuffled, config.batch_tokens)
            epochs += 1
        if steps is not None:
            del self.batches[steps:]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[PackedEpisode]:
        return self.batches[index]


def _fill(episodes: Sequence[PackedEpisode], budget: int) -> list[list[PackedEpisode]]:
    batches: list[list[PackedEpisode]] = []
    room = 0
    for episode in episodes:
        if not batches or len(episode.ids) > room:
            batches.append([])
            room = budget
        batches[-1].append(episode)
        room -= len(episode.ids)
    return batches


class BranchTrainer(Trainer):
    """transformers' Trainer on packed episodes: one sequence a step, the loss at answer tokens alone."""

    def get_train_dataloader(self) -> DataLoader:
        assert self.train_dataset is not None
        loader = DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=lambda items: collate(items[0]))  # type: ignore[arg-type]
        return self.accelerator.prepare(loader)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels, layout = inputs["labels"][0], inputs["layout"]
        layout = layout.placed(labels.device, torch.bfloat16 if self.args.bf16 else model.dtype)
        # Logits only where the next token bears loss: the rest of the vocabulary-wide work would be thrown away.
        before = (labels[1:] != IGNORED).nonzero().squeeze(1)
        outputs = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            layout=layout,
            logits_to_keep=before,
            use_cache=False,
        )
        loss = torch.nn.functional.cross_entropy(outputs.logits[0].float(), labels[before + 1])
        return (loss, outputs) if return_outputs else loss


def _branch_trainer(
    config: SFTConfig, model: Any, chat: ChatTokens, rows: Sequence[Row], *, work: Path, seed: int, steps: int | None
) -> tuple[Trainer, dict[str, int]]:
    episodes, too_long = pack_rows(rows, chat, max_tokens=config.max_tokens)
    model.set_attn_implementation(ATTENTION)
    data = _Batches(episodes, config, seed, steps)
    arguments = _arguments(config, work, seed, len(data), per_device_train_batch_size=1)
    trainer = BranchTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        optimizers=_optimizers(config, model),  # type: ignore[arg-type]
    )
    used = [episode for batch in data.batches for episode in batch]
    totals = {
        "too_long": too_long,
        "tokens": sum(len(episode.ids) for episode in used),
        "answer_tokens": sum(episode.answer_tokens for episode in used),
    }
    return trainer, totals


def _last_state(work: Path) -> str | None:
    """The newest complete state of an interrupted training."""
    states = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    whole = [path for path in states if (path / "trainer_state.json").exists()]
    return str(whole[-1]) if whole else None


class _Watch(TrainerCallback):
    """Passes each step's loss on and remembers it."""

    def __init__(self, on_step: Progress) -> None:
        self._on_step = on_step
        self._losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._losses.append(logs["loss"])
            self._on_step(state.global_step, state.max_steps, logs["loss"])

    def last_loss(self) -> float:
        """Mean over the last tenth of the steps."""
        tail = self._losses[-max(1, len(self._losses) // 10) :]
        return round(sum(tail) / len(tail), 4) if tail else float("nan")
