"""The parts of charts: nothing gets in unescaped, labels keep apart."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from leap.report.svg import LINE, Panel, apart, chart, mark


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C",))))
def test_no_text_becomes_markup(text: str) -> None:
    element = ElementTree.fromstring(mark("text", hint=text or "x", text=text, class_=text))
    assert (element.get("class"), element.find("title").text) == (text, text or "x")  # type: ignore[union-attr]
    assert "".join(element.itertext()) == (text or "x") + text
    assert len(list(ElementTree.fromstring(chart(text, (), 10, 10)))) == 0


@given(st.lists(st.floats(20, 200), max_size=12))
def test_labels_keep_apart_and_inside(heights: list[float]) -> None:
    placed = apart(heights, 20, 214)
    in_order = sorted(placed)
    assert all(b - a >= LINE - 1e-6 for a, b in itertools.pairwise(in_order))
    assert len(placed) == len(heights) and max(placed, default=20) <= 214
    assert [placed.index(one) for one in in_order] == sorted(range(len(heights)), key=lambda at: (heights[at], at))


def test_a_panel_places_values() -> None:
    panel = Panel(10, 0, 110, 50, (0, 4), (0, 1), pad=10)
    assert (panel.x(0), panel.x(2), panel.x(4)) == (20, 60, 100)
    assert (panel.y(0), panel.y(1), panel.y(2)) == (50, 0, -50)
