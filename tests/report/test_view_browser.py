"""`leap view` in a real browser: thousands of episodes, filters, prompts, two side by side, keys, a narrow window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_view import STUDENT, served
from tiny_run import FAIL, HOSTILE, SOLVE, make_run, play, task

selenium = pytest.importorskip("selenium.webdriver.support.wait", reason="the selenium package is not installed")
pytestmark = pytest.mark.engine
MANY = 3000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    roots = [tmp_path_factory.mktemp("runs") / name for name in ("tiny", "other")]
    for root in roots:
        run = make_run(root)
        with run.episodes(2).open("ab") as file:
            file.writelines(play(task("train", 8 + n), STUDENT, FAIL if n % 3 else SOLVE).line() for n in range(MANY))
    return roots


@pytest.fixture(scope="module")
def address(runs: list[Path]) -> Iterator[str]:
    with served(*runs) as (url, _):
        yield url


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    browser.set_window_size(1280, 900)
    browser.get("about:blank")
    browser.get(address)
    until(browser, lambda: css(browser, "#episode .step"))
    yield browser
    assert browser.get_log("browser") == [], "the console is clean, the content security policy included"
    assert browser.title == "tiny — leap view", "no text of a model ran as a script"


def css(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def until(browser: Any, holds: Callable[[], object]) -> None:
    def looked(_: Any) -> object:
        try:
            return holds()
        except Exception as error:
            if type(error).__name__ == "StaleElementReferenceException":  # drawn anew meanwhile
                return False
            raise

    selenium.WebDriverWait(browser, 60, 0.1).until(looked)


def choose(browser: Any, menu: str, label: str) -> None:
    next(one for one in css(browser, f"#{menu} option") if one.get_attribute("textContent").startswith(label)).click()


def count(browser: Any, begins: str) -> None:
    until(browser, lambda: css(browser, "#count")[0].text.startswith(begins))


def test_thousands_are_listed_and_few_are_drawn(opened: Any) -> None:
    choose(opened, "from", "iteration 2")
    count(opened, f"{8 + MANY} episodes")
    assert len(css(opened, "#list li")) < 150
    css(opened, "#list")[0].send_keys("\ue010")  # end
    until(opened, lambda: css(opened, "#list li[aria-selected]")[0].get_attribute("aria-posinset") == str(8 + MANY))
    until(opened, lambda: f"walk {7 + MANY}:" in css(opened, "#episode h3")[0].text)
    assert css(opened, "#list li[aria-selected]")[0].is_displayed() and len(css(opened, "#list li")) < 150
    css(opened, "#list")[0].send_keys("\ue00e")  # page up
    until(opened, lambda: int(css(opened, "#list li[aria-selected]")[0].get_attribute("aria-posinset")) < 8 + MANY)


def test_filters_and_search(opened: Any) -> None:
    choose(opened, "from", "iteration 1")
    count(opened, "8 episodes")
    choose(opened, "taught", "rejected: action not admissible")
    count(opened, "6 episodes: 0 solved")
    choose(opened, "trouble", "answer not read")
    count(opened, "0 episodes")
    choose(opened, "trouble", "not admissible")
    choose(opened, "stop", "horizon reached")
    count(opened, "6 episodes")
    css(opened, "body")[0].send_keys("/")
    opened.switch_to.active_element.send_keys("WALK 5:")
    count(opened, "1 episodes")
    until(opened, lambda: "walk 5:" in css(opened, "#episode h3")[0].text)


def test_prompts_answers_and_states_come_when_they_are_opened(opened: Any) -> None:
    fold = next(one for one in css(opened, "#episode .step details") if "prompt" in one.text)
    fold.find_element("css selector", "summary").send_keys("\ue007")  # enter
    until(opened, lambda: "ANSWERED, AS GENERATED" in fold.text)
    assert "[user]" in fold.text and "reach the goal" in fold.text and css(opened, "img") == []
    states = next(one for one in css(opened, "#episode details") if "privileged states" in one.text)
    states.find_element("css selector", "summary").click()
    until(opened, lambda: "steps to the goal" in states.text or "replaying" in states.text)
    until(opened, lambda: css(opened, "#called details"))
    assert HOSTILE[:20] in css(opened, "#called")[0].text
    choose(opened, "came", "failed")
    until(opened, lambda: len(css(opened, "#called > details")) == 2)


def test_two_policies_side_by_side_part_at_a_step(opened: Any) -> None:
    choose(opened, "from", "episodes of π₀ on seen")
    choose(opened, "beside", "episodes of π₂ (the chosen one) on seen")
    count(opened, "8 episodes: 2 solved, 6 failed; beside them 8 solved")
    choose(opened, "outcome", "only those beside")
    count(opened, "6 episodes: 0 solved, 6 failed; beside them 6 solved")
    until(opened, lambda: [one.text for one in css(opened, ".parted")] == ["They part at step 0."])
    assert "Here they part." in css(opened, "#episode .step")[0].text
    assert [one.text for one in css(opened, "#episode .step:first-of-type .action")] == ["stay here", "go east"]


def test_two_runs_side_by_side(opened: Any, runs: list[Path]) -> None:
    choose(opened, "from", "episodes of π₀ on seen")
    choose(opened, "beside", f"{runs[1]}: episodes of π₁ on seen")
    count(opened, "8 episodes: 2 solved, 6 failed; beside them 5 solved")
    until(opened, lambda: [one.text for one in css(opened, ".parted")] == ["They do the same from beginning to end."])
    assert str(runs[1]) in css(opened, "#episode > .pair")[0].text
    links = [one for one in css(opened, "header a") if one.text.endswith("other")]
    assert len(links) == 1
    choose(opened, "beside", f"{runs[1]}: rollouts of π₀")
    count(opened, "0 episodes")
    until(opened, lambda: "have no task in common" in css(opened, "#episode")[0].text)


def test_what_is_added_comes_in_and_what_is_read_stays(opened: Any, runs: list[Path]) -> None:
    choose(opened, "from", "iteration 1")
    count(opened, "8 episodes")
    css(opened, "#list li")[2].click()
    until(opened, lambda: css(opened, "#list li")[2].get_attribute("aria-selected"))
    title = css(opened, "#episode h3")[0].text
    with (runs[0] / "iter-1" / "episodes.jsonl").open("ab") as file:
        file.write(play(task("train", 10**6), STUDENT, SOLVE).line())
    try:
        count(opened, "9 episodes")
        assert css(opened, "#episode h3")[0].text == title
        assert "9 of" in css(opened, "#progress")[0].text or "9 episodes" in css(opened, "#progress")[0].text
    finally:
        whole = (runs[0] / "iter-1" / "episodes.jsonl").read_bytes().splitlines(keepends=True)
        (runs[0] / "iter-1" / "episodes.jsonl").write_bytes(b"".join(whole[:-1]))


def test_nothing_sticks_out_of_a_narrow_window_and_keys_reach_everything(opened: Any) -> None:
    metrics = {"width": 500, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 500
        choose(opened, "from", "episodes of π₀ on seen")
        choose(opened, "beside", "episodes of π₂ (the chosen one) on seen")
        until(opened, lambda: css(opened, ".parted"))
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 500
        css(opened, "#from")[0].send_keys("\ue004" * 8)  # tab
        assert opened.switch_to.active_element.get_attribute("id") == "list"
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
