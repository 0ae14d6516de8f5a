"""leap's own methods: SFT on everything collected, DPO and KTO on the last corrections, and SFT before either."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from leap.core import content_key
from leap.datasets import PreferenceRow, Row
from leap.errors import RunError
from leap.files import atomic_directory, read_json, write_json
from leap.training.config import (
    DPOConfig,
    KTOConfig,
    PreferenceConfig,
    SFTConfig,
    SFTThenDPOConfig,
    SFTThenKTOConfig,
)
from leap.training.method import Collected, Job, Method, TrainingResult

_RESULT = "training.json"


class SFT(Method[SFTConfig]):
    """pi_i <- SFT(D_0 u .. u D_i)."""

    Config = SFTConfig

    @property
    def packages(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return () if self.config.branches else ("trl", "datasets")

    def starts_from(self, i: int) -> Literal["base", "previous"]:
        return "base" if i == 0 else self.config.start_from

    def settings(self, i: int) -> dict[str, Any]:
        # Which of both counts are that of behaviour cloning and which that of the other trainings.
        return self.config.deciding() | {"first_steps": None, "steps": self._steps(i) or self.config.steps}

    def planned_steps(self, i: int) -> Mapping[str, int | None]:
        return {"train": self._steps(i) or self.config.steps}

    def train(self, rows: Sequence[Row], job: Job) -> TrainingResult:
        from leap.training.sft import train_sft

        return train_sft(
            self.config,
            rows,
            start=job.start,
            out=job.out,
            work=job.work,
            seed=job.seed,
            steps=self._steps(job.iteration),
            on_step=job.on_step,
        )

    def _steps(self, i: int) -> int | None:
        """Optimizer steps of behaviour cloning, where they differ from those of the other trainings."""
        return self.config.first_steps if i == 0 else None


@dataclass(frozen=True, slots=True)
class PreferenceData:
    """What a preference method trains on.

    Attributes:
        rows: What SFT trains on, where it comes first.
        pairs: The pairs of D_i.
    """

    rows: Sequence[Row]
    pairs: Sequence[PreferenceRow]


class PreferenceMethod(Method[PreferenceConfig]):
    """pi_0 by SFT on D_0; then preference tuning on D_i, its reference pi_{i-1}, or what SFT on D_0 u .. u D_i leaves."""

    packages = ("trl", "datasets")

    @abstractmethod
    def tune(self, pairs: Sequence[PreferenceRow], job: Job) -> TrainingResult:
        """Trains on pairs, at least one of them, with `job.start` as the reference."""

    @property
    def sft(self) -> SFT:
        """Behaviour cloning by the recipe's settings for it."""
        return SFT(self.config.sft)

    def starts_from(self, i: int) -> Literal["base", "previous"]:
        return "base" if i == 0 else self.config.start_from

    def reads(self, i: int) -> Sequence[int]:
        return range(i + 1) if i == 0 or self.config.sft_first else [i]

    def settings(self, i: int) -> dict[str, Any]:
        return self.sft.settings(0) if i == 0 else self.config.deciding() | {"first_steps": None}

    def planned_steps(self, i: int) -> Mapping[str, int | None]:
        if i == 0:
            return self.sft.planned_steps(0)
        before = self.sft.planned_steps(i) if self.config.sft_first else {}
        return {**before, "preference": self.config.steps}

    def rows(self, collected: Collected) -> Sequence[Row] | PreferenceData:
        i = collected.iteration
        if i == 0:
            return collected.union()
        return PreferenceData(collected.union() if self.config.sft_first else (), collected.pairs(i))

    def fingerprint(self, rows: Sequence[Row] | PreferenceData) -> list[str]:
        if not isinstance(rows, PreferenceData):
            return []
        return [content_key([(pair.key, pair.rejected) for pair in rows.pairs])]

    def train(self, rows: Sequence[Row] | PreferenceData, job: Job) -> TrainingResult:
        """Trains pi_i. Where D_i holds no pair, because the student did everywhere as it was told, pi_i is pi_{i-1}, or what
        SFT made of it."""
        if not isinstance(rows, PreferenceData):
            return self.sft.train(rows, job)
        first = None
        if self.config.sft_first:
            first, job = self._after_sft(rows.rows, job)
        result = self.tune(rows.pairs, job) if rows.pairs else _kept_as_it_is(job)
        return replace(result, first=first)

    def _after_sft(self, rows: Sequence[Row], job: Job) -> tuple[TrainingResult, Job]:
        """What SFT did, unless it did so before an interruption; and the preference tuning that goes on from there."""
        from leap.training.distributed import rank

        part, first = job.work / "sft-policy", None
        if not part.exists():
            with _by_rank_0(part) as temporary:
                first = self.sft.train(rows, replace(job, out=temporary, work=job.work / "sft"))
                if rank() == 0:
                    write_json(temporary / _RESULT, first.as_dict())
        first = first or TrainingResult(**read_json(part / _RESULT))
        return first, replace(job, start=str(part), work=job.work / "preference")


class DPO(PreferenceMethod):
    """pi_i <- DPO(D_i, reference = pi_{i-1}) (paper, Fig. 1)."""

    Config = DPOConfig

    def tune(self, pairs: Sequence[PreferenceRow], job: Job) -> TrainingResult:
        from leap.training.preference import dpo_trainer, train_preference

        return train_preference(self.config, pairs, job, dpo_trainer)


class KTO(PreferenceMethod):
    """pi_i <- KTO(D_i, reference = pi_{i-1})."""

    Config = KTOConfig

    def tune(self, pairs: Sequence[PreferenceRow], job: Job) -> TrainingResult:
        from leap.training.preference import kto_trainer, train_preference

        return train_preference(self.config, pairs, job, kto_trainer, rows_per_pair=2)


class SFTThenDPO(DPO):
    """SFT on D_0 u .. u D_i, then DPO on D_i."""

    Config = SFTThenDPOConfig


class SFTThenKTO(KTO):
    """SFT on D_0 u .. u D_i, then KTO on D_i."""

    Config = SFTThenKTOConfig


@contextmanager
def _by_rank_0(folder: Path) -> Iterator[Path]:
    """A folder that rank 0 fills and puts in place when all ranks are done."""
    from leap.training.distributed import barrier, rank

    if rank() == 0:
        with atomic_directory(folder) as temporary:
            yield temporary
    else:
        yield folder
    barrier()


def _kept_as_it_is(job: Job) -> TrainingResult:
    """A checkpoint left untrained."""
    from leap.training.distributed import rank

    if not Path(job.start).is_dir():
        raise RunError(f"there is no pair to train on, and {job.start!r} is not a checkpoint directory that could be kept.")
    if rank() == 0:
        shutil.copytree(job.start, job.out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("leap.json", _RESULT))
    return TrainingResult(steps=0, rows=0, too_long=0, tokens=0, answer_tokens=0, loss=0.0, seconds=0.0)
