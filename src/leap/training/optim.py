"""Muon for the matrices, AdamW for the rest: worth five to ten times AdamW's time for a scratch student."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class Combined(torch.optim.Optimizer):
    """Several optimizers stepped as one, so that trainers, schedulers and checkpoints need not know."""

    def __init__(self, parts: Iterable[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        # The groups are the parts' own objects: a scheduler that sets a learning rate here sets it there.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def muon_with_adamw(model: torch.nn.Module, *, lr: float, muon_lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024; `torch.optim.Muon`) on the hidden layers' matrices, AdamW on embeddings, norms and head.

    Args:
        model: The model; parameters that need no gradient are left out.
        lr: AdamW's learning rate.
        muon_lr: Muon's learning rate.
        weight_decay: For both.
    """
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        hidden = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if hidden else rest).append(parameter)
    return Combined(
        [
            torch.optim.Muon(matrices, lr=muon_lr, weight_decay=weight_decay, momentum=0.95, nesterov=True),
            torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95)),
        ]
    )
