"""What plots of studies need beyond `leap.report.svg`: marks of points, round ticks, and a panel's edges that cut."""

from __future__ import annotations

import math
from collections.abc import Iterable

from leap.report.svg import Attribute, Panel, mark, written

_PLUS = ((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4))
_PLUS += tuple((-x, -y) for x, y in _PLUS)
_SHAPES = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "up": ((0, -1.1), (1.1, 0.9), (-1.1, 0.9)),
    "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "down": ((0, 1.1), (1.1, -0.9), (-1.1, -0.9)),
    "plus": _PLUS,
    "cross": tuple(((x - y) * 0.75, (x + y) * 0.75) for x, y in _PLUS),
}


def symbol(shape: str, x: float, y: float, size: float, **attributes: Attribute) -> str:
    """Returns a mark of a point: circle, square, up, down, diamond, plus or cross, about 2 * size wide."""
    if shape == "circle":
        return mark("circle", cx=x, cy=y, r=size, **attributes)
    points = " ".join(f"{written(x + size * dx)},{written(y + size * dy)}" for dx, dy in _SHAPES[shape])
    return mark("polygon", points=points, **attributes)


def clipped(panel: Panel, parts: Iterable[str]) -> str:
    """Returns elements of which only what lies in the panel is seen."""
    width, height = panel.right - panel.left, panel.bottom - panel.top
    box = " ".join(map(written, (panel.left, panel.top, width, height)))
    return mark("svg", parts, x=panel.left, y=panel.top, width=width, height=height, viewBox=box)


def ticks(low: float, high: float, most: int = 6) -> list[tuple[float, str]]:
    """Returns at most so many round values between two numbers, with their labels, all with equally many decimals."""
    unit = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(unit * size for size in (1, 2, 2.5, 5, 10, 20) if (high - low) / (unit * size) <= most)
    places = max(0, -math.floor(math.log10(step))) + (step / 10 ** math.floor(math.log10(step)) == 2.5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(n * step, f"{n * step:.{places}f}") for n in range(first, last + 1)]
