"""A third party's executor, in this file alone: shards are played in other processes, and the run is the same."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from leap import registry
from leap.cli.app import app
from leap.errors import RecipeError, RunError
from leap.loop import leap
from leap.recipe import ExecutorConfig, resolved
from leap.runs.actors import Actors
from leap.runs.executors import Executor, Shard, run_shard
from leap.runs.open import open_run
from leap.runs.parts import Part, open_part
from leap_lab.measures.stage import measure, measures_file

pytest.importorskip("torch")


@registry.executor("pool")
class PoolExecutor(Executor):
    """Works on shards in processes that know nothing but what is in a shard."""

    class Config(ExecutorConfig):
        workers: int = 2

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(self.config.workers, mp_context=get_context("spawn")) as pool:
            for playing in asyncio.as_completed([loop.run_in_executor(pool, run_shard, shard) for shard in shards]):
                for record in await playing:
                    yield record


def run(folder: Path, **executor: Any) -> dict[str, Any]:
    """A tiny run's episodes, checkpoints and tables, without what a clock says."""
    games = {"seed": 1, "games": {"train": 4, "valid": 2, "unseen": 2}, "receptacles": [6, 7]}
    recipe = {
        "name": "tiny",
        "iterations": 1,
        "horizon": 4,
        "environment": {"name": "alfworld", "options": {"generator": games}},
        "student": {"scratch": {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "max_tokens": 1024}, "batch": 2,
                    "sampling": {"max_tokens": 12, "max_reason_tokens": 2}, "decoding": "constrained"},
        "demonstrations": {"successes_only": False},
        "training": {"steps": 2},
        "measures": {"held_out": 2},
        "executor": executor,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    with open_run(folder, resolved(recipe, "the recipe")) as stages:
        leap(stages)
    return on_file(folder)


def on_file(folder: Path) -> dict[str, Any]:
    """A run's records and tables, without what a clock says."""
    episodes = {}
    for path in folder.rglob("*.jsonl"):
        lines = [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]
        episodes[str(path.relative_to(folder))] = sorted(map(json.dumps, lines))
    episodes.pop("provenance.jsonl")
    names = ("evaluation.json", "measures.json")
    tables = {str(path.relative_to(folder)): path.read_text() for name in names for path in folder.rglob(name)}
    return episodes | tables | {"pi_1": json.loads((folder / "iter-1/checkpoint/leap.json").read_text())["key"]}


@pytest.mark.slow
def test_who_plays_the_shards_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    here = run(tmp_path / "here")
    assert {"iter-1/evaluation.json", "iter-1/measures.json", "iter-1/held-out-losses.jsonl"} <= here.keys()
    assert here == run(tmp_path / "there", kind="pool", workers=2)
    assert here == run(tmp_path / "workers", kind="local", workers=2)
    with pytest.raises(RecipeError, match="wokers: unknown key"):
        run(tmp_path / "here", kind="pool", wokers=2)
    with pytest.raises(RecipeError, match="no executor 'pol'"):
        run(tmp_path / "here", kind="pol")


def test_parts_of_an_evaluation_and_of_measures_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    whole = run(tmp_path)
    made = [
        *(tmp_path / "iter-1").glob("held-out-*"),
        tmp_path / "iter-1/evaluation.json",
        tmp_path / "iter-1/measures.json",
    ]
    assert len(made) == 4
    for file in made:
        file.unlink()
    shutil.rmtree(tmp_path / "iter-1/evaluation")
    for verb in ("evaluate", "measure"):
        for shard, parts in ((["--shard", "2/2"], False), (["--shard", "1/3"], True), ([], False)):
            done = CliRunner().invoke(app, [verb, str(tmp_path), "-i", "1", *shard])
            assert done.exit_code == 0, (done.output, done.exception)
            assert bool(list(tmp_path.rglob("*.parts"))) == parts  # everything is one shard, the first
    whole.pop("iter-1/rows.jsonl")  # of an iteration of which a journal was gone they are made again when they are needed
    assert on_file(tmp_path) == whole
    with (
        pytest.raises(RunError, match="iteration 0 is to be measured first"),
        open_part(tmp_path, Part(1, 2)) as stages,
    ):
        for i in (0, 1):
            measures_file(stages.run, i).unlink()
        measure(stages, 1)
