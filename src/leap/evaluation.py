"""Scores of episodes: success rate, mean actions and mean score, with n and 95 % confidence intervals, by task type."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from leap.core import Episode, StopReason
from leap.core.record import Record
from leap.files import read_json
from leap.stats import mean_ci, wilson


class Score(Record):
    """What a set of n episodes amounts to. Never of more than one split.

    Attributes:
        success, low, high: Share solved, and its 95 % Wilson interval.
        actions, actions_ci: Mean number of actions, where a failure counts as the horizon, and the half-width of its 95 %
            interval (normal approximation).
        score, score_ci: Mean of the environment's own score, and the same of it.
        parts: Mean of each part of the score, over the episodes whose task has that part.
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

    @property
    def broken_off(self) -> int:
        """How many of the n ended by an error of a model or of the environment, which tells nothing of the policy."""
        return sum(self.stops.get(stop.value, 0) for stop in StopReason if stop.untold)


class Evaluation(Record):
    """Scores of one policy on one split, of all episodes and by task type.

    Attributes:
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
    steps = [step for episode in episodes for step in episode.steps]
    successes = sum(episode.success for episode in episodes)
    low, high = wilson(successes, len(episodes))
    actions, actions_ci = mean_ci([episode.actions for episode in episodes])
    score, score_ci = mean_ci([episode.score for episode in episodes])
    parts: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        for name, value in episode.parts.items():
            parts[name].append(value)
    return Score(
        n=len(episodes),
        success=_mean([episode.success for episode in episodes]),
        low=low,
        high=high,
        actions=actions,
        actions_ci=actions_ci,
        score=score,
        score_ci=score_ci,
        parts={name: _mean(values) for name, values in parts.items()},
        solved_actions=_mean([len(episode.steps) for episode in episodes if episode.success]) if successes else None,
        unparsed=_mean([not step.parsed for step in steps]),
        shortened=_mean([step.dropped > 0 for step in steps]),
        stops=dict(sorted(Counter(episode.stop.value for episode in episodes).items())),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


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


def read_evaluations(path: Path) -> list[Evaluation]:
    """A policy's evaluations that are on file, of a split each; none where there is no file."""
    return [Evaluation.model_validate(one) for one in read_json(path)] if path.exists() else []
