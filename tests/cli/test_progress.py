"""Progress away from a terminal: one line per finished stage, however long."""

from __future__ import annotations

import io

from rich.console import Console

from leap.progress import Progress


def test_a_stage_is_one_line_in_a_log() -> None:
    log = io.StringIO()
    what = "rollouts of pi_0 mixed with the teacher (50% of steps)"
    with Progress(Console(file=log, width=40)).stage(what) as bar:
        bar.update(1, 2, "")
        bar.update(2, 2, "50% solved")
    (line,) = log.getvalue().splitlines()
    assert line.startswith(f"{what}: 2 in ") and line.endswith("s 50% solved")


def test_a_stage_with_nothing_to_do_is_silent() -> None:
    log = io.StringIO()
    with Progress(Console(file=log, width=40)).stage("nothing"):
        pass
    assert log.getvalue() == ""
