"""Tokens are drawn from logits."""

from __future__ import annotations

import torch

_AT_ONCE = 1 << 19
"""Numbers that a CPU works on together, pass after pass: more would go through memory each time, for several times as long."""


def draw(logits: torch.Tensor, temperatures: list[float], numbers: list[float]) -> tuple[list[int], list[float]]:
    """One column of each row: the likeliest at temperature 0, else drawn with a number of its own.

    Args:
        logits: [rows, columns]; -inf where a column may not be drawn.
        temperatures: Each row's.
        numbers: Each row's, uniform from 0 to 1.

    Returns:
        The columns, and the logarithms of their probabilities, at temperature 0 as if they had been drawn at 1.
    """
    rows = max(1, _AT_ONCE // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    columns: list[int] = []
    logprobs: list[float] = []
    for at in range(0, len(logits), rows):
        part = slice(at, at + rows)
        some = _draw(logits[part].float(), temperatures[part], numbers[part])
        columns += some[0].tolist()
        logprobs += some[1].tolist()
    return columns, logprobs


def _draw(logits: torch.Tensor, temperatures: list[float], numbers: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    if any(temperatures):
        at = torch.tensor([[one] for one in temperatures], device=logits.device)
        drawn = at > 0
        logits = logits / at.where(drawn, 1.0)
        probabilities = logits.softmax(dim=-1)
        cumulated = probabilities.cumsum(dim=-1)
        draws = torch.tensor([[one] for one in numbers], device=logits.device) * cumulated[:, -1:]
        found = torch.searchsorted(cumulated, draws, right=True)
        # A draw that rounding lifts to the whole sum would fall behind the last column: take the last possible one.
        found = found.minimum(torch.searchsorted(cumulated, cumulated[:, -1:].contiguous()))
        chosen = found if all(temperatures) else found.where(drawn, _likeliest(logits))
    else:
        probabilities, chosen = logits.softmax(dim=-1), _likeliest(logits)
    return chosen.squeeze(1), probabilities.gather(1, chosen).log().squeeze(1)  # logsumexp takes longer on a CPU


def _likeliest(logits: torch.Tensor) -> torch.Tensor:
    if logits.device.type == "cpu":  # torch's own argmax takes ten times as long there
        return torch.from_numpy(logits.numpy().argmax(axis=-1, keepdims=True))
    return logits.argmax(dim=-1, keepdim=True)
