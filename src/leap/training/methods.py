"""leap's own methods: SFT on everything collected, DPO and KTO on the last corrections, and SFT before either."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from leap.core import content_key
from leap.datasets import PreferenceRow, Row
from leap.errors import RunError
from leap.files import SEAL, atomic_directory, read_json, seal, sealed, write_json
from leap.training.config import DPOConfig, KTOConfig, SFTConfig
from leap.training.method import Collected, Job, Method, TrainingResult

_RESULT = "training.json"


class SFT(Method[SFTConfig]):
    """pi_i <- SFT(D_0 u .. u D_i)."""

    Config = SFTConfig
    packages = ("trl", "datasets")

    def starts_from(self, i: int) -> Literal["base", "previous"]:
        return "base" if i == 0 else self.config.start_from

    def settings(self, i: int) -> dict[str, object]:
        # Which of both counts are that of behaviour cloning and which that of the other trainings.
        return self.config.deciding() | {"first_steps": None, "steps": self._steps(i)}

    def planned_steps(self, i: int) -> Mapping[str, int | None]:
        return {"train": self._steps(i)}

    def train(self, rows: Sequence[Row], job: Job) -> TrainingResult:
        from leap.training.sft import train_sft

        return train_sft(self.config.model_copy(update={"steps": self._steps(job.iteration)}), rows, job)

    def _steps(self, i: int) -> int | None:
        """Optimizer steps, which of behaviour cloning may differ from those of the other trainings."""
        return (self.config.first_steps if i == 0 else None) or self.config.steps


@dataclass(frozen=True, slots=True)
class PreferenceData:
    """What a preference method trains on.

    Attributes:
        rows: What SFT trains on, where it comes first.
        pairs: The pairs of D_i.
    """

    rows: Sequence[Row]
    pairs: Sequence[PreferenceRow]


class PreferenceMethod(Method[DPOConfig | KTOConfig]):
    """pi_0 by SFT on D_0; then preference tuning on D_i, its reference pi_{i-1}, or what SFT on D_0 u .. u D_i leaves."""

    packages = ("trl", "datasets")

    @property
    def sft(self) -> SFT:
        """Behaviour cloning by the recipe's settings for it."""
        return SFT(self.config.sft)

    def starts_from(self, i: int) -> Literal["base", "previous"]:
        return self.sft.starts_from(i) if i == 0 or self.config.sft_first else "previous"

    def reads(self, i: int) -> Sequence[int]:
        return range(i + 1) if i == 0 or self.config.sft_first else [i]

    def settings(self, i: int) -> dict[str, object]:
        return self.sft.settings(0) if i == 0 else self.config.deciding() | {"first_steps": None}

    def planned_steps(self, i: int) -> Mapping[str, int | None]:
        before = self.sft.planned_steps(i) if i == 0 or self.config.sft_first else {}
        return {**before, "preference": self.config.steps} if i else before

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
        from leap.training.preference import train_preference

        if not isinstance(rows, PreferenceData):
            return self.sft.train(rows, job)
        first = None
        if self.config.sft_first:
            first, job = self._after_sft(rows.rows, job)
        result = train_preference(self.config, rows.pairs, job) if rows.pairs else _kept_as_it_is(job)
        return replace(result, first=first)

    def _after_sft(self, rows: Sequence[Row], job: Job) -> tuple[TrainingResult, Job]:
        """What SFT did, unless it did so before an interruption; and the preference tuning that goes on from there."""
        from leap.training.distributed import barrier, rank

        part, first = job.work / "sft-policy", None
        if not rank() and part.exists() and not sealed(part):
            shutil.rmtree(part)
        barrier()
        if not part.exists():
            with nullcontext(part) if rank() else atomic_directory(part) as folder:
                first = self.sft.train(rows, replace(job, out=folder, work=job.work / "sft"))
                if not rank():
                    write_json(folder / _RESULT, asdict(first))
                    seal(folder)
            barrier()  # until rank 0 has put the folder in place
        first = first or TrainingResult(**read_json(part / _RESULT))
        return first, replace(job, start=str(part), work=job.work / "preference")


class DPO(PreferenceMethod):
    """pi_i <- DPO(D_i, reference = pi_{i-1}) (paper, Fig. 1)."""

    Config = DPOConfig


class KTO(PreferenceMethod):
    """pi_i <- KTO(D_i, reference = pi_{i-1})."""

    Config = KTOConfig


class SFTThenDPO(DPO):
    """SFT on D_0 u .. u D_i, then DPO on D_i."""


class SFTThenKTO(KTO):
    """SFT on D_0 u .. u D_i, then KTO on D_i."""


def _kept_as_it_is(job: Job) -> TrainingResult:
    """A checkpoint left untrained."""
    from leap.training.distributed import rank

    if not Path(job.start).is_dir():
        raise RunError(f"there is no pair to train on, and {job.start!r} is not a checkpoint directory that could be kept.")
    if not rank():
        shutil.copytree(job.start, job.out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("leap.json", _RESULT, SEAL))
    return TrainingResult(steps=0, rows=0, too_long=0, tokens=0, answer_tokens=0, loss=0.0, seconds=0.0)
