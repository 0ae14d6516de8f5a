"""Means over seeds and tasks, and paired differences, with bootstrap intervals.

Two intervals, for two questions. Over tasks: tasks are drawn again with replacement, each with its outcomes under all
seeds, so that it holds for these trainings on other tasks. Over tasks and seeds: both are drawn again, independently
(the pigeonhole bootstrap of Owen 2007, which is, if anything, too wide), so that it holds for other trainings, too;
with three seeds that is a rough figure, and why seeds are shown one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from leap.core.record import Record
from leap.stats import wilson

REPLICATES = 10_000
_CHUNK = 500


class Estimate(Record):
    """A mean over seeds of means over tasks, its 95 % intervals over tasks, for these seeds (`low`, `high`), and over
    tasks and seeds (`low_all`, `high_all`), and the numbers of different tasks and of seeds."""

    value: float
    low: float
    high: float
    low_all: float
    high_all: float
    tasks: int
    seeds: int


def estimate(outcomes: Sequence[Mapping[str, float]], *, replicates: int = REPLICATES) -> Estimate:
    """Estimates a mean.

    Args:
        outcomes: For each seed, a value of each task by its key; a seed may lack tasks of another.
        replicates: Bootstrap samples.

    Raises:
        ValueError: A seed has no outcome.
    """
    if not outcomes or not all(outcomes):
        raise ValueError("every seed needs at least one outcome")
    tasks = sorted(set().union(*outcomes))
    values = np.array([[one.get(task, 0.0) for task in tasks] for one in outcomes])
    known = np.array([[task in one for task in tasks] for one in outcomes], dtype=float)
    rng = np.random.default_rng(0)  # the same outcomes give the same interval
    over_tasks, over_all = [], []
    for start in range(0, replicates, _CHUNK):
        size = min(_CHUNK, replicates - start)
        drawn = rng.multinomial(len(tasks), np.full(len(tasks), 1 / len(tasks)), size=size)
        totals = drawn @ known.T
        means = (drawn @ (values * known).T) / np.maximum(totals, 1e-9)  # [size, seeds]
        seeds = rng.multinomial(len(outcomes), np.full(len(outcomes), 1 / len(outcomes)), size=size) / len(outcomes)
        over_tasks.append(means.mean(axis=1))
        over_all.append((means * seeds).sum(axis=1))
    mean = float(np.mean([np.mean(list(one.values())) for one in outcomes]))
    low, high = np.quantile(np.concatenate(over_tasks), [0.025, 0.975]).tolist()
    low_all, high_all = np.quantile(np.concatenate(over_all), [0.025, 0.975]).tolist()
    if float(np.ptp(values[known > 0])) == 0.0:  # nothing varies, and what never varied cannot be resampled
        room = wilson(0, len(tasks))[1]
        low, high = low_all, high_all = mean - room, mean + room
    ends = {"low": low, "high": high, "low_all": low_all, "high_all": high_all}
    return Estimate(value=mean, **ends, tasks=len(tasks), seeds=len(outcomes))


def estimate_share(outcomes: Sequence[Mapping[str, float]], **more: int) -> Estimate:
    """Estimates a mean of shares, whose intervals end at 0 and 1; see `estimate`."""
    found = estimate(outcomes, **more)
    ends = ("low", "high", "low_all", "high_all")
    return found.model_copy(update={name: min(1.0, max(0.0, getattr(found, name))) for name in ends})


def paired(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """For each seed, the difference of two policies' outcomes at each task that both have one of."""
    return [
        {task: one[task] - other[task] for task in one if task in other}
        for one, other in zip(first, second, strict=True)
    ]
