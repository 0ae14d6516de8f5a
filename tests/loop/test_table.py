"""The stage table: a run is what the table says, no file more and no stage less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leap import registry
from leap.errors import RunError
from leap.loop import leap
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.stages import Stages
from leap.runs.table import Stage, missing_stages, stage_table
from leap.testing.corridor import STAY, Corridor, CorridorTutor

pytest.importorskip("torch")

OF_THE_RUN = {"recipe.yaml", "provenance.jsonl", "stages.json", "files.json", ".lock"}


class IdleTutor(CorridorTutor):
    """A tutor that also knows what doing nothing is."""

    idle = {"stays": (STAY,)}  # noqa: RUF012 - as in the contract


@registry.environment("idle-corridor")
class Idle(Corridor):
    """A corridor with a baseline that stays where it is."""

    name = "idle-corridor"

    @property
    def tutor(self) -> CorridorTutor:
        return IdleTutor(self)


@registry.stage("notes")
def notes(recipe: Recipe, i: int, stages: Any) -> Stage | None:
    """A third party's stage: a file beside each iteration's evaluation."""
    if recipe.environment.name != "idle-corridor":
        return None
    file = Path(f"iter-{i}/notes.txt")
    read = [stage for stage in stages if (stage.kind, stage.iteration) == ("evaluate", i)]

    def make(made: Stages) -> None:
        (made.run.root / file).write_text(str(made.evaluate(i)[0].overall.n))

    return Stage(f"notes on pi_{i}", "note", i, [file], file, make, inputs=read)


def recipe(**more: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "x",
        "iterations": 1,
        "horizon": 4,
        "environment": {"name": "idle-corridor", "train": "train", "validation": "valid", "test": ["unseen"]},
        "student": {"scratch": {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "max_tokens": 256},
                    "prompt": {"renderer": "dialogue", "instructions": False}, "sampling": {"max_tokens": 8}},
        "teacher": {"episodes": "all"},
        "training": {"steps": 2, "batch_rows": 4, "device_rows": 2, "lr": 1e-3},
        "measures": {"held_out": 2},
    }  # fmt: skip
    return Recipe.model_validate(values | more)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_stages_made_one_by_one_are_the_run_that_the_loop_makes(tmp_path: Path) -> None:
    made, table = recipe(), stage_table(recipe())
    names = {stage.name for stage in table}
    read = [one for stage in table for one in stage.inputs if isinstance(one, Stage)]
    assert read and {one.name for one in read} <= names, "an input is a stage before"
    assert {"evaluation of stays", "notes on pi_1", "measures of pi_1"} <= names
    one_by_one = Stages(made, RunDirectory(tmp_path / "table"), Progress())
    for stage in table:
        stage.make(one_by_one)
        assert stage.begun(one_by_one.run) and (stage.finished(one_by_one.run) or stage.name == "rollouts of pi_0")
    assert missing_stages(made, one_by_one.run) == []
    looped = Stages(made, RunDirectory(tmp_path / "loop"), Progress())
    leap(looped)
    found, wanted = files(tmp_path / "table"), files(tmp_path / "loop")
    assert found.keys() == wanted.keys()
    for name in found:
        if name.endswith(("evaluation.json", "rows.jsonl", "notes.txt", "model.safetensors")):
            assert found[name] == wanted[name], name
    declared = [file for stage in table for file in stage.files]
    strays = {name for name in found if not any(Path(name).is_relative_to(file) for file in declared)}
    assert strays <= OF_THE_RUN, "every file of a run belongs to a stage"


def test_a_stage_that_is_gone_is_missed_and_made_again(tmp_path: Path) -> None:
    made = recipe(iterations=0)
    stages = Stages(made, RunDirectory(tmp_path), Progress())
    leap(stages)
    (tmp_path / "baselines/stays/evaluation.json").unlink()
    (tmp_path / "iter-0/notes.txt").unlink()
    assert [stage.name for stage in missing_stages(made, stages.run)] == ["evaluation of stays", "notes on pi_0"]
    leap(stages)
    assert missing_stages(made, stages.run) == []


def test_a_training_goes_on_from_its_own_states_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were made again, or another iteration's folder put in place, would train on in silence otherwise."""
    stages, found = Stages(recipe(), RunDirectory(tmp_path), Progress()), []

    def killed(method: Any, rows: Any, job: Any) -> Any:
        found.append((job.work / "checkpoint-1").exists())
        (job.work / "checkpoint-1").mkdir(parents=True, exist_ok=True)
        raise RunError("killed")

    monkeypatch.setattr("leap.training.distributed.train", killed)
    stages.rollout(0)
    rows = stages.dataset(0)
    for content in (rows.read_bytes(), rows.read_bytes(), rows.read_bytes() * 2):
        rows.write_bytes(content)
        with pytest.raises(RunError, match="killed"):
            stages.train(0)
    assert found == [False, True, False]

