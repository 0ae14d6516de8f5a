"""A figure and its 95 % interval. Steps of one episode hang together, so every interval is clustered by episode."""

from __future__ import annotations

import math
from collections.abc import Iterable

from leap.core.record import Record
from leap.evaluation import Z95


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


def share(groups: Iterable[tuple[int, int]]) -> Figure | None:
    """A share of steps, with a Wilson interval at the effective number of steps.

    The variance is that of a ratio of sums over episodes; it gives the number of independent steps that would be as
    uncertain (Korn & Graubard 1998), at most the real one. A share of 0 or 1 says nothing about how steps hang together,
    so there the number of episodes is taken.

    Args:
        groups: For each episode, how many of its steps count and how many there are.

    Returns:
        The figure; None where there is no step.
    """
    counted = [(hits, total) for hits, total in groups if total]
    if not counted:
        return None
    n, episodes = sum(total for _, total in counted), len(counted)
    hits = sum(hit for hit, _ in counted)
    value = hits / n
    effective = float(episodes)
    if 0 < hits < n and episodes > 1:
        variance = _variance(counted, value)
        effective = min(float(n), value * (1 - value) / variance) if variance > 0 else float(n)
    low, high = _wilson(value, effective)
    return Figure(value=value, low=low if hits else 0.0, high=high if hits < n else 1.0, n=n, episodes=episodes)


def mean(groups: Iterable[tuple[float, int]], *, least: float = -math.inf, most: float = math.inf) -> Figure | None:
    """A mean over steps, answers or tokens: a ratio of sums over episodes with its linearised interval.

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
    half = _student(episodes - 1) * math.sqrt(_variance(counted, value))
    return Figure(value=value, low=max(least, value - half), high=min(most, value + half), n=n, episodes=episodes)


def _variance(groups: Iterable[tuple[float, int]], value: float) -> float:
    """Variance of a ratio of sums whose terms come in independent groups (Taylor linearisation)."""
    groups = list(groups)
    g, n = len(groups), sum(number for _, number in groups)
    return g / (g - 1) * math.fsum((total - value * number) ** 2 for total, number in groups) / n**2


def _wilson(value: float, n: float) -> tuple[float, float]:
    scale = 1 + Z95**2 / n
    centre = (value + Z95**2 / (2 * n)) / scale
    half = Z95 * math.sqrt(value * (1 - value) / n + Z95**2 / (4 * n**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t (Cornish-Fisher; to 1 % from 4 degrees of freedom on)."""
    z = Z95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
