"""Damaged files of a run: made again or named in one line, never used as they are.

Every file of a run x everything that can happen to it, where the run is finished and where it stands still; the whole matrix
takes hours (`benchmarks/damage.log`) and is tried where LEAP_TEST_DAMAGE=1 asks for it, a sample of it always.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from damage import CALLS, KINDS, PAID, RECIPE, State, files, goes_east, outcome, own, state

from leap.errors import RunError
from leap.models import mock
from leap.runs.directory import RunDirectory

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


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> State:
    """A finished run with a teacher that was paid."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mock.SCRIPTS, "east", goes_east)
        return state(tmp_path_factory.mktemp("damage") / "paid", PAID, "finished")


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


@pytest.mark.parametrize("kind", ["emptied", "missing", "flipped", "last line"])
def test_answers_that_were_paid_for_are_never_begun_anew_without_a_word(paid: State, kind: str, tmp_path: Path) -> None:
    told = list(outcome(paid, "calls.sqlite", kind, tmp_path))
    assert {"report names it", "run names it"} <= set(told)


def test_corrections_that_are_gone_are_made_again_from_what_was_paid(paid: State, tmp_path: Path) -> None:
    assert "run goes on" in outcome(paid, "iter-1/corrections.jsonl", "missing", tmp_path)
    assert paid.paid == 0 == len(CALLS)


def test_a_run_of_an_earlier_version_is_noted_as_it_goes_on(finished: State, tmp_path: Path) -> None:
    """It has no files.json."""
    assert "run goes on" in outcome(finished, "files.json", "missing", tmp_path)
    noted, before = (json.loads((root / "files.json").read_text())["files"].keys() for root in (tmp_path / "run", finished.root))
    assert before - noted == {"base", "stages.json"}, "nothing comes by these when a finished run is run again"


def test_of_a_large_file_the_length_counts_until_it_is_loaded(
    finished: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leap.runs.manifest.LARGE", 1000)
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(finished.root, run.root)
    weights = run.checkpoint(1) / "model.safetensors"
    KINDS["flipped"](run.root, str(weights.relative_to(run.root)))
    assert run.manifest.check() == []
    with pytest.raises(RunError, match=r"model\.safetensors is damaged"):
        run.manifest.check(run.checkpoint(1), whole=True)
    (run.checkpoint(2) / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"iter-2/checkpoint/model\.safetensors is damaged"):
        run.manifest.check()


def test_a_run_that_was_killed_while_a_file_was_written_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, file, journal = RunDirectory(tmp_path), tmp_path / "stages.json", tmp_path / "x.jsonl"
    run.manifest.write(file, "one")
    monkeypatch.setattr("leap.runs.manifest.write_text", lambda *_: (_ for _ in ()).throw(OSError))
    with pytest.raises(OSError):
        run.manifest.write(file, "two")
    assert run.manifest.check() == []
    journal.write_text("a\n")
    run.manifest.record(journal)
    with pytest.raises(RuntimeError), run.manifest.growing(journal):
        journal.write_text("a\nb\nc")
        raise RuntimeError
    assert run.manifest.check() == []
    journal.write_text("b\nb\nc")
    with pytest.raises(RunError, match=r"x\.jsonl is damaged"):
        run.manifest.check()


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("LEAP_TEST_DAMAGE") != "1", reason="takes hours; LEAP_TEST_DAMAGE=1 asks for it")
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
