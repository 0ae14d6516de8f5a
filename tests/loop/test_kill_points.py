"""Invariant 6 at single file operations: a tiny run is killed before one, or in the middle of a write, and given again. It
ends as one that was left alone, leaves nothing over, and pays for no answer twice.

Here are those that have most to lose, and with the slow ones a share of all; `benchmarks/kills.py` kills at each.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("openai")

from flaky_endpoint import FAULTS
from kill_points import Point, supported
from killed_runs import Trial, distinct, trials
from marks import slow

pytestmark = pytest.mark.skipif(not supported(), reason="needs Linux with seccomp user notification")

STATE, WEIGHTS = "run/iter-#/training/checkpoint-#", "run/iter-#/.checkpoint.#.tmp"
AT_ONCE = 2
"""Calls that are under way at once."""
POINTS = {
    "expert": [
        Point("unlink run/.base.#.tmp", 1),  # the scratch student is in place, and not yet noted
        Point("write run/iter-1/episodes.jsonl", 2, half=True),
        Point(f"write {STATE}/trainer_state.json", 2, half=True),
        Point(f"rename {WEIGHTS} -> run/iter-#/checkpoint", 2),
    ],
    "search": [
        Point("write run/iter-1/corrections.jsonl", 2, half=True),
        Point("write run/iter-1/corrections.jsonl", 4),
    ],
    "paid": [
        Point("pwrite run/calls.sqlite-wal", 30, half=True),
        Point("write run/iter-1/corrections.jsonl", 3, half=True),
        Point(f"openat {WEIGHTS}/chat_template.jinja", 2),  # after the last step of a training
    ],
}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Trial]]:
    with trials(tmp_path_factory.mktemp("killed")) as made:
        yield made


@pytest.mark.parametrize("kind", [pytest.param(one, marks=[] if one == "search" else pytest.mark.slow) for one in POINTS])
def test_a_run_killed_at_a_file_operation_ends_as_if_nothing_had_happened(
    kind: str, trial: Callable[..., Trial]
) -> None:
    made = trial(kind)
    assert set(POINTS[kind]) <= {*made.points, *(point._replace(half=True) for point in made.points)}
    assert {str(point): made.killed_at(point) for point in POINTS[kind]} == {str(point): "" for point in POINTS[kind]}


@pytest.mark.parametrize("kind", POINTS)
def test_what_is_noted_of_a_file_is_on_the_disk_before_the_note(kind: str, trial: Callable[..., Trial]) -> None:
    """Else a power cut would leave journals that are shorter than their notes say, and a run that is refused."""
    points = [point.what for point in trial(kind).points]
    grown = sorted({what.split()[1] for what in points if what.endswith((".jsonl", "-wal")) and "write" in what})
    assert len(grown) > 5
    for file in grown:
        last = max(at for at, what in enumerate(points) if what in (f"write {file}", f"pwrite {file}"))
        synced = [at for at, what in enumerate(points) if what in (f"fsync {file}", f"fdatasync {file}") and at > last]
        noted = [at for at, what in enumerate(points) if what.endswith(" -> run/files.json") and at > last]
        assert synced and noted and synced[0] < noted[-1], file


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", POINTS)
def test_a_run_killed_at_any_of_many_file_operations_ends_as_if_nothing_had_happened(
    kind: str, trial: Callable[..., Trial]
) -> None:
    made = trial(kind)
    points = distinct(made.points)[::25]
    assert len(points) > 10
    assert {str(point): differs for point in points if (differs := made.killed_at(point))} == {}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("options", "seeds"),
    [
        ({"retries": 0, "timeout": 4.0}, 1),
        slow({"retries": 0, "timeout": 4.0, "size": 8}, 3),
        slow({"retries": 1, "timeout": 4.0, "size": 8}, 2),
    ],
)
def test_a_run_of_faults_and_kills_equals_one_without_and_pays_nothing_twice(
    options: dict[str, Any], seeds: int, trial: Callable[..., Trial]
) -> None:
    """The endpoint fails at 30 % of the calls, and the process is killed three times."""
    made = trial("paid", **options)
    assert made.endpoint is not None
    made.endpoint.share = 0.3
    try:
        for seed in range(seeds):
            made.endpoint.fail_anew(seed)
            disturbed(made, seed)
            assert made.teacher is not None and made.endpoint.failed.total() > 0.15 * made.teacher.answers.total()
            assert len(made.endpoint.failed) >= 3 and set(made.endpoint.failed) <= set(FAULTS)
    finally:
        made.endpoint.share = 0.0


def disturbed(trial: Trial, seed: int) -> None:
    """Gives the command until the run is finished, and kills it three times on the way, at random moments."""
    chance = random.Random(seed)
    for longest in (
        0.9,
        0.6,
        0.4,
        0.3,
        0.2,
    ):  # of the time that a run takes without faults; a busy machine may take longer now
        trial.anew()
        under_way, kills = Counter[str](), 0
        for _ in range(60):  # a start may end by itself: too many questions have failed, or the very first call did
            after = chance.uniform(0.1, longest) * trial.seconds if kills < 3 else None
            ended = trial.give(after=after, watch=False)
            if ended.code == 0:
                break
            assert ended.code in (-9, 1), ended.output
            if ended.code == -9:
                kills += 1
                new = trial.under_way() - under_way
                assert sum(new.values()) <= AT_ONCE
                under_way += new
        assert ended.code == 0, ended.output
        if kills == 3:
            break
    assert kills == 3
    # What a report tells of failed calls, it tells of those that there were.
    assert trial.compared(under_way, but=["run/report/report.json"]) == ""
