"""A run's student in another world of the same environment: played once, never on what was trained on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from world import OPTIONS

from leap.errors import RecipeError
from leap.files import write_json
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.runs.executors import LocalExecutor
from leap.runs.shards import Shard, run_shard
from leap.runs.stages import Stages
from leap.runs.transfer import evaluate_elsewhere

pytest.importorskip("torch")


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    """A run whose pi_0 is an untrained student."""
    from leap.models.scratch import ScratchConfig, build_scratch

    values = {
        "name": "x",
        "horizon": 3,
        "environment": {"name": "alfworld", "options": OPTIONS},
        "student": {"sampling": {"max_tokens": 30, "max_reason_tokens": 3}, "decoding": "constrained"},
    }
    made = Stages(Recipe.model_validate(values), RunDirectory(tmp_path / "run"), Progress())
    checkpoint = made.run.checkpoint(0)
    build_scratch(ScratchConfig(layers=1, width=16, mlp=16), made.environment.vocabulary(), checkpoint, seed=0)
    write_json(checkpoint / "leap.json", {"key": "untrained", "iteration": 0})
    return made


def test_expert_teachers_and_student_play_each_task_once(stages: Stages) -> None:
    options = {"generator": OPTIONS["generator"] | {"seed": 77, "games": {"train": 2, "seen": 3}}}
    first = evaluate_elsewhere(stages, 0, options, ["seen"], horizon=4)
    assert [e.policy for e in first] == ["expert", "teacher-0", "teacher-50", "pi_0"]
    assert all(e.overall.n == 3 and e.horizon == 4 and e.split == "seen" for e in first)
    files = {path: path.read_bytes() for path in (stages.run.iteration(0) / "elsewhere").rglob("*.jsonl")}
    assert len(files) == 4
    assert evaluate_elsewhere(stages, 0, options, ["seen"], horizon=4) == first
    assert all(path.read_bytes() == content for path, content in files.items())


class Recording(LocalExecutor):
    """Works on shards as another process would: with nothing but them."""

    worked: ClassVar[list[str]] = []

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        for shard in shards:
            self.worked.append(shard.name)
            for record in await asyncio.to_thread(run_shard, shard):
                yield record


def test_the_executor_plays_them(stages: Stages) -> None:
    options = {"generator": OPTIONS["generator"] | {"seed": 77, "games": {"train": 2, "seen": 3}}}
    stages.__dict__["executor"] = Recording()
    there = evaluate_elsewhere(stages, 0, options, ["seen"], horizon=4)
    assert Recording.worked == [f"elsewhere-{name}, shard 1 of 1" for name in ("expert", "teacher-0", "teacher-50", "pi_0")]
    shutil.rmtree(stages.run.iteration(0) / "elsewhere")
    del stages.__dict__["executor"]
    here = evaluate_elsewhere(stages, 0, options, ["seen"], horizon=4)
    assert here == there


def test_tasks_that_were_trained_on_are_refused(stages: Stages) -> None:
    with pytest.raises(RecipeError, match="trained on"):
        evaluate_elsewhere(stages, 0, OPTIONS, ["train"])
