"""The losses of a training, step by step: a line each while it is under way, and curves of them in the checkpoint's marker."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import ceil, isfinite
from pathlib import Path
from statistics import fmean

from leap.files import append_line

POINTS = 200
"""Most points of a curve; each is the mean of as many steps."""

Curve = list[tuple[int, float]]
"""Steps and losses, of one part of a method: of SFT, say, or of the DPO that follows."""


def note_loss(path: Path, step: int, steps: int, loss: float) -> None:
    """Adds a step's loss to a file."""
    append_line(path, json.dumps([step, steps, loss]).encode() + b"\n")


def last_step(path: Path) -> tuple[int, int]:
    """How many steps of how many a training under way has done; of none, where there is no such file."""
    lines = _lines(path)
    return (int(lines[-1][0]), int(lines[-1][1])) if lines else (0, 0)


def loss_curves(path: Path, most: int) -> list[Curve]:
    """The curves of a file, of so many parts at most; steps that were done again after an interruption count as they came out
    last. A part that is done again from its beginning comes out as before, so that it may as well stand for the next."""
    parts, whole = list[Curve]([[]]), False
    for step, steps, loss in _lines(path):
        if step == 1 and whole and len(parts) < most:
            parts.append([])
        part, whole = parts[-1], step == steps
        while part and part[-1][0] >= step:
            part.pop()
        if isfinite(loss):
            part.append((int(step), loss))
    return [thinned(part) for part in parts if part]


def _lines(path: Path) -> list[list[float]]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def thinned(points: Curve) -> Curve:
    """The same with `POINTS` points at most."""
    each = ceil(len(points) / POINTS)
    parts: Iterable[Curve] = (points[at : at + each] for at in range(0, len(points), each))
    return [(part[-1][0], round(fmean(loss for _, loss in part), 5)) for part in parts]
