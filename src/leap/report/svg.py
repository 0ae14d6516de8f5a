"""What charts are drawn with: SVG elements, panels with linear scales, labels that keep clear of each other.

Charts of a report take colours and fonts from the page's style sheet by their classes, so that dark mode and print work;
charts that are files of their own bring a style.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import escape

Attribute = str | float | None
LINE = 13  # least distance of two labels' baselines


def mark(name: str, inside: Iterable[str] = (), /, **attributes: Attribute) -> str:
    """Returns one SVG element.

    Args:
        name: The element's name.
        inside: Elements within it.
        attributes: Its attributes; `class_` is `class`, `stroke_width` is `stroke-width`, one that is None is left out.
            `text` is the element's text, and `hint` is shown when the pointer rests on it.
    """
    hint, text = attributes.pop("hint", ""), attributes.pop("text", "")
    own = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{written(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    title = f"<title>{escape(hint)}</title>" if hint else ""
    return f"<{name}{own}>{title}{escape(text)}{''.join(inside)}</{name}>"


def written(value: Attribute) -> str:
    """Returns an attribute's value as it stands in a file: numbers with two places at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(escape(value))


def whisker(x: float, low: float, high: float, **attributes: Attribute) -> str:
    """Returns an upright line, such as an interval's."""
    return mark("line", x1=x, x2=x, y1=low, y2=high, **attributes)


@dataclass(frozen=True)
class Panel:
    """A rectangle to draw in, in the picture's units, and the scales of its axes.

    Attributes:
        xs, ys: The values at the ends of the axes.
        pad: Room beside both ends of the horizontal axis.
    """

    left: float
    top: float
    right: float
    bottom: float
    xs: tuple[float, float]
    ys: tuple[float, float]
    pad: float = 0.0

    def x(self, value: float) -> float:
        """Returns where a value lies across."""
        low, high = self.xs
        return self.left + self.pad + (self.right - self.left - 2 * self.pad) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """Returns where a value lies upright."""
        low, high = self.ys
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)

    def points(self, values: Iterable[tuple[float, float]]) -> str:
        """Values as the `points` of a polyline or polygon."""
        return " ".join(f"{written(self.x(x))},{written(self.y(y))}" for x, y in values)

    def rows(self, ticks: Iterable[tuple[float, str]]) -> list[str]:
        """Lines across at some values, with their labels on the left."""
        parts = []
        for at, label in ((self.y(value), label) for value, label in ticks):
            parts.append(mark("line", class_="grid", x1=self.left, x2=self.right, y1=at, y2=at))
            parts.append(mark("text", class_="tick end", x=self.left - 6, y=at + 4, text=label))
        return parts

    def columns(self, ticks: Iterable[tuple[float, str]], *, grid: bool = False) -> list[str]:
        """Labels below some values, with upright lines if wanted."""
        places = [(self.x(value), label) for value, label in ticks]
        lines = [whisker(x, self.top, self.bottom, class_="grid") for x, _ in places if grid]
        return lines + [mark("text", class_="tick middle", x=x, y=self.bottom + 20, text=label) for x, label in places]


def quarters(top: float, *, every: int = 1) -> list[tuple[float, str]]:
    """Returns 0, a quarter, ... of a number, with their labels."""
    return [(top * part / 4, f"{top * part / 4:g}") for part in range(0, 5, every)]


def apart(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """Returns where labels go beside a panel from top to bottom: as near to their best heights as they can be without touching
    one another."""
    order = sorted(range(len(heights)), key=lambda place: (heights[place], place))
    placed = [0.0] * len(heights)
    lowest = top - LINE + 2.0
    for place in order:
        lowest = placed[place] = max(heights[place], lowest + LINE)
    highest = bottom
    for place in reversed(order):  # pushed past the bottom: move up as far as needed
        highest = placed[place] = min(placed[place], highest)
        highest -= LINE
    return placed


def chart(said: str, parts: Iterable[str], width: float, height: float) -> str:
    """Returns a whole chart; `said` is what it shows, for those who do not see it."""
    box = f"0 0 {written(float(width))} {written(float(height))}"
    return mark("svg", parts, class_="chart", viewBox=box, role="img", aria_label=said)
