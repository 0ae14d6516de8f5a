"""Settings of the methods. Imports no training library, so that recipes are read at once."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LoraConfig(BaseModel):
    """Low-rank adapters; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=128, ge=1, description="Rank of the update.")
    alpha: int = Field(default=64, ge=1, description="Scale of the update.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout on the adapters' input.")
    targets: list[str] | None = Field(
        default=None, description="Modules to adapt; PEFT's choice for the architecture if null."
    )


class SFTConfig(BaseModel):
    """Supervised fine-tuning on the union of D_0..D_i."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["sft"] = Field(default="sft", description="sft.")
    start_from: Literal["base", "previous"] = Field(
        default="previous", description="Train from the base model or pi_{i-1}."
    )
    branches: bool = Field(default=False, description="All steps of an episode in one pass (dialogue renderer).")
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: Muon on matrices, AdamW on the rest."
    )
    lr: float = Field(default=3e-5, gt=0, description="Learning rate (AdamW's part).")
    muon_lr: float = Field(default=0.01, gt=0, description="Learning rate of Muon's part.")
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Learning rate after the warm-up."
    )
    warmup_steps: int = Field(default=10, ge=0, description="Linear warm-up, in optimizer steps.")
    epochs: float = Field(default=1.0, gt=0, description="Passes over the rows, if steps is null.")
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps; replaces epochs.")
    first_steps: int | None = Field(
        default=None, ge=1, description="Optimizer steps of behaviour cloning, if they differ."
    )
    batch_rows: int = Field(default=32, ge=1, description="Rows per optimizer step (row training).")
    device_rows: int = Field(default=4, ge=1, description="Rows at once on the device (row training).")
    batch_tokens: int = Field(default=4096, ge=64, description="Tokens per optimizer step (branch training).")
    max_tokens: int = Field(default=8000, ge=64, description="Rows longer than this are left out and counted.")
    max_grad_norm: float = Field(default=0.3, gt=0, description="Gradient clipping.")
    bf16: bool = Field(default=False, description="Compute in bfloat16.")
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations to save memory.")
    save_steps: int = Field(
        default=0, ge=0, description="Save the trainer's state so often, to resume from; 0: never."
    )
    lora: LoraConfig | None = Field(default=None, description="Train low-rank adapters instead of all weights.")
