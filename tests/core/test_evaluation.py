"""Scores: failures at the horizon, and no mixture of splits ever (invariant 5)."""

from __future__ import annotations

import math

import pytest
from samples import an_episode

from leap.core import Observation, Step
from leap.evaluation import evaluate_episodes, score_episodes
from leap.stats import Z95, wilson


def test_failures_count_as_the_horizon() -> None:
    score = score_episodes([an_episode(0, steps=2, success=True), an_episode(1, steps=1), an_episode(2, steps=4)])
    assert (score.n, score.success) == (3, pytest.approx(1 / 3))
    assert score.actions == pytest.approx((2 + 5 + 5) / 3)
    assert score.actions_ci == pytest.approx(Z95 * math.sqrt(3 / 3))  # sample variance of 2, 5, 5 is 3
    assert score.solved_actions == 2
    assert score.score == pytest.approx(1 / 3)
    assert score.stops == {"horizon": 2, "success": 1}


def test_unread_answers_are_counted_by_step() -> None:
    seen = Observation(text="x")
    steps = tuple(Step(observation=seen, action="a", parsed=parsed) for parsed in (True, False, False, True))
    assert score_episodes([an_episode().model_copy(update={"steps": steps})]).unparsed == 0.5


def test_an_evaluation_names_split_horizon_and_kinds() -> None:
    episodes = [an_episode(i, success=i % 2 == 0, split="unseen", kind="ab"[i // 2]) for i in range(4)]
    evaluation = evaluate_episodes(episodes, policy="pi_1")
    assert (evaluation.policy, evaluation.split, evaluation.horizon) == ("pi_1", "unseen", 5)
    assert {kind: score.n for kind, score in evaluation.kinds.items()} == {"a": 2, "b": 2}
    assert evaluation.overall.n == sum(score.n for score in evaluation.kinds.values())
    assert (evaluation.overall.low, evaluation.overall.high) == wilson(2, 4)


def test_mixed_splits_mixed_horizons_and_nothing_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="one split"):
        evaluate_episodes([an_episode(0, split="seen"), an_episode(1, split="unseen")], policy="x")
    with pytest.raises(ValueError, match="horizon"):
        evaluate_episodes([an_episode(0), an_episode(1, horizon=6)], policy="x")
    with pytest.raises(ValueError, match="needed"):
        evaluate_episodes([], policy="x")


def test_parts_are_means_over_the_tasks_that_have_them() -> None:
    parts = [{"type": 1.0, "option": 0.5}, {"type": 0.5}, {"type": 0.0, "option": 0.0}, {}]
    episodes = [
        an_episode(i).model_copy(update={"parts": mine, "score": score})
        for i, (mine, score) in enumerate(zip(parts, (0.75, 0.25, 0.0, 0.0), strict=True))
    ]
    score = score_episodes(episodes)
    assert score.parts == {"type": 0.5, "option": 0.25}
    assert score.score == 0.25
    assert score.score_ci == pytest.approx(Z95 * math.sqrt(0.375 / 3 / 4))  # squares about .25: .25 + 0 + 2 * .0625
    assert score_episodes([an_episode()]).parts == {}


def test_an_evaluation_says_what_its_episodes_agree_on() -> None:
    versions = [{"engine": "1", "reward": "fixed"}, {"engine": "2", "reward": "fixed"}]
    episodes = [an_episode(i).model_copy(update={"versions": mine}) for i, mine in enumerate(versions)]
    assert evaluate_episodes(episodes, policy="pi_1").versions == {"reward": "fixed"}
