"""How good a value model is: are its values those that come out, and does it put actions in the right order?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from statistics import correlation, fmean
from typing import NamedTuple

from leap.core.record import Record
from leap.stats import Z95, clustered_share, mean_ci

BINS = 10


class Scored(NamedTuple):
    """A held-out action: its episode's key and step, its label, and what the model says."""

    episode: str
    t: int
    label: float
    score: float


class Bin(Record):
    """Held-out actions with scores of `low` up to a tenth more: mean score, and mean label with half its 95 % interval."""

    low: float
    n: int
    score: float
    label: float
    label_ci: float


class Ordered(Record):
    """Pairs of actions at one step whose labels differ: the share put in the right order, and its 95 % interval over episodes.
    Chance is a half."""

    share: float
    low: float
    high: float
    n: int
    episodes: int


class Measured(Record):
    """A value model on held-out actions, labelled by replay on validation tasks.

    Attributes:
        labels: What it learnt from.
        trained: Labelled actions that it learnt from, and of how many episodes; `executed`: actions executed for the labels.
        actions, steps, episodes: Held out.
        base: Mean label: what a model without any knowledge would say.
        ece: Expected calibration error over the bins: the mean distance between a score and what comes out.
        brier, brier_base: Mean squared distance from the labels, and that of `base`.
        rank, rank_chance: Spearman's correlation with the labels, and how far from 0 it is by chance (95 %), were the actions
            independent.
        ordered: Of pairs at one step.
        own: Pairs of the student's own action and another: how often the student, who took it, was right.
        own_by_value: How often the value model is, in the same pairs.
        chosen: Mean label of the action of most score at each step with several, of the student's own, of one at random, and of
            the best in hindsight.
    """

    policy: str
    labels: str
    split: str
    trained: int
    trained_episodes: int
    executed: int
    actions: int
    steps: int
    episodes: int
    base: float
    ece: float
    brier: float
    brier_base: float
    rank: float | None
    rank_chance: float
    ordered: Ordered | None
    own: Ordered | None = None
    own_by_value: Ordered | None = None
    chosen: dict[str, float]
    bins: list[Bin]


def calibration(scored: Sequence[Scored]) -> tuple[list[Bin], float]:
    """The bins, and the expected calibration error."""
    bins: defaultdict[int, list[Scored]] = defaultdict(list)
    for one in scored:
        bins[min(int(one.score * BINS), BINS - 1)].append(one)
    told = []
    for number, some in sorted(bins.items()):
        label, ci = mean_ci([one.label for one in some])
        told.append(
            Bin(low=number / BINS, n=len(some), score=fmean(one.score for one in some), label=label, label_ci=ci)
        )
    return told, sum(one.n * abs(one.score - one.label) for one in told) / len(scored)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's; None where either is constant."""
    if len({*first}) < 2 or len({*second}) < 2:
        return None
    return correlation(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks, the mean one where values are equal."""
    places: defaultdict[float, list[int]] = defaultdict(list)
    for place, value in enumerate(sorted(values)):
        places[value].append(place)
    return [fmean((places[value][0], places[value][-1])) for value in values]


def ordered(scored: Sequence[Scored]) -> Ordered | None:
    """How often the better of two actions at one step has the higher score; a tie counts half. None where no two differ."""
    right: defaultdict[str, float] = defaultdict(float)
    pairs: defaultdict[str, int] = defaultdict(int)
    for (episode, _), some in by_step(scored).items():
        for one, other in combinations(some, 2):
            if one.label != other.label:
                pairs[episode] += 1
                better, worse = (one, other) if one.label > other.label else (other, one)
                right[episode] += (better.score > worse.score) + (better.score == worse.score) / 2
    found = clustered_share((round(right[key]), n) for key, n in pairs.items())
    return found and Ordered(share=found[0], low=found[1], high=found[2], n=found[3], episodes=found[4])


def own_pairs(scored: Sequence[Scored]) -> dict[str, Ordered | None]:
    """Of pairs of the student's own action, which comes first, and another: who is right more often, the student or the model."""
    pairs = [
        [own._replace(t=t * 1000 + k), other._replace(t=t * 1000 + k)]
        for (_, t), (own, *others) in by_step(scored).items()
        for k, other in enumerate(others)
    ]
    prefers_own = [one._replace(score=float(n == 0)) for pair in pairs for n, one in enumerate(pair)]
    return {"own": ordered(prefers_own), "own_by_value": ordered([one for pair in pairs for one in pair])}


def by_step(scored: Sequence[Scored]) -> dict[tuple[str, int], list[Scored]]:
    """The actions of each step, the student's own first."""
    steps: defaultdict[tuple[str, int], list[Scored]] = defaultdict(list)
    for one in scored:
        steps[one.episode, one.t].append(one)
    return steps


def choices(scored: Sequence[Scored]) -> dict[str, float]:
    """Mean labels of what is chosen at steps with several actions, and what else could be."""
    several = [some for some in by_step(scored).values() if len(some) > 1]
    if not several:
        return {}
    return {
        "value": fmean(max(some, key=lambda one: one.score).label for some in several),
        "own": fmean(some[0].label for some in several),
        "random": fmean(fmean(one.label for one in some) for some in several),
        "hindsight": fmean(max(one.label for one in some) for some in several),
    }


def measured(scored: Sequence[Scored], **about: object) -> Measured:
    """All figures of some held-out actions."""
    bins, ece = calibration(scored)
    base = fmean(one.label for one in scored)
    return Measured.model_validate(
        about
        | {
            "actions": len(scored),
            "steps": len(by_step(scored)),
            "episodes": len({one.episode for one in scored}),
            "base": base,
            "ece": ece,
            "brier": fmean((one.score - one.label) ** 2 for one in scored),
            "brier_base": fmean((base - one.label) ** 2 for one in scored),
            "rank": rank_correlation([one.score for one in scored], [one.label for one in scored]),
            "rank_chance": Z95 / math.sqrt(max(len(scored) - 1, 1)),
            "ordered": ordered(scored),
            **own_pairs(scored),
            "chosen": choices(scored),
            "bins": bins,
        }
    )


def pass_at(n: int, attempts: Sequence[bool]) -> float:
    """The chance that at least one of n attempts succeeds, estimated from at least as many (Chen et al. 2021)."""
    failed = len(attempts) - sum(attempts)
    return 1 - math.comb(failed, n) / math.comb(len(attempts), n)
