"""Damaged files of a run: made again or named in one line, never used as they are.

Every file of a run x everything that can happen to it, where the run is finished and where it stands still; the whole matrix is
slow (`benchmarks/damage.log`), a sample of it is not.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from damage import CALLS, KINDS, PAID, RECIPE, State, files, goes_east, outcome, own, state

from leap.models import mock

pytest.importorskip("torch")

WHERE = ["finished", "training", "correct", "dataset"]


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mock.SCRIPTS, "east", goes_east)
    monkeypatch.setattr("leap.runs.manifest.time.sleep", lambda seconds: None)  # nobody writes the run meanwhile
    CALLS.clear()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> State:
    """A finished run."""
    return state(tmp_path_factory.mktemp("damage") / "finished", RECIPE, "finished")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("iter-1/rows.jsonl", "emptied"),
        ("iter-1/rows.jsonl", "line twice"),
        ("iter-1/episodes.jsonl", "flipped"),
        ("iter-2/corrections.jsonl", "swapped"),
        ("iter-1/checkpoint/model.safetensors", "cut"),
        ("iter-0/evaluation.json", "flipped"),
        ("recipe.yaml", "emptied"),
        ("files.json", "zeros"),
    ],
)
def test_a_damaged_file_of_a_finished_run(finished: State, name: str, kind: str, tmp_path: Path) -> None:
    assert list(outcome(finished, name, kind, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("recipe", ["expert", "paid"])
def test_the_whole_matrix(recipe: str, where: str, tmp_path: Path) -> None:
    ready = state(tmp_path / "state", PAID if recipe == "paid" else RECIPE, where)
    failed, counted = [], Counter[str]()
    names = [name for name in files(ready.root) if own(where, name)]
    for name in names:
        for kind in KINDS:
            try:
                counted.update(outcome(ready, name, kind, tmp_path / f"{name} {kind}".replace("/", "_").replace(" ", "_")))
            except AssertionError as error:
                failed.append(f"{name} {kind}: {str(error)[:600]}")
                print("FAILED", failed[-1], flush=True)
    print(f"{recipe} {where}: {len(names)} files, {len(failed)} failed, {dict(counted)}", flush=True)
    assert not failed, "\n".join(failed)
