"""Intervals: they hold as often as they say, also where the steps of an episode hang together."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap.stats import wilson
from leap_lab.measures.figures import mean, share, student_quantile


def test_independent_steps_give_wilsons_interval() -> None:
    groups = [(1, 1)] * 30 + [(0, 1)] * 70
    figure = share(groups)
    assert figure is not None and (figure.value, figure.n, figure.episodes) == (0.3, 100, 100)
    assert (figure.low, figure.high) == pytest.approx(wilson(30, 100), abs=0.002)


def test_steps_that_always_agree_count_as_one() -> None:
    figure, alone = share([(10, 10)] * 6 + [(0, 10)] * 14), share([(1, 1)] * 6 + [(0, 1)] * 14)
    assert figure is not None and alone is not None and figure.n == 200
    assert (figure.low, figure.high) == pytest.approx((alone.low, alone.high))


def test_ends_and_nothing() -> None:
    assert share([]) is None and share([(0, 0)]) is None and mean([]) is None
    none, every = share([(0, 50)] * 4), share([(50, 50)] * 4)
    assert none is not None and (none.low, none.high) == pytest.approx((0.0, wilson(0, 4)[1]))
    assert every is not None and (every.low, every.high) == pytest.approx((wilson(4, 4)[0], 1.0))
    one = mean([(3.0, 2)])
    assert one is not None and (one.value, one.low) == (1.5, None)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda p: (min(p), max(p))), max_size=12))
def test_a_share_lies_in_its_interval(groups: list[tuple[int, int]]) -> None:
    figure = share(groups)
    if figure is not None:
        assert figure.low is not None and figure.high is not None
        assert 0 <= figure.low <= figure.value + 1e-12 and figure.value <= figure.high + 1e-12 <= 1 + 2e-12


@pytest.mark.parametrize("what", ["mean", "share"])
def test_intervals_of_clustered_steps_hold(what: str) -> None:
    """Of 600 samples of 25 episodes whose steps are alike, about 95 % of the intervals hold the truth; intervals that take
    steps for independent would hold it in 70 %."""
    rng, held, naive = random.Random(3), 0, 0
    for _ in range(600):
        groups = []
        for _ in range(25):
            level, steps = rng.random(), rng.randint(3, 12)
            hits = sum(rng.random() < level for _ in range(steps))
            groups.append((hits, steps))
        figure = mean([(float(h), n) for h, n in groups]) if what == "mean" else share(groups)
        assert figure is not None and figure.low is not None and figure.high is not None
        held += figure.low <= 0.5 <= figure.high
        half = 1.96 * math.sqrt(figure.value * (1 - figure.value) / figure.n)
        naive += abs(figure.value - 0.5) <= half
    assert 0.92 < held / 600 < 0.98 and naive / 600 < 0.85


@pytest.mark.parametrize(
    ("freedom", "table"),
    [(1, 12.7062), (2, 4.3027), (4, 2.7764), (5, 2.5706), (9, 2.2622), (29, 2.0452), (1000, 1.9623), (20001, 1.9601)],
)
def test_students_quantile(freedom: int, table: float) -> None:
    assert student_quantile(freedom) == pytest.approx(table, abs=5e-5)
