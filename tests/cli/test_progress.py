"""Progress away from a terminal: one line per finished stage, however long."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from leap import progress
from leap.progress import Progress


def test_a_stage_is_one_line_in_a_log() -> None:
    log = io.StringIO()
    what = "rollouts of pi_0 mixed with the teacher (50% of steps)"
    with Progress(Console(file=log, width=40)).stage(what) as bar:
        bar.update(1, 2, "")
        bar.update(2, 2, "50% solved")
    (line,) = log.getvalue().splitlines()
    assert line.startswith(f"{what}: 2 in ") and line.endswith("s 50% solved")


def test_what_is_waited_for_is_told_at_once_in_a_log() -> None:
    log = io.StringIO()
    with Progress(Console(file=log, width=40)).stage("prepare tasks", notes=True) as bar:
        for note in (
            "making an image [debian]: a few minutes, once",
            "making an image [debian]: a few minutes, once",
            "",
        ):
            bar.update(0, 4, note)
    assert log.getvalue() == "making an image [debian]: a few minutes, once\n"


def test_a_stage_with_nothing_to_do_is_silent() -> None:
    log = io.StringIO()
    with Progress(Console(file=log, width=40)).stage("nothing"):
        pass
    assert log.getvalue() == ""


def test_a_long_stage_gives_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = io.StringIO()
    with Progress(Console(file=log, width=40)).stage("train pi_1") as bar:
        for done in range(101):
            bar.update(done, 100, "loss 0.5")
            now += 2.0
    lines = log.getvalue().splitlines()
    assert lines[0] == "train pi_1: 30 of 100, 0.5/s, 2 min left loss 0.5"
    assert len(lines) == 4  # after 60, 120 and 180 seconds, and at the end


def test_a_slow_stage_tells_what_one_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = io.StringIO()
    with Progress(Console(file=log, width=40)).stage("train pi_1") as bar:
        for done in range(11):
            bar.update(done, 10, "")
            now += 20.0
    assert log.getvalue().splitlines()[0] == "train pi_1: 3 of 10, 20 s each, 2 min left"


def test_a_stage_in_which_nothing_ends_for_long_gives_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SIGN_OF_LIFE", 0.05)
    log = io.StringIO()
    with Progress(Console(file=log, width=40)).stage("rollouts of pi_0") as bar:
        time.sleep(0.3)
        bar.update(1, 9, "100% solved")
        time.sleep(0.3)
    lines = log.getvalue().splitlines()
    assert lines[0] == "rollouts of pi_0: 0 min so far"
    assert "rollouts of pi_0: 1 of 9, 0 min so far 100% solved" in lines
    assert lines[-1].startswith("rollouts of pi_0: 9 in ")


def test_a_stage_that_goes_on_says_each_minute_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SIGN_OF_LIFE", 0.2)
    log = io.StringIO()
    with Progress(Console(file=log, width=40)).stage("train pi_0") as bar:
        for done in range(20):
            bar.update(done, 20, "")
            time.sleep(0.05)
    lines = log.getvalue().splitlines()
    assert 3 <= len(lines) <= 6 and all(" left" in line for line in lines[:-1])
