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
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer, KTOTrainer
from trl import KTOConfig as TRLKTOConfig

from leap.datasets import PreferenceRow
from leap.errors import RunError
from leap.models.chat import ChatTokens
from leap.training.config import DPOConfig, KTOConfig, PreferenceConfig
from leap.training.method import Job, TrainingResult
from leap.training.student import POLICY, load_reference, load_student, save_student, unrounded
from leap.training.trainer import arguments, logged, optimizers, row_batches, run

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
    chosen, rejected = (chat.completion(side[0], pair.prompt, pair.tools) for side in (pair.chosen, pair.rejected))
    return TokenPair(chat.prompt(pair.prompt, pair.tools), chosen, rejected)


def train_preference(
    config: PreferenceConfig, pairs: Sequence[PreferenceRow], job: Job, build: BuildTrainer, *, rows_per_pair: int = 1
) -> TrainingResult:
    """Tunes a checkpoint to prefer the corrections in D_i to what the student did; the checkpoint is also the reference.

    Args:
        config: Settings of the method.
        pairs: The pairs of D_i.
        job: The training; its `start` is pi_{i-1}.
        build: Makes the trainer: `dpo_trainer` or `kto_trainer`.
        rows_per_pair: Rows that the trainer makes of a pair.

    Raises:
        RunError: All pairs are too long.
    """
    began = time.monotonic()
    torch.manual_seed(job.seed)
    model, tokenizer = load_student(job.start, config)
    chat = ChatTokens(tokenizer)
    encoded = [encode_pair(pair, chat) for pair in pairs]
    kept = [
        pair
        for pair in encoded
        if len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) <= config.max_tokens
    ]
    if not kept:
        raise RunError(f"none of the {len(pairs)} pairs has at most training.max_tokens: {config.max_tokens} tokens.")
    # With an adapter TRL keeps a frozen copy of it; without, a second model, or its likelihoods computed beforehand.
    reference = None if config.lora or config.precompute_reference else load_reference(job.start, config)
    shared: dict[str, Any] = {
        "model": model,
        "ref_model": reference,
        "processing_class": copy.deepcopy(tokenizer),  # it may be given a padding token
        "optimizers": optimizers(config, model),
    }
    with logged(config, job.work), unrounded(model):
        trainer = build(config, kept, shared, job)
    if config.lora is not None:
        copy_policy_to_reference(trainer.model)
    watch = run(trainer, job.work, job.on_step)
    save_student(trainer, tokenizer, job.out)
    steps = trainer.state.global_step
    epochs = steps * config.batch_rows / (len(kept) * rows_per_pair)
    answers = sum(len(pair.chosen) + len(pair.rejected) for pair in kept)
    return TrainingResult(
        steps=steps,
        rows=len(pairs),
        too_long=len(pairs) - len(kept),
        tokens=round(epochs * (answers + 2 * sum(len(pair.prompt) for pair in kept))),
        answer_tokens=round(epochs * answers),
        loss=watch.last_loss(),
        seconds=round(time.monotonic() - began, 1),
        rewards=watch.last_rewards(),
    )


BuildTrainer = Callable[[PreferenceConfig, Sequence[TokenPair], dict[str, Any], Job], Trainer]
"""Makes a trainer of settings, pairs, the models and the job."""


class _Tokenized:
    """For TRL's trainers: the rows come in tokens already. And no message to TRL's makers."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        pass


class TokenizedDPOTrainer(_Tokenized, DPOTrainer):
    """DPOTrainer on `prompt_ids`, `chosen_ids` and `rejected_ids`."""


class TokenizedKTOTrainer(_Tokenized, KTOTrainer):
    """KTOTrainer on `prompt_ids`, `completion_ids`, `KL_completion_ids` and `label`."""


def dpo_trainer(
    config: PreferenceConfig, pairs: Sequence[TokenPair], shared: dict[str, Any], job: Job
) -> Trainer:
    """Makes TRL's trainer of DPO on the pairs."""
    assert isinstance(config, DPOConfig)
    rows = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in pairs]
    made = arguments(
        config,
        job.work,
        job.seed,
        config.steps,
        TRLDPOConfig,
        beta=config.beta,
        loss_type=["sigmoid", "sft"] if config.sft_weight else ["sigmoid"],
        loss_weights=[1.0, config.sft_weight] if config.sft_weight else None,
        max_length=None,
        precompute_ref_log_probs=config.precompute_reference,
        **row_batches(config),
    )
    return TokenizedDPOTrainer(args=made, train_dataset=Dataset.from_list(rows), **shared)


def kto_trainer(
    config: PreferenceConfig, pairs: Sequence[TokenPair], shared: dict[str, Any], job: Job
) -> Trainer:
    """Makes TRL's trainer of KTO on the halves of the pairs."""
    assert isinstance(config, KTOConfig)
    batches = row_batches(config, least=2)
    steps = config.steps or max(1, round(config.epochs * 2 * len(pairs) / config.batch_rows))
    made = arguments(
        config,
        job.work,
        job.seed,
        steps,
        TRLKTOConfig,
        beta=config.beta,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
        max_length=None,
        precompute_ref_log_probs=config.precompute_reference,
        **batches,
    )
    order = kto_order(
        len(pairs), steps * config.batch_rows, device_rows=batches["per_device_train_batch_size"], seed=job.seed
    )
    halves = [half for pair in pairs for half in (pair.chosen, pair.rejected)]
    rows = [
        {
            "prompt_ids": pairs[half // 2].prompt,
            "completion_ids": halves[half],
            "KL_completion_ids": halves[other],
            "label": half % 2 == 0,
        }
        for half, other in order
    ]
    return TokenizedKTOTrainer(args=made, train_dataset=Dataset.from_list(rows), **shared)


def kto_order(pairs: int, rows: int, *, device_rows: int, seed: int) -> list[tuple[int, int]]:
    """The halves in training order, shuffled anew in each pass, each with the half whose answer serves to estimate the
    divergence from the reference (KTO paper, section 4.1): another of the same device batch, by a rotation of the batch.

    TRL rotates by one. Here the rotation is one that gives no prompt its own two answers where there is such a one, as the
    estimate is meant for answers to other prompts.

    Args:
        pairs: Number of pairs; halves 2k and 2k + 1 are pair k's.
        rows: How many halves the whole training takes.
        device_rows: Size of a device batch.
        seed: Of the shuffles.

    Returns:
        (half, half whose answer is set against its prompt), `rows` times.
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

        def clashes(shift: int, batch: list[int] = batch) -> int:
            return sum(half // 2 == batch[k - shift] // 2 for k, half in enumerate(batch))

        shift = min(range(1, len(batch)), key=clashes, default=0)
        order += [(half, batch[k - shift]) for k, half in enumerate(batch)]
    return order


def copy_policy_to_reference(model: Any) -> None:
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


