"""Scores of episodes: success rate, mean actions and mean score, with n and 95 % confidence intervals, by task type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pydantic import Field

from leap.core import Episode
from leap.core.record import Record
from leap.stats import mean_ci, wilson


class Score(Record):
    """What a set of episodes amounts to. Never of more than one split.

    Attributes:
        n: Episodes.
        success: Share solved.
        low, high: 95 % Wilson interval of the share.
        actions: Mean number of actions; a failure counts as the horizon.
        actions_ci: Half-width of its 95 % interval (normal approximation).
        score: Mean of the environment's own score.
        score_ci: Half-width of its 95 % interval (normal approximation).
        parts: Mean of each part of it, over the episodes whose task has that part.
        solved_actions: Mean number of actions of the solved ones; None if none was.
        unparsed: Share of steps whose action could not be read.
        shortened: Share of steps whose prompt was too long, so that the oldest steps were left out of it.
        stops: How often each stop reason occurred.
    """

    n: int
    success: float
    low: float
    high: float
    actions: float
    actions_ci: float
    score: float
    score_ci: float = 0.0
    parts: dict[str, float] = Field(default_factory=dict)
    solved_actions: float | None = None
    unparsed: float = 0.0
    shortened: float = 0.0
    stops: dict[str, int] = Field(default_factory=dict)


class Evaluation(Record):
    """Scores of one policy on one split.

    Attributes:
        policy: Who acted.
        split: Where.
        horizon: Largest number of actions.
        overall: All episodes.
        kinds: By task type.
        versions: What produced the episodes, as far as they agree: the environment's engine, data and reward.
    """

    policy: str
    split: str
    horizon: int
    overall: Score
    kinds: dict[str, Score]
    versions: dict[str, str] = Field(default_factory=dict)


def score_episodes(episodes: Iterable[Episode]) -> Score:
    """Scores a set of episodes."""
    episodes = list(episodes)
    n = len(episodes)
    successes = sum(episode.success for episode in episodes)
    low, high = wilson(successes, n)
    actions, actions_ci = mean_ci([episode.actions for episode in episodes])
    score, score_ci = mean_ci([episode.score for episode in episodes])
    parts: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        for name, value in episode.parts.items():
            parts[name].append(value)
    solved = [len(episode.steps) for episode in episodes if episode.success]
    steps = sum(len(episode.steps) for episode in episodes)
    stops: dict[str, int] = defaultdict(int)
    for episode in episodes:
        stops[episode.stop.value] += 1
    return Score(
        n=n,
        success=successes / n if n else 0.0,
        low=low,
        high=high,
        actions=actions,
        actions_ci=actions_ci,
        score=score,
        score_ci=score_ci,
        parts={name: sum(values) / len(values) for name, values in parts.items()},
        solved_actions=sum(solved) / len(solved) if solved else None,
        unparsed=sum(not step.parsed for e in episodes for step in e.steps) / steps if steps else 0.0,
        shortened=sum(step.dropped > 0 for e in episodes for step in e.steps) / steps if steps else 0.0,
        stops=dict(sorted(stops.items())),
    )


def evaluate_episodes(episodes: Iterable[Episode], *, policy: str) -> Evaluation:
    """Scores one policy's episodes on one split.

    Raises:
        ValueError: There are none, or they are of several splits or horizons, which must never be mixed.
    """
    episodes = list(episodes)
    splits = {episode.task.split for episode in episodes}
    horizons = {episode.horizon for episode in episodes}
    if len(splits) != 1 or len(horizons) != 1:
        raise ValueError(f"episodes of one split and horizon are needed, got {sorted(splits)} and {sorted(horizons)}")
    by_kind: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        by_kind[episode.task.kind].append(episode)
    return Evaluation(
        policy=policy,
        split=splits.pop(),
        horizon=horizons.pop(),
        overall=score_episodes(episodes),
        kinds={kind: score_episodes(group) for kind, group in sorted(by_kind.items())},
        versions=dict(sorted(set.intersection(*(set(episode.versions.items()) for episode in episodes)))),
    )
