"""Intervals and tests that every table and report uses; no package beyond the standard library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of a proportion (Wilson 1927); (0, 1) for n = 0.

    Args:
        successes: How many of the n; not a whole number where n is an effective size.
        n: Observations.
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    scale = 1 + Z95**2 / n
    centre = (share + Z95**2 / (2 * n)) / scale
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2)) / scale
    # At the ends the bounds are exact; rounding would leave 5e-17.
    return max(0.0, centre - half) if successes else 0.0, min(1.0, centre + half) if successes < n else 1.0


def mean_ci(values: Sequence[float]) -> tuple[float, float]:
    """Returns a mean and the half-width of its 95 % interval (normal approximation); zeros for no values."""
    n = len(values)
    mean = sum(values) / n if n else 0.0
    variance = sum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else 0.0
    return mean, Z95 * math.sqrt(variance / n) if n else 0.0


def ratio_variance(groups: Sequence[tuple[float, int]]) -> float:
    """Returns the variance of a ratio of sums whose terms come in independent groups (Taylor linearisation).

    Args:
        groups: For each group, at least two, the sum over its members and how many there are.
    """
    count, n = len(groups), sum(number for _, number in groups)
    value = math.fsum(total for total, _ in groups) / n
    return count / (count - 1) * math.fsum((total - value * number) ** 2 for total, number in groups) / n**2


def clustered_share(groups: Iterable[tuple[int, int]]) -> tuple[float, float, float, int, int] | None:
    """Returns a share of steps, its Wilson interval at the effective number of steps, the steps, and the episodes.

    The variance is that of a ratio of sums over episodes; it gives the number of independent steps that would be as
    uncertain (Korn & Graubard 1998), at most the real one. A share of 0 or 1 says nothing about how steps hang together,
    so there the number of episodes is taken.

    Args:
        groups: For each episode, how many of its steps count and how many there are.

    Returns:
        Value, low, high, n, episodes; None where there is no step.
    """
    counted = [(hits, total) for hits, total in groups if total]
    if not counted:
        return None
    n, episodes = sum(total for _, total in counted), len(counted)
    hits = sum(hit for hit, _ in counted)
    value = hits / n
    effective = float(episodes)
    if 0 < hits < n and episodes > 1:
        variance = ratio_variance(counted)
        effective = min(float(n), value * (1 - value) / variance) if variance > 0 else float(n)
    return value, *wilson(value * effective, effective), n, episodes


def sign_test(first: int, second: int) -> float:
    """Returns the p-value of the two-sided exact sign test.

    Args:
        first: Tasks that only the first of two policies solved.
        second: Tasks that only the second solved.
    """
    n, least = first + second, min(first, second)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n) if n else 1.0
