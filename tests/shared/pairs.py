"""Pairs, rows and captured batches for the tests of preference training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from histories import CHOICES, a_history

from leap.core import Decision
from leap.datasets import Lesson, PreferenceRow, Row, Taught
from leap.envs.answer import format_answer
from leap.policies.rendering import PromptConfig, Renderer
from leap.training.config import DistillConfig, DPOConfig, KTOConfig, LoraConfig, SFTConfig
from leap.training.method import Job, method_of, quiet
from leap.training.methods import PreferenceData

SMALL: dict[str, Any] = {"lr": 1e-2, "warmup_steps": 0, "schedule": "constant", "max_grad_norm": 1.0}
DPO = DPOConfig(**SMALL, beta=0.1, batch_rows=4, device_rows=2)
KTO = KTOConfig(**SMALL, beta=0.1, batch_rows=8, device_rows=4)
ADAPTER = LoraConfig(rank=4, alpha=8, dropout=0.1, targets=["q_proj", "v_proj"])
SFT = SFTConfig(**SMALL, batch_rows=4, device_rows=2)
LORA = SFT.model_copy(update={"lora": ADAPTER})
DISTILL = DistillConfig(**SMALL, teacher="ema", batch_tokens=100_000)
BOTH = DPOConfig(method="sft+dpo", **SMALL, beta=0.1, batch_rows=4, device_rows=2, sft=SFT)


def answer(k: int, t: int, *, wrong: bool = False) -> str:
    action = CHOICES[(k + t + 2 * wrong) % len(CHOICES)]
    return format_answer(Decision(reason=f"mug {t} is {'not ' * wrong}here in {k}.", action=action))


def some_rows(episodes: int = 3, steps: int = 3) -> list[Row]:
    render = Renderer(PromptConfig(instructions=False)).render
    return [
        Row(
            prompt=render(a_history("abc"[k], t)),
            completion=[{"role": "assistant", "content": answer(k, t)}],
            episode=f"episode-{k}",
            t=t,
            source="correction",
            iteration=1,
        )
        for k in range(episodes)
        for t in range(steps)
    ]


def lessons(rows: list[Row], told: str = "It is in the drawer.") -> list[Lesson]:
    found = []
    for row in rows:
        last = row.prompt[-1]
        privileged = [*row.prompt[:-1], {**last, "content": f"{last['content']}\n\n{told}"}]
        own = tuple(range(20, 30 + row.t))
        found.append(
            Lesson(row.episode, row.t, row.prompt, privileged, [], None, own, corrected=True, wrong=bool(row.t % 2))  # type: ignore[arg-type]
        )
    return found


def some_pairs(episodes: int = 3, steps: int = 3) -> list[PreferenceRow]:
    return [
        PreferenceRow(
            prompt=row.prompt,
            chosen=row.completion,
            rejected=[{"role": "assistant", "content": answer(int(row.episode[-1]), row.t, wrong=True)}],
            episode=row.episode,
            t=row.t,
            iteration=1,
        )
        for row in some_rows(episodes, steps)
    ]


def train(
    config: Any,
    start: str,
    folder: Path,
    *,
    rows: Any = None,
    preferences: Any = (),
    seed: int = 1,
    steps: int | None = None,
    on_step: Any = quiet,
) -> Any:
    """Trains pi_1, or pi_0 where there are no preferences (None); by default on some rows and some pairs."""
    from leap.training.distributed import train

    if steps is not None:  # of SFT
        sft = getattr(config, "sft", config).model_copy(update={"steps": steps, "first_steps": None})
        config = config.model_copy(update={"sft": sft}) if hasattr(config, "sft") else sft
    rows = some_rows() if rows is None else rows
    method, i = method_of(config), 0 if preferences is None else 1
    if i and isinstance(config, DistillConfig):
        rows = Taught(rows, lessons(rows))
    if i and hasattr(config, "sft"):
        rows = PreferenceData(rows, some_pairs() if preferences == () else preferences)
    return train(method, rows, Job(i, start, folder / "out", folder / "work", seed, on_step))


@dataclass
class Seen:
    """What trainers computed.

    Attributes:
        rows: (prompt ids, answer ids) of every row, with the label in KTO.
        losses: Of every device batch.
        rewards: Largest absolute reward of every device batch.
    """

    rows: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)


@contextmanager
def watched(trainer: Any) -> Iterator[Seen]:
    """Notes what a trainer class computes, from the batches that reach its loss."""
    seen, compute = Seen(), trainer.compute_loss

    def noting(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        ids = inputs["input_ids"]
        bears = inputs["completion_mask"] == 1 if "completion_mask" in inputs else inputs["labels"] != -100
        real = inputs["attention_mask"] == 1
        for row, loss, there in zip(ids, bears, real, strict=True):
            seen.rows.append((tuple(row[there & ~loss].tolist()), tuple(row[loss].tolist())))
        loss = compute(self, model, inputs, *args, **kwargs)
        seen.losses.append((loss[0] if isinstance(loss, tuple) else loss).item())
        figures = [values[-1] for name, values in self._metrics["train"].items() if name.startswith("rewards/") and values]
        seen.rewards.append(max((abs(value) for value in figures), default=0.0))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compute_loss", noting)
        yield seen


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
