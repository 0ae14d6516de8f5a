"""Figures of value models, by hand and by properties."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap.value.measured import Scored, calibration, choices, measured, ordered, own_pairs, pass_at, rank_correlation

ABOUT = {"policy": "pi_1", "labels": "replay", "split": "valid", "trained": 1, "trained_episodes": 1, "executed": 1}


def some(n: int, score: float, label: float) -> list[Scored]:
    return [Scored(f"{score}/{k}", 0, label, score) for k in range(n)]


def test_what_comes_true_is_calibrated() -> None:
    bins, ece = calibration([*some(3, 0.75, 1.0), *some(1, 0.75, 0.0), *some(4, 0.0, 0.0)])
    assert ece == 0.0 and [(one.low, one.n, one.label) for one in bins] == [(0.0, 4, 0.0), (0.7, 4, 0.75)]
    assert calibration([*some(3, 1.0, 0.0), *some(1, 0.5, 0.5)])[1] == 0.75


def test_ranks_are_spearmans() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 90]) == pytest.approx(1) and rank_correlation(
        [1, 2], [2, 1]
    ) == pytest.approx(-1)
    assert rank_correlation([1, 1], [1, 2]) is None
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833)  # scipy.stats.spearmanr


def test_pairs_are_of_one_step_and_differ() -> None:
    scored = [
        Scored("a", 0, 1, 0.9),
        Scored("a", 0, 0, 0.1),
        Scored("a", 0, 0, 0.95),
        Scored("a", 1, 0, 0.5),
        Scored("b", 0, 1, 0.2),
    ]
    found = ordered(scored)
    assert found is not None and (found.share, found.n, found.episodes) == (0.5, 2, 1)
    assert ordered(scored[3:]) is None
    assert choices(scored) == pytest.approx({"value": 0.0, "own": 1.0, "random": 1 / 3, "hindsight": 1.0})
    assert choices(scored[3:]) == {}


def test_a_model_that_knows_nothing_is_at_chance() -> None:
    draw = random.Random(0)
    scored = [Scored(str(k // 4), 0, float(draw.random() < 0.5), draw.random()) for k in range(4000)]
    found = measured(scored, **ABOUT)
    assert found.ordered is not None and found.ordered.low < 0.5 < found.ordered.high
    assert found.rank is not None and abs(found.rank) < 2 * found.rank_chance and found.brier > found.brier_base


def test_the_student_and_the_model_judge_the_same_pairs() -> None:
    """At one step the own action is better than one of two others, at another it is worse; the model is right there alone."""
    scored = [
        Scored("a", 0, 1, 0.2),
        Scored("a", 0, 0, 0.9),
        Scored("a", 0, 1, 0.1),
        Scored("a", 1, 0, 0.1),
        Scored("a", 1, 1, 0.3),
    ]
    found = own_pairs(scored)
    assert [one and (one.share, one.n) for one in (found["own"], found["own_by_value"])] == [(0.5, 2), (0.5, 2)]
    found = own_pairs(scored[:3])
    assert [one and one.share for one in (found["own"], found["own_by_value"])] == [1.0, 0.0]


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.integers(1, 7))
def test_pass_at_n_is_the_mean_over_all_choices_of_n_attempts(attempts: list[bool], n: int) -> None:
    if n > len(attempts):
        return
    subsets = list(itertools.combinations(attempts, n))
    assert pass_at(n, attempts) == pytest.approx(sum(map(any, subsets)) / len(subsets))
