"""Training by any method: pi_i from pi_{i-1} (or the base) and what has been collected."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from leap.datasets import PreferenceRow, Row
from leap.errors import RunError
from leap.files import atomic_directory, read_json, write_json
from leap.training.config import PreferenceConfig, SFTConfig, TrainingSettings
from leap.training.distributed import barrier, follow, lead, rank
from leap.training.sft import train_sft
from leap.training.trainer import Progress, TrainingResult

_RESULT = "training.json"


def train(
    config: TrainingSettings,
    rows: Sequence[Row],
    preferences: Sequence[PreferenceRow] | None = None,
    *,
    start: str,
    out: Path,
    work: Path,
    seed: int,
    steps: int | None = None,
    on_step: Progress = lambda done, total, loss: None,
) -> TrainingResult:
    """Trains by the recipe's method. In several processes rank 0 calls this, and the others `train_as_follower`.

    Args:
        config: The method's settings.
        rows: The union of D_0..D_i; rows of one episode stand together. DPO and KTO read them for pi_0 only.
        preferences: The pairs of D_i; None for pi_0, which is always cloned by SFT. Where D_i holds no pair, because the
            student did everywhere as it was told, pi_i is pi_{i-1} (or what SFT made of it).
        start: Checkpoint directory or hub name of pi_{i-1}, or of the base.
        out: Where to leave the trained checkpoint.
        work: Folder for what an interrupted training goes on from.
        seed: Seed of the order of the rows.
        steps: Optimizer steps of SFT; the config's by default.
        on_step: Called after each step with (steps done, steps in all, loss); a method's parts count for themselves.

    Raises:
        PrerequisiteError: A package or the checkpoint is missing.
        RecipeError: The settings do not fit the number of processes.
        RunError: All pairs are too long.
    """
    job: dict[str, Any] = {
        "config": config,
        "rows": rows,
        "preferences": preferences,
        "start": start,
        "out": out,
        "work": work,
        "seed": seed,
        "steps": steps,
    }
    lead(job)
    return _train(**job, on_step=on_step)


def train_as_follower() -> None:
    """Takes part in the trainings that rank 0 starts; returns when rank 0 has no more."""
    follow(_train)


def _train(
    config: TrainingSettings,
    rows: Sequence[Row],
    preferences: Sequence[PreferenceRow] | None,
    *,
    start: str,
    out: Path,
    work: Path,
    seed: int,
    steps: int | None,
    on_step: Progress = lambda done, total, loss: None,
) -> TrainingResult:
    if isinstance(config, SFTConfig):
        return train_sft(config, rows, start=start, out=out, work=work, seed=seed, steps=steps, on_step=on_step)
    assert isinstance(config, PreferenceConfig)
    if preferences is None:
        return train_sft(config.sft, rows, start=start, out=out, work=work, seed=seed, steps=steps, on_step=on_step)
    first = None
    if config.sft_first:
        part = work / "sft-policy"
        if not part.exists():
            with _by_rank_0(part) as temporary:
                first = train_sft(
                    config.sft, rows, start=start, out=temporary, work=work / "sft", seed=seed, steps=steps, on_step=on_step
                )
                if rank() == 0:
                    write_json(temporary / _RESULT, first.as_dict())
        first = first or TrainingResult(**read_json(part / _RESULT))
        start, work = str(part), work / "preference"
    if not preferences:
        return replace(_kept_as_it_is(start, out), first=first)
    from leap.training.preference import train_preference

    result = train_preference(config, preferences, start=start, out=out, work=work, seed=seed, on_step=on_step)
    return replace(result, first=first)


@contextmanager
def _by_rank_0(folder: Path) -> Iterator[Path]:
    """A folder that rank 0 fills and puts in place when all ranks are done."""
    if rank() == 0:
        with atomic_directory(folder) as temporary:
            yield temporary
    else:
        yield folder
    barrier()


def _kept_as_it_is(start: str, out: Path) -> TrainingResult:
    """A checkpoint left untrained."""
    if not Path(start).is_dir():
        raise RunError(f"there is no pair to train on, and {start!r} is not a checkpoint directory that could be kept.")
    if rank() == 0:
        shutil.copytree(start, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("leap.json", _RESULT))
    return TrainingResult(steps=0, rows=0, too_long=0, tokens=0, answer_tokens=0, loss=0.0, seconds=0.0)
