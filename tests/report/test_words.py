"""Numbers in words."""

from __future__ import annotations

import pytest

from leap.evaluation import Score
from leap.report import words
from leap.stats import wilson


def score(solved: int, n: int) -> Score:
    low, high = wilson(solved, n)
    return Score(n=n, success=solved / n, low=low, high=high, actions=10, actions_ci=1, score=solved / n)


@pytest.mark.parametrize(
    ("first", "second", "how"),
    [
        ((50, 60), (50, 60), "level"),
        ((50, 60), (42, 60), "above"),
        ((58, 60), (20, 60), "clearly above"),
        ((42, 60), (50, 60), "below"),
        ((20, 60), (58, 60), "clearly below"),
    ],
)
def test_clearly_means_that_the_intervals_are_apart(first: tuple[int, int], second: tuple[int, int], how: str) -> None:
    assert words.relation(score(*first), score(*second)) == how


def test_no_more_digits_than_the_episodes_carry() -> None:
    assert words.percent(2 / 3, 60) == "67\u202f%"
    assert words.percent(2 / 3, 134) == "66.7\u202f%"
    assert words.interval(score(50, 60)) == "72–91\u202f%"


def test_durations_and_counts() -> None:
    assert [words.duration(s).replace("\u202f", " ") for s in (0.04, 12.3, 59.96, 125, 3600, 7325)] == [
        "0.0 s",
        "12 s",
        "1 min 00 s",
        "2 min 05 s",
        "1 h 00 min",
        "2 h 02 min",
    ]
    assert [words.count(n).replace("\u202f", " ") for n in (950, 9500, 12345, 2.5e6)] == [
        "950",
        "9 500",
        "12.3 k",
        "2.5 M",
    ]


def test_dollars() -> None:
    assert [words.usd(v) for v in (0, 0.0042, 0.00001, 12.345)] == ["$0.00", "$0.0042", "< $0.0001", "$12.35"]
