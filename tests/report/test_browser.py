"""The page in a real browser: no error, a click opens an episode, keys work, hostile text stays text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_run import HOSTILE, WORLD, make_recipe, make_run

from leap.report.page import write_report

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_recipe(), make_run(tmp_path_factory.mktemp("runs") / "tiny"), WORLD)


@pytest.fixture
def opened(browser: Any, page: Path) -> Iterator[Any]:
    browser.set_window_size(1280, 900)
    browser.get("about:blank")
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == [], "the console is clean, the content security policy included"
    assert browser.title == "tiny — leap report", "no text of a model ran as a script"


def css(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def test_the_first_corrected_episode_is_open(opened: Any) -> None:
    assert len(css(opened, "#list li")) == 8
    steps = css(opened, "#episode .step")
    assert len(steps) == 7, "six steps and the end"
    assert HOSTILE.split("\u2028")[0] in steps[0].text, "shown as text"
    assert css(opened, "img") == []
    assert "EAST IT IS" in steps[0].text.upper() and "another action" in steps[0].text
    assert "leaks lamp 1" in steps[2].text
    assert [mark.text for mark in css(opened, "#episode mark")] == ["lamp 1"], "lamp 12 was not leaked"
    assert "not admissible" in steps[3].text
    assert "rejected: action not admissible there" in steps[4].text
    assert "same action" in steps[5].text


def test_a_click_opens_an_episode_and_the_fold_its_privileged_state(opened: Any) -> None:
    before = css(opened, "#episode h3")[0].text
    css(opened, "#list li")[3].click()
    assert css(opened, "#episode h3")[0].text != before
    assert css(opened, "#list li")[3].get_attribute("aria-selected") == "true"
    assert "#episode=" in opened.current_url
    fold = css(opened, "#episode details")[0]
    assert not fold.find_element("css selector", ".state").is_displayed()
    fold.find_element("css selector", "summary").click()
    assert "3 steps to the goal" in fold.find_element("css selector", ".state").text


def test_arrow_keys_walk_the_list(opened: Any) -> None:
    listbox = css(opened, "#list")[0]
    listbox.send_keys("\ue011\ue015\ue015\ue013")  # home, down, down, up
    assert [n for n, li in enumerate(css(opened, "#list li")) if li.get_attribute("aria-selected")] == [1]
    listbox.send_keys("\ue010")  # end
    assert css(opened, "#list li")[-1].get_attribute("aria-selected") == "true"
    listbox.send_keys("\ue011nn")  # home; then the second step where the teacher differs
    assert opened.execute_script("return scrollY") > 0


def test_filters(opened: Any) -> None:
    def choose(menu: str, value: str) -> None:
        css(opened, f"#{menu} option[value='{value}']")[0].click()

    choose("outcome", "solved")
    assert len(css(opened, "#list li")) == 2
    choose("outcome", "")
    choose("from", "")
    everything = len(css(opened, "#list li"))
    choose("kind", "find_it")
    assert len(css(opened, "#list li")) == everything // 2
    choose("from", "3")
    choose("outcome", "failed")
    assert css(opened, "#list li") == [] and "No shown episode" in css(opened, "#episode")[0].text


def test_links_lead_to_episodes(opened: Any) -> None:
    link = css(opened, "a[data-key]")[-1]
    key = link.get_attribute("data-key")
    opened.execute_script("arguments[0].closest('details').open = true; arguments[0].click()", link)
    opened.execute_script("return 0")
    assert opened.current_url.endswith(f"#episode={key}")
    assert len(css(opened, "#list li[aria-selected]")) == 1


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_sticks_out(opened: Any, width: int) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_gap_is_drawn_and_its_tables_scroll_by_themselves(opened: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    section = css(opened, "#realizability")[0]
    dot = section.find_element("css selector", ".hollow")
    assert dot.value_of_css_property("fill") == css(opened, "body")[0].value_of_css_property(
        "background-color"
    ).replace("rgba", "rgb").replace(", 1)", ")")
    assert HOSTILE.split("\u2028")[0] in section.text and HOSTILE[:20] in css(opened, "#cost")[0].text
    ends = "return [...document.querySelectorAll('#realizability .wide')].map((w) => w.getBoundingClientRect().right)"
    assert max(opened.execute_script(ends)) <= opened.execute_script("return innerWidth")


def test_no_request_leaves_the_page(opened: Any) -> None:
    loaded = opened.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
