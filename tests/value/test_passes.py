"""Whole attempts of a student at validation tasks, and what the report says of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from tiny_recipe import RECIPE

pytest.importorskip("trl")

import leap
from leap.core import Episode
from leap.files import Journal, read_json
from leap.runs.directory import RunDirectory
from leap.runs.open import recipe_of
from leap.runs.table import missing_stages
from tiny_world import TinyWorld, TinyWorldConfig

pytestmark = pytest.mark.slow
WORLD = TinyWorld(TinyWorldConfig(tasks=12))
ATTEMPTS, TASKS = 3, 5


def run(folder: Path) -> leap.Run:
    values = yaml.safe_load(RECIPE) | {"iterations": 0, "measures": {"attempts": ATTEMPTS, "attempted": TASKS}}
    values["student"]["evaluation_temperature"] = 1.0  # or each attempt might be the same
    return leap.run(values, environment=WORLD, run_dir=folder)


def test_a_run_counts_whole_attempts_and_the_report_tells_them(tmp_path: Path) -> None:
    done = run(tmp_path / "run")
    files, recipe = RunDirectory(done.path), recipe_of(done.path)
    attempts = list(Journal(files.best_of(0, "valid-attempts.jsonl"), Episode))
    solved = Counter(one.task.id for one in attempts if one.success)
    tried = Counter(one.task.id for one in attempts)
    assert len(tried) == TASKS and {*tried.values()} == {ATTEMPTS}
    told = read_json(files.best_of(0, "passes.json"))
    assert told["iteration"] == 0 and told["tasks"] == TASKS
    assert told["passed"][0] == pytest.approx(solved.total() / len(attempts), abs=1e-3)
    assert told["passed"][-1] == pytest.approx(len(solved) / TASKS, abs=1e-3)
    assert 0 < solved.total() < len(attempts), "attempts that all end alike show nothing"
    page = done.report().read_text()
    assert '<section id="passes">' in page and "pass@3" in page and "pass@4" not in page

    assert not missing_stages(recipe, files, WORLD) and not any(files.manifest.damage())
    before = files.best_of(0, "passes.json").read_bytes()
    files.best_of(0, "passes.json").unlink()
    assert [stage.name for stage in missing_stages(recipe, files, WORLD)] == ["whole attempts of pi_0"]
    run(tmp_path / "run")
    assert files.best_of(0, "passes.json").read_bytes() == before
    assert list(Journal(files.best_of(0, "valid-attempts.jsonl"), Episode)) == attempts  # none is played again
