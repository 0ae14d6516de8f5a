"""What only plots of studies are drawn with: ticks are round, marks are centred, what is outside a panel is cut."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap.report.svg import Panel, mark
from leap_lab.studies.marks import clipped, symbol, ticks


@given(st.floats(-1000, 1000), st.floats(0.01, 2000), st.integers(2, 12))
def test_ticks_are_round_evenly_spaced_and_inside(low: float, width: float, most: int) -> None:
    found = ticks(low, low + width, most)
    assert len(found) <= most + 1
    room = 1e-6 * width
    assert all(low - room <= value <= low + width + room for value, _ in found)
    steps = {round((b - a) / width, 6) for (a, _), (b, _) in itertools.pairwise(found)}
    assert len(steps) <= 1
    assert all(float(label) == pytest.approx(value, abs=1e-3 * width) for value, label in found)


def test_ticks_that_people_would_choose() -> None:
    assert [label for _, label in ticks(0, 100)] == ["0", "20", "40", "60", "80", "100"]
    assert [label for _, label in ticks(0.13, 0.94, 4)] == ["0.25", "0.50", "0.75"]


def test_a_panel_cuts_what_is_outside() -> None:
    panel = Panel(10, 0, 110, 50, (0, 4), (0, 1), pad=10)
    inside = ElementTree.fromstring(clipped(panel, [mark("polyline", points=panel.points([(0, 0.5), (4, 2)]))]))
    assert inside.get("viewBox") == "10 0 100 50" and inside[0].get("points") == "20,25 100,-50"


@pytest.mark.parametrize("shape", ["circle", "square", "up", "down", "diamond", "plus", "cross"])
def test_marks_are_centred(shape: str) -> None:
    element = ElementTree.fromstring(symbol(shape, 30.0, 40.0, 3.0))
    if shape == "circle":
        assert (element.get("cx"), element.get("cy"), element.get("r")) == ("30", "40", "3")
        return
    points = [tuple(map(float, pair.split(","))) for pair in element.get("points", "").split()]
    assert sum(x for x, _ in points) / len(points) == pytest.approx(30, abs=0.05)
    assert all(abs(x - 30) <= 4 and abs(y - 40) <= 4 for x, y in points)
