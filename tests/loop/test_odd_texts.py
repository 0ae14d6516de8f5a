"""Whatever a model or a world says is kept as it was said, and ends at most its episode."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from leap import registry
from leap.core import Episode
from leap.files import Journal
from leap.loop import leap
from leap.models import mock
from leap.models.base import Request
from leap.progress import Progress
from leap.recipe import Recipe, dump_recipe
from leap.report import write_report
from leap.runs.directory import RunDirectory
from leap.runs.export import export_trl
from leap.runs.stages import Stages
from leap.testing.corridor import EAST, Corridor

pytest.importorskip("torch")

HALF, PAIR = "half \ud83d", "both \ud83d\ude00 \udc80"
NEST = '{"a":' * 50_000
SAID = [HALF, PAIR, "nul \0", NEST, "[" * 50_000, '{"trajectory": [' * 9_000, "\ufffe\u2028\x85", "9" * 5000]


@registry.environment("odd-corridor")
class Odd(Corridor):
    """A corridor in which each text ends in the note."""

    name = "odd-corridor"


@pytest.fixture(autouse=True)
def _odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world and a model that say odd things; the model now and then something that can be used."""

    calls = count(1)

    def odd(request: Request) -> str:
        number = next(calls)
        said = SAID[number % len(SAID)]
        if request.schema is None:
            return f"REASON: {said}\nACTION: {EAST if number % 3 else said}"
        told = {"leave_as_it_is": False, "corrected_reason": "east", "corrected_action": EAST}
        deep = json.dumps(told).replace(f'"{EAST}"', NEST)
        return [json.dumps(told), said, deep][number % 3]

    monkeypatch.setitem(mock.SCRIPTS, "odd", odd)


def recipe(note: str) -> Recipe:
    values: dict[str, Any] = {
        "name": "odd",
        "iterations": 1,
        "horizon": 3,
        "environment": {"name": "odd-corridor", "options": {"note": note, "size": 4}},
        "student": {
            "scratch": {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "max_tokens": 1024},
            "sampling": {"max_tokens": 24, "max_reason_tokens": 4},
        },
        "demonstrations": {"successes_only": False},
        "teacher": {"kind": "model", "model": "mock/odd", "by": "step", "episodes": "all"},
        "baselines": {"react": [{"model": "mock/odd", "examples": 1}]},
        "training": {"steps": 2, "batch_rows": 4, "device_rows": 2, "lr": 1e-3},
    }
    return Recipe.model_validate(values)


@pytest.mark.parametrize("note", [HALF, PAIR + " \0"])
def test_a_run_among_odd_texts_ends_well_and_keeps_them(note: str, tmp_path: Path) -> None:
    made, run = recipe(note), RunDirectory(tmp_path / "run")
    run.root.mkdir()
    run.recipe.write_text(dump_recipe(made))
    tables = []
    for _ in range(2):  # the second finds everything on file
        stages = Stages(made, run, Progress())
        result = leap(stages)
        tables.append((result.baselines, result.students))
        page = write_report(made, run, stages.environment)
        stages.close()
    assert tables[0] == tables[1]
    text = page.read_text(encoding="utf-8")
    assert note.encode("ascii", "backslashreplace").decode().replace("\0", "\\u0000") in text
    played = [episode for i in (0, 1) for episode in Journal(run.episodes(i), Episode)]
    played += Journal(run.played("react-mock-odd", "unseen"), Episode)
    assert all(step.observation.text.endswith(note.strip()) for episode in played for step in episode.steps)
    completions = {step.completion for episode in played for step in episode.steps}
    assert any(HALF in each for each in completions) and any(PAIR in each for each in completions)
    assert any(correction.kept for correction in stages.corrections(1))
    for path in (tmp_path / "trl" / name for name in export_trl(run, tmp_path / "trl")):
        for file in path.glob("*.jsonl"):
            for line in file.read_text(encoding="ascii").splitlines():
                json.dumps(json.loads(line), ensure_ascii=False).encode()  # other programs read it


def test_parquet_holds_them_too(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    from leap.runs.export import export_parquet

    run = RunDirectory(tmp_path / "run")
    stages = Stages(recipe(HALF), run, Progress())
    stages.rollout(0)
    stages.close()
    run.recipe.write_text(dump_recipe(recipe(HALF)))
    export_parquet(run, tmp_path / "out")
    assert "half \ufffd" in pq.read_table(tmp_path / "out" / "episodes").to_pylist()[0]["final"]
