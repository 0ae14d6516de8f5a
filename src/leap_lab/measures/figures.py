"""A figure and its 95 % interval. Steps of one episode hang together, so every interval is clustered by episode."""

from __future__ import annotations

import math
from collections.abc import Iterable

from leap.core.record import Record
from leap.evaluation import Score
from leap.stats import clustered_share, ratio_variance, student_quantile


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
