"""Intervals of means and of paired differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leap.stats import wilson
from leap_lab.studies.statistics import estimate, estimate_share, paired

outcomes = st.lists(
    st.dictionaries(st.sampled_from([f"t{n}" for n in range(12)]), st.sampled_from([0.0, 1.0]), min_size=1),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60)
@given(outcomes)
def test_the_mean_is_that_of_the_seeds_means_and_within_its_interval(found: list[dict[str, float]]) -> None:
    one = estimate_share(found, replicates=300)
    assert one.value == pytest.approx(np.mean([np.mean(list(seed.values())) for seed in found]))
    assert 0 <= one.low <= one.high <= 1 and 0 <= one.low_all <= one.high_all <= 1
    assert one.tasks == len(set().union(*found)) and one.seeds == len(found)


def test_the_interval_over_tasks_is_that_of_a_proportion() -> None:
    solved = {f"t{n}": float(n < 60) for n in range(200)}
    one = estimate_share([solved])
    low, high = wilson(60, 200)
    assert (one.low, one.high) == (pytest.approx(low, abs=0.015), pytest.approx(high, abs=0.015))


def test_coverage_over_tasks_and_seeds() -> None:
    """Of experiments whose truth is 0.5, nearly all intervals over tasks and seeds hold it; over tasks alone far fewer."""
    rng = np.random.default_rng(1)
    held = alone = 0
    for _ in range(60):
        chances = np.clip(0.5 + rng.normal(0, 0.12, size=5), 0, 1)
        found = [{f"t{n}": float(rng.random() < chance) for n in range(80)} for chance in chances]
        one = estimate_share(found, replicates=400)
        held += one.low_all <= 0.5 <= one.high_all
        alone += one.low <= 0.5 <= one.high
    assert held >= 50 and held > alone


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    rng = np.random.default_rng(0)
    hard = {f"t{n}": float(rng.random() < 0.5) for n in range(200)}
    better = {task: 1.0 if n < 20 else solved for n, (task, solved) in enumerate(hard.items())}
    difference = estimate(paired([better], [hard]))
    assert difference.low > 0
    first, second = estimate_share([better]), estimate_share([hard])
    assert first.low < second.high, "unpaired, the intervals overlap"


def test_pairing_is_by_task_and_leaves_out_what_one_lacks() -> None:
    assert paired([{"a": 1.0, "b": 0.0}], [{"b": 1.0, "c": 1.0}]) == [{"b": -1.0}]


def test_what_never_varied_is_not_certain() -> None:
    everything = estimate_share([{f"t{n}": 1.0 for n in range(50)}])
    assert everything.value == 1.0 and everything.low == pytest.approx(1 - wilson(0, 50)[1]) and everything.high == 1.0
    nothing = estimate([{f"t{n}": 0.0 for n in range(50)}])
    assert nothing.low < 0 < nothing.high


def test_the_same_outcomes_give_the_same_interval() -> None:
    found = [{f"t{n}": float(n % 3 == seed) for n in range(30)} for seed in range(3)]
    assert estimate(found) == estimate(found)


def test_a_seed_without_outcomes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        estimate([{"a": 1.0}, {}])
