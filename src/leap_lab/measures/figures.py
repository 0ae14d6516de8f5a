"""A figure and its 95 % interval. Steps of one episode hang together, so every interval is clustered by episode."""

from __future__ import annotations

import math
from collections.abc import Iterable

from leap.core.record import Record
from leap.evaluation import Score
from leap.stats import clustered_share, ratio_variance


class Figure(Record):
    """A number with what stands behind it.

    Attributes:
        value: The estimate.
        low, high: Its 95 % interval; None where one episode alone, or no theory, gives none.
        n: What was counted: steps, answers, tokens or episodes, as the field's description says.
        episodes: Episodes they come from, the unit of the interval.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int
    episodes: int

    @classmethod
    def of(cls, score: Score) -> Figure:
        """A success rate."""
        return cls(value=score.success, low=score.low, high=score.high, n=score.n, episodes=score.n)


def share(groups: Iterable[tuple[int, int]]) -> Figure | None:
    """Returns a share of steps with its interval (`leap.stats.clustered_share`); None where there is no step.

    Args:
        groups: For each episode, how many of its steps count and how many there are.
    """
    found = clustered_share(groups)
    if found is None:
        return None
    value, low, high, n, episodes = found
    return Figure(value=value, low=low, high=high, n=n, episodes=episodes)


def mean(groups: Iterable[tuple[float, int]], *, least: float = -math.inf, most: float = math.inf) -> Figure | None:
    """Returns a mean over steps, answers or tokens: a ratio of sums over episodes with its linearised interval.

    Args:
        groups: For each episode, the sum over its members and how many there are.
        least, most: Bounds of what is averaged; the interval is cut there.

    Returns:
        The figure, with Student's t on episodes - 1 degrees of freedom; None where there is nothing to average.
    """
    counted = [(total, number) for total, number in groups if number]
    if not counted:
        return None
    n, episodes = sum(number for _, number in counted), len(counted)
    value = math.fsum(total for total, _ in counted) / n
    if episodes < 2:
        return Figure(value=value, n=n, episodes=episodes)
    half = student_quantile(episodes - 1) * math.sqrt(ratio_variance(counted))
    return Figure(value=value, low=max(least, value - half), high=min(most, value + half), n=n, episodes=episodes)


def student_quantile(freedom: int) -> float:
    """Returns the 97.5 % quantile of Student's t, by bisection of its closed form (Abramowitz & Stegun 26.7.3-4)."""
    low, high = 0.0, math.pi / 2
    while (angle := (low + high) / 2) not in (low, high):
        low, high = (angle, high) if _student_inside(angle, freedom) < 0.95 else (low, angle)
    return math.sqrt(freedom) * math.tan(angle)


def _student_inside(angle: float, freedom: int) -> float:
    """Returns the probability that |t| is below sqrt(freedom) * tan(angle)."""
    odd = freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):
        if total + term == total:
            break
        total += term
        term *= k / (k + 1) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
