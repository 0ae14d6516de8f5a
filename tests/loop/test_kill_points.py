"""Invariant 6 at single file operations: a tiny run is killed before one, or in the middle of a write, and given again. It
ends as one that was left alone, leaves nothing over, and pays for no answer twice.

Here are those that have most to lose, and with the slow ones a share of all; `benchmarks/kills.py` kills at each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("torch")
pytest.importorskip("openai")

from kill_points import Point, supported
from killed_runs import Trial, distinct, trials

pytestmark = pytest.mark.skipif(not supported(), reason="needs Linux with seccomp user notification")

STATE, WEIGHTS = "run/iter-#/training/checkpoint-#", "run/iter-#/.checkpoint.#.tmp"
POINTS = {
    "expert": [
        Point("write run/iter-1/episodes.jsonl", 2, half=True),
        Point(f"write {STATE}/trainer_state.json", 2, half=True),
        Point(f"rename {WEIGHTS} -> run/iter-#/checkpoint", 2),
    ],
    "paid": [
        Point("pwrite run/calls.sqlite-wal", 30, half=True),
        Point("write run/iter-1/corrections.jsonl", 3, half=True),
        Point("rename run/.stages.json.#.tmp -> run/stages.json", 5),
    ],
}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Trial]]:
    with trials(tmp_path_factory.mktemp("killed")) as made:
        yield made


@pytest.mark.parametrize("kind", POINTS)
def test_a_run_killed_at_a_file_operation_ends_as_if_nothing_had_happened(
    kind: str, trial: Callable[[str], Trial]
) -> None:
    made = trial(kind)
    assert set(POINTS[kind]) <= {*made.points, *(point._replace(half=True) for point in made.points)}
    assert {str(point): made.killed_at(point) for point in POINTS[kind]} == {str(point): "" for point in POINTS[kind]}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", POINTS)
def test_a_run_killed_at_any_of_many_file_operations_ends_as_if_nothing_had_happened(
    kind: str, trial: Callable[[str], Trial]
) -> None:
    made = trial(kind)
    points = distinct(made.points)[::25]
    assert len(points) > 10
    assert {str(point): differs for point in points if (differs := made.killed_at(point))} == {}
