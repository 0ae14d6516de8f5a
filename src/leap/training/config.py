"""Settings of the methods. Imports no training library, so that recipes are read at once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from leap.config import Section

if TYPE_CHECKING:
    from leap.recipe import Recipe

NEUTRAL = {"logging", "processes", "accelerate"}
"""Keys on which no weights depend."""
MOST_LR = 1e30
"""Optimizers multiply it, and what is no number in single precision ends them. A training diverges far below."""


class LoraConfig(Section):
    """Low-rank adapters; the defaults are the paper's."""

    rank: int = Field(default=128, ge=1, description="Rank of the update.")
    alpha: int = Field(default=64, ge=1, description="Scale of the update.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout on the adapters' input (in SFT).")
    targets: list[str] | Literal["all-linear"] | None = Field(
        default=None,
        description="Modules to adapt; all-linear: all linear layers but the output; PEFT's choice by architecture if null.",
    )


class TrainingSettings(Section):
    """What every method is told."""

    gone: ClassVar[dict[str, object]] = {"weight_decay": 0.0}

    method: str = Field(default="", description="Registered method: sft, dpo, kto, sft+dpo, sft+kto, or another package's.")
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: Muon on matrices, AdamW on the rest."
    )
    lr: float = Field(default=3e-5, gt=0, le=MOST_LR, description="Learning rate (AdamW's part).")
    muon_lr: float = Field(default=0.01, gt=0, le=MOST_LR, description="Learning rate of Muon's part.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Learning rate after the warm-up."
    )
    warmup_steps: int = Field(default=10, ge=0, description="Linear warm-up, in optimizer steps.")
    epochs: float = Field(default=1.0, gt=0, description="Passes over the rows, if steps is null.")
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps; replaces epochs.")
    batch_rows: int = Field(
        default=32, ge=1, description="Rows (dpo: pairs) per optimizer step, over all processes (row training)."
    )
    device_rows: int = Field(default=4, ge=1, description="Rows (dpo: pairs) at once on a device (row training).")
    max_tokens: int = Field(default=8000, ge=64, description="Rows longer than this are left out and counted.")
    max_grad_norm: float = Field(default=0.3, gt=0, description="Gradient clipping.")
    bf16: Literal["auto"] | bool = Field(
        default=False, description="Compute in bfloat16; auto: if the machine on which the run begins is faster in it."
    )
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations to save memory.")
    save_steps: int = Field(default=0, ge=0, description="Save the trainer's state so often, to resume from; 0: never.")
    lora: LoraConfig | None = Field(default=None, description="Train low-rank adapters instead of all weights.")
    quantize: Literal["none", "4bit"] = Field(
        default="none", description="4bit: the frozen base in 4-bit NF4 (QLoRA; needs lora and bitsandbytes)."
    )
    logging: Literal["none", "trackio", "wandb", "tensorboard"] = Field(
        default="none", description="Where the trainer reports loss and rewards, beside leap's own report."
    )

    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default=1, description="Processes that train together, each on a GPU of its own; auto: one for each GPU that is visible."
    )
    accelerate: str = Field(
        default="ddp",
        description="How they share the work: ddp (a copy each), fsdp (sharded weights), or a configuration file for accelerate.",
    )

    @model_validator(mode="after")
    def _quantized_weights_are_frozen(self) -> TrainingSettings:
        if self.quantize != "none" and self.lora is None:
            raise ValueError("quantize: 4bit needs lora: quantized weights cannot be trained themselves")
        return self

    @property
    def needs_tokens(self) -> bool:
        """Whether training reads the tokens of the student's answers as they were sampled."""
        return False

    @property
    def launch_file(self) -> Path:
        """The configuration of `accelerate launch`."""
        shipped = Path(__file__).parents[1] / "recipes" / "accelerate" / f"{self.accelerate}.yaml"
        return shipped if self.accelerate in ("ddp", "fsdp") else Path(self.accelerate)

    def missing(self) -> Iterator[str]:
        """What these settings need that is not installed, each with the command that mends it."""
        if self.quantize != "none" and find_spec("bitsandbytes") is None:
            yield "training.quantize: 4bit needs bitsandbytes: pip install 'leap-agents[qlora]'"
        if self.processes != 1 and not self.launch_file.is_file():
            yield f"training.accelerate: {self.accelerate!r} is neither ddp, fsdp nor a file."
        if self.logging != "none" and find_spec(self.logging) is None:
            yield f"training.logging: {self.logging} is not installed: pip install {self.logging}"

    def settled(self, bf16_pays: Callable[[], bool]) -> Self:
        """The same without `auto`.

        Args:
            bf16_pays: Says whether the run's machine is faster in bfloat16; asked if that decides anything.
        """
        return self.model_copy(update={"bf16": bf16_pays()}) if self.bf16 == "auto" else self

    @property
    def by_value(self) -> bool:
        """Whether a value model takes the place of corrections."""
        return False

    def deciding(self) -> dict[str, object]:
        """The settings that decide the weights: all but where training runs and is logged. Keys that have gone stay in: these
        name checkpoints, and those on file keep their names."""
        return self.gone | self.model_dump(mode="json", exclude=NEUTRAL)

    @classmethod
    def in_place_of(cls, other: Mapping[str, object]) -> dict[str, object]:
        """The section under this method where it was `other` under another: the values of the keys that both have."""
        return {key: value for key, value in other.items() if key in cls.model_fields}

    def check(self, recipe: Recipe) -> None:
        """Looks at the rest of the recipe.

        Raises:
            ValueError: Something in it makes no sense with these settings.
        """
        if recipe.student.from_scratch and self.lora is not None:
            raise ValueError("training.lora makes no sense for a scratch student: its base weights are random")


class SFTConfig(TrainingSettings):
    """Supervised fine-tuning on the union of D_0..D_i."""

    method: Literal["sft"] = Field(default="sft", description="sft.")  # pyright: ignore[reportIncompatibleVariableOverride]
    start_from: Literal["base", "previous"] = Field(
        default="previous", description="Train from the base model or pi_{i-1}."
    )
    branches: bool = Field(default=False, description="All steps of an episode in one pass (dialogue renderer).")
    first_steps: int | None = Field(
        default=None, ge=1, description="Optimizer steps of behaviour cloning, if they differ."
    )
    batch_tokens: int = Field(default=4096, ge=64, description="Tokens per optimizer step (branch training).")

    @classmethod
    def in_place_of(cls, other: Mapping[str, object]) -> dict[str, object]:
        sft = other.get("sft")
        return super().in_place_of(sft if isinstance(sft, Mapping) else other)

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        if self.branches and recipe.student.prompt.renderer != "dialogue":
            raise ValueError("training.branches needs student.prompt.renderer: dialogue (paper prompts share no prefix)")


SHARED = ("lora", "quantize", "bf16", "gradient_checkpointing", "max_tokens", "save_steps", "logging", "processes", "accelerate")
"""Keys that hold for the section `sft` of a preference method too, unless it says otherwise."""


class PreferenceConfig(TrainingSettings):
    """What the preference methods share.

    pi_0 is cloned from D_0 by SFT, as in every method: there is nothing yet to prefer. After that pi_i is trained from
    pi_{i-1} on D_i alone, with pi_{i-1} as its reference (paper, Fig. 1); with sft+dpo and sft+kto from what SFT on
    D_0..D_i leaves, with that as its reference. Dropout is off in preference training.
    """

    gone: ClassVar[dict[str, object]] = TrainingSettings.gone | {"precompute_reference": False}

    # The reference implementation's settings of preference training (DPO).
    lr: float = Field(default=5e-7, gt=0, le=MOST_LR, description="Learning rate (AdamW's part).")
    batch_rows: int = Field(default=16, ge=1, description="Rows (dpo: pairs) per optimizer step, over all processes.")
    device_rows: int = Field(default=2, ge=1, description="Rows (dpo: pairs) at once on a device.")
    pairs: Literal["corrections", "value"] = Field(
        default="corrections",
        description="What is preferred. corrections: the teacher's over the student's answer; value: of several answers of "
        "pi_{i-1} at one history the best over the worst, by its value model (the recipe's section `value`).",
    )
    pair_answers: int = Field(default=8, ge=2, description="Answers drawn at each step (pairs: value).")
    pair_margin: float = Field(
        default=0.03, ge=0, le=1, description="By how much the values of a pair differ at least (pairs: value)."
    )
    sft: SFTConfig = Field(
        default_factory=SFTConfig,
        description="Behaviour cloning of pi_0; with sft+dpo and sft+kto, also what comes first in every iteration.",
    )

    @model_validator(mode="before")
    @classmethod
    def _share(cls, values: object) -> object:
        if isinstance(values, Mapping) and isinstance(values.get("sft", {}), Mapping):
            shared = {key: values[key] for key in SHARED if key in values}
            return {**values, "sft": {**shared, **values.get("sft", {})}}
        return values

    @model_validator(mode="after")
    def _adapters_go_on(self) -> PreferenceConfig:
        if (self.sft.processes, self.sft.accelerate) != (self.processes, self.accelerate):
            raise ValueError("sft.processes, sft.accelerate: both parts of a training run in the same processes")
        if self.sft.lora is not None and self.lora is None:
            raise ValueError("sft.lora leaves an adapter, so preference training must go on with it: set lora too")
        if self.sft_first and self.lora is not None and self.sft.lora is None:
            raise ValueError("lora: SFT then trains all weights, of which no copy is kept for the adapter: set sft.lora too")
        return self

    @classmethod
    def in_place_of(cls, other: Mapping[str, object]) -> dict[str, object]:
        """What was said of SFT stays true of SFT, and the method's own settings are its defaults, but for what holds for both."""
        sft = SFTConfig.in_place_of(other)
        return {key: sft[key] for key in SHARED if key in sft} | {"sft": sft | {"method": "sft"}}

    def settled(self, bf16_pays: Callable[[], bool]) -> Self:
        return super().settled(bf16_pays).model_copy(update={"sft": self.sft.settled(bf16_pays)})

    @property
    def by_value(self) -> bool:
        return self.pairs == "value"

    def deciding(self) -> dict[str, object]:
        told = super().deciding() | {"sft": self.sft.deciding()}
        if not self.by_value:  # as before there were others: checkpoints on file keep their names
            for key in ("pairs", "pair_answers", "pair_margin"):
                del told[key]
        return told

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        self.sft.check(recipe)
        if recipe.rollouts.beta:
            raise ValueError(
                f"rollouts.beta: {self.method} prefers corrections over the student's own answers, so the student "
                "must act alone; set it to 0 or use training.method: sft"
            )

    @property
    def sft_first(self) -> bool:
        """Whether each iteration is SFT on the union of D_0..D_i, then preference tuning on D_i."""
        return self.method.startswith("sft+")


class DPOConfig(PreferenceConfig):
    """Direct preference optimisation (Rafailov et al. 2023) of corrections over what the student did."""

    method: Literal["dpo", "sft+dpo"] = "dpo"  # pyright: ignore[reportIncompatibleVariableOverride]
    beta: float = Field(default=0.01, gt=0, description="Strength of the pull towards the reference.")
    sft_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the corrections' own likelihood in the loss (nats per answer token; RPO, Pang et al. 2024).",
    )


class KTOConfig(PreferenceConfig):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024): corrections desirable, what the student did undesirable."""

    gone: ClassVar[dict[str, object]] = PreferenceConfig.gone | {"desirable_weight": 1.0, "undesirable_weight": 1.0}

    method: Literal["kto", "sft+kto"] = "kto"  # pyright: ignore[reportIncompatibleVariableOverride]
    batch_rows: int = Field(default=32, ge=2, description="Rows per optimizer step, over all processes.")
    device_rows: int = Field(
        default=4, ge=2, description="Rows at once on a device; they also estimate the divergence from the reference."
    )
    beta: float = Field(default=0.1, gt=0, description="Strength of the pull towards the reference.")


OWN_WEIGHTS = ("frozen", "ema", "live")
"""Teachers that are the student itself."""


class DistillConfig(SFTConfig):
    """Privileged distillation; pi_0 is cloned by SFT. The keys of SFT hold for the whole of it."""

    method: Literal["distill"] = Field(default="distill", description="distill.")  # type: ignore[assignment]
    start_from: Literal["previous"] = Field(  # type: ignore[assignment]
        default="previous", description="Trains on from pi_{i-1}."
    )
    branches: Literal[True] = Field(  # type: ignore[assignment]
        default=True, description="Always: all answers of an episode, the student's and the teacher's, on one trunk."
    )
    teacher: str = Field(
        default="frozen",
        description="Whose distribution is learnt, the privileged state in its prompt. frozen: pi_{i-1}; ema: a moving average "
        "of the student; live: the student as it is; or hf/PATH-or-name of a bigger model with the same tokenizer.",
    )
    ema: float = Field(default=0.05, gt=0, le=1, description="Share of the student in the moving average, per step.")
    divergence: Literal["forward", "reverse", "jsd"] = Field(
        default="forward", description="KL(teacher || student), KL(student || teacher), or between both."
    )
    alpha: float = Field(default=0.5, gt=0, lt=1, description="Of jsd: the teacher's share in the mixture and in the loss.")
    on: Literal["both", "corrections", "own"] = Field(
        default="both", description="Which answers are taught: valid corrections, the student's own as sampled, or both."
    )
    top_k: int | None = Field(
        default=100,
        ge=1,
        description="Likeliest tokens that are told apart, the rest in one; all if null, or where there are 4,096 at most.",
    )
    clip: float | None = Field(default=None, gt=0, description="Most nats that a token counts with; any if null.")
    balance: Literal["turns", "tokens"] = Field(
        default="turns", description="turns: each answer counts alike, however long it is; tokens: each token does."
    )
    weight: float = Field(default=1.0, ge=0, description="Weight of the divergence, a mean over what is taught.")
    ce_weight: float = Field(
        default=1.0, ge=0, description="Weight of the rows' own likelihood as in SFT, a mean over their tokens."
    )
    disagree: bool = Field(default=False, description="Teach only where the correction's action is not the student's.")
    gated: bool = Field(
        default=False, description="Weigh each token by sigmoid(5 (log p - log q)): what the teacher likes better (SDAR)."
    )
    contrast: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="Weigh each token by the share of its divergence that goes beyond the one from the same teacher told the "
        "privileged state of another task of that type: what any such text does is not taught (RLCSD).",
    )
    ratio: float | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda most: most is None,
        description="Of own answers under reverse KL: weigh each token by how much likelier the student has become to give it "
        "since pi_{i-1} did, at most so much. Null: all alike, however old the answers.",
    )
    gate: Literal["warn", "refuse", "off"] = Field(
        default="warn",
        description="Before pi_1 is trained, what to do where the privileged state in its prompt helps pi_0 too little.",
    )
    gate_tasks: int = Field(default=50, ge=1, description="Validation tasks that are played with and without it.")
    margin: float = Field(default=0.1, ge=0, le=1, description="By how much it must raise the share of tasks solved.")
    retire: float | None = Field(
        default=0.95,
        gt=0,
        description="Without divergence from where on the student solves this share of what it solves with privilege, and the "
        "difference has not shrunk in two iterations; never if null.",
    )

    @field_validator("teacher")
    @classmethod
    def _is_a_teacher(cls, teacher: str) -> str:
        if teacher not in OWN_WEIGHTS and not (teacher.startswith("hf/") and teacher.removeprefix("hf/").strip()):
            raise ValueError(f"must be one of {', '.join(OWN_WEIGHTS)}, or hf/PATH-or-name of a model")
        return teacher

    @model_validator(mode="after")
    def _teaches_something(self) -> DistillConfig:
        if not self.weight:
            raise ValueError("weight: 0 teaches nothing; use method: sft")
        if self.contrast and self.teacher == "live":
            raise ValueError("contrast: a live teacher is told one privileged state alone; use teacher: frozen or ema")
        if self.ratio is not None and (self.divergence != "reverse" or self.on == "corrections"):
            raise ValueError("ratio: weighs own answers under divergence: reverse; nothing else grows stale")
        return self

    @property
    def needs_tokens(self) -> bool:
        return self.on != "corrections"

    @property
    def own_weights(self) -> bool:
        """Whether the teacher is the student itself."""
        return self.teacher in OWN_WEIGHTS

    @classmethod
    def in_place_of(cls, other: Mapping[str, object]) -> dict[str, object]:
        fixed = ("method", "branches", "start_from")
        return {key: value for key, value in super().in_place_of(other).items() if key not in fixed}

    def check(self, recipe: Recipe) -> None:
        TrainingSettings.check(self, recipe)  # rows of any renderer can be branches; those of `paper` only share little
        if self.own_weights and not recipe.teacher.privilege:
            raise ValueError("training.method: distill at teacher.privilege: 0: the student would learn what it does already")
        if not self.own_weights and recipe.student.from_scratch:
            raise ValueError("training.teacher: no other model has a scratch student's tokenizer; use frozen, ema or live")
        if self.needs_tokens and recipe.rollouts.tokens is False:
            raise ValueError(f"training.on: {self.on} needs the tokens of answers; leave rollouts.tokens at auto")
