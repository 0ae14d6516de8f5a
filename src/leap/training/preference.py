"""DPO and KTO: pi_i <- DPO(D_i, reference = pi_{i-1}) (paper, Fig. 1), and the same with KTO.

The rows are tokenised here and not by TRL's trainers: those render a prompt and its answer through the template as one
finished conversation, whose tokens are not everywhere those of a rollout (ChatML ends an answer with a line break that a
student never generates; Llama 3 strips an answer's ends).
"""

from __future__ import annotations

import copy
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer, KTOTrainer
from trl import KTOConfig as TRLKTOConfig

from leap.datasets import PreferenceRow
from leap.errors import RunError
from leap.models.chat import ChatTokens
from leap.training.config import DPOConfig, KTOConfig
from leap.training.method import Job, TrainingResult
from leap.training.student import POLICY, load_reference, load_student, unrounded
from leap.training.trainer import Tokenized, arguments, fit, optimizers, row_batches

REFERENCE = "ref"
"""The name under which TRL's trainers keep the reference's adapter."""


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A pair in tokens: the prompt and both answers, as in a rollout."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def encode_pair(pair: PreferenceRow, chat: ChatTokens) -> TokenPair:
    """A pair's prompt and answers as the model sees and gives them at rollout."""
    asked = pair.prompt, pair.tools, pair.thinking
    return TokenPair(chat.prompt(*asked), *(chat.completion(side[0], *asked) for side in (pair.chosen, pair.rejected)))


def train_preference(config: DPOConfig | KTOConfig, pairs: Sequence[PreferenceRow], job: Job) -> TrainingResult:
    """Tunes the job's `start` to prefer the corrections in D_i to what the student did; it is also the reference.

    Raises:
        RunError: All pairs are too long.
    """
    began = time.monotonic()
    model, tokenizer = load_student(job.start, config, job.seed)
    chat = ChatTokens(tokenizer)
    encoded = [encode_pair(pair, chat) for pair in pairs]
    kept = [one for one in encoded if len(one.prompt) + max(len(one.chosen), len(one.rejected)) <= config.max_tokens]
    if not kept:
        raise RunError(f"none of the {len(pairs)} pairs has at most training.max_tokens: {config.max_tokens} tokens.")
    dpo = isinstance(config, DPOConfig)
    make, args, rows = _dpo(config, kept, job) if dpo else _kto(config, kept, job)
    with unrounded(model):
        trainer = make(
            model=model,
            # With an adapter TRL keeps a frozen copy of it; without, the reference is a second model.
            ref_model=None if config.lora else load_reference(job.start),
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=copy.deepcopy(tokenizer),  # it may be given a padding token
            optimizers=optimizers(config, model),
        )
    if config.lora is not None:
        assert trainer.model is not None
        copy_policy_to_reference(trainer.model)
    done = fit(trainer, tokenizer, job)
    epochs = done["steps"] * config.batch_rows / (len(kept) if dpo else 2 * len(kept))
    answers = sum(len(pair.chosen) + len(pair.rejected) for pair in kept)
    return TrainingResult(
        rows=len(pairs),
        too_long=len(pairs) - len(kept),
        tokens=round(epochs * (answers + 2 * sum(len(pair.prompt) for pair in kept))),
        answer_tokens=round(epochs * answers),
        seconds=round(time.monotonic() - began, 1),
        **done,
    )


class TokenizedDPOTrainer(Tokenized, DPOTrainer):
    """DPOTrainer on `prompt_ids`, `chosen_ids` and `rejected_ids`."""


class TokenizedKTOTrainer(Tokenized, KTOTrainer):
    """KTOTrainer on `prompt_ids`, `completion_ids`, `KL_completion_ids` and `label`."""


Rows = list[dict[str, object]]
Parts = tuple[Callable[..., Trainer], TrainingArguments, Rows]
"""A trainer's class, its arguments and its rows."""


def _dpo(config: DPOConfig, pairs: Sequence[TokenPair], job: Job) -> Parts:
    """TRL's trainer of DPO on the pairs."""
    loss = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, config.sft_weight]} if config.sft_weight else {}
    rows: Rows = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in pairs]
    args = arguments(config, job, TRLDPOConfig, beta=config.beta, max_length=None, **loss, **row_batches(config))
    return TokenizedDPOTrainer, args, rows


def _kto(config: KTOConfig, pairs: Sequence[TokenPair], job: Job) -> Parts:
    """TRL's trainer of KTO on the halves of the pairs."""
    batches = row_batches(config, least=2)
    steps = config.steps or max(1, round(config.epochs * 2 * len(pairs) / config.batch_rows))
    device_rows = batches["per_device_train_batch_size"]
    halves = [half for pair in pairs for half in (pair.chosen, pair.rejected)]
    rows: Rows = [
        {
            "prompt_ids": pairs[half // 2].prompt,
            "completion_ids": halves[half],
            "KL_completion_ids": halves[other],
            "label": half % 2 == 0,
        }
        for half, other in kto_order(len(pairs), steps * config.batch_rows, device_rows=device_rows, seed=job.seed)
    ]
    args = arguments(config, job, TRLKTOConfig, max_steps=steps, beta=config.beta, max_length=None, **batches)
    return TokenizedKTOTrainer, args, rows


def kto_order(pairs: int, rows: int, *, device_rows: int, seed: int) -> list[tuple[int, int]]:
    """The halves in training order, shuffled anew in each pass, each with the half whose answer serves to estimate the
    divergence from the reference (KTO paper, section 4.1): another of the same device batch, by a rotation of the batch.

    TRL rotates by one. Here the rotation is one that gives no prompt its own two answers where there is such a one, as the
    estimate is meant for answers to other prompts.

    Args:
        pairs: Number of pairs; halves 2k and 2k + 1 are pair k's.
        rows, device_rows: How many halves the whole training takes, and a device batch of it.
        seed: Of the shuffles.
    """
    generator = random.Random(seed)
    halves: list[int] = []
    while len(halves) < rows:
        once = list(range(2 * pairs))
        generator.shuffle(once)
        halves += once
    order: list[tuple[int, int]] = []
    for start in range(0, rows, device_rows):
        batch = halves[start : min(start + device_rows, rows)]
        rotations = [batch[-shift:] + batch[:-shift] for shift in range(1, len(batch))] or [batch]
        clashes = [sum(a // 2 == b // 2 for a, b in zip(batch, others, strict=True)) for others in rotations]
        order += zip(batch, rotations[clashes.index(min(clashes))], strict=True)
    return order


def copy_policy_to_reference(model: torch.nn.Module) -> None:
    """Makes the reference's adapter the policy's, in every tensor, and freezes it.

    TRL copies what PEFT names `....default.weight`; adapters of embeddings are named otherwise.
    """
    tensors = dict(model.named_parameters())
    policy = re.compile(rf"\.{POLICY}(?=\.|$)")
    for name, tensor in tensors.items():
        if policy.search(name):
            reference = tensors[policy.sub(f".{REFERENCE}", name)]
            reference.data = tensor.data.clone()
            reference.requires_grad = False
