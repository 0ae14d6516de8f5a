"""A whole run by `distill` in the tiny world: what is kept, what is asked before, and what the report says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_recipe import RECIPE

pytest.importorskip("trl")

import leap
from leap.errors import RunError
from leap.files import read_json
from leap.recipe import Recipe
from leap.report.page import write_report
from leap.runs.stages import Stages
from tiny_world import TinyWorld, TinyWorldConfig

pytestmark = pytest.mark.slow
METHOD = {"method": "distill", "optimizer": "muon", "lr": 0.003, "first_steps": 8, "steps": 4, "batch_tokens": 1000}
METHOD["gate_tasks"] = 5


def run(folder: Path, iterations: int = 1, **training: Any) -> leap.Run:
    values = yaml.safe_load(RECIPE) | {"iterations": iterations, "training": METHOD | training}
    values["demonstrations"] = {"successes_only": False, "with_state": 50}
    return leap.run(values, environment=TinyWorld(TinyWorldConfig(tasks=6)), run_dir=folder)


def test_a_run_learns_from_its_own_weights_with_the_privileged_state(tmp_path: Path) -> None:
    done = run(tmp_path / "run", 2)
    for i in (1, 2):
        steps = [step for episode in done.episodes(i) for step in episode.steps]
        assert steps and all(step.tokens and len(step.logprobs) == len(step.tokens) for step in steps)
        told = read_json(done.checkpoint(i) / "leap.json")["result"]["figures"]["distill"]
        assert told["tasks"] == 5 and 0 <= told["privileged"] <= 1 and told["taught"] > 0
        assert told["before"]["answers"] == min(300, len(steps)) and told["before"]["wrong"] > 0
        assert {"kl", "kl_by_turn", "separation", "entropy"} <= told["after"].keys()
        journal = done.path / f"iter-{i - 1}" / "privileged.jsonl"
        assert len(journal.read_bytes().splitlines()) == 5
    assert not any(step.tokens for episode in done.episodes(0) for step in episode.steps)
    recipe = Recipe.model_validate(yaml.safe_load((done.path / "recipe.yaml").read_text()))
    from leap.runs.directory import RunDirectory

    page = write_report(recipe, RunDirectory(done.path)).read_text()
    assert '<section id="distillation">' in page and "Divergence by turn, iteration 2" in page
    assert "Where the divergence lies" in page and told["after"]["by_kind"] != told["before"]["by_kind"]
    assert sum(share for _, share in told["before"]["by_kind"]) == pytest.approx(1, abs=1e-3)
    before = {path: path.read_bytes() for path in done.path.glob("iter-*/checkpoint/*")}
    run(tmp_path / "run", 2)
    assert before == {path: path.read_bytes() for path in done.path.glob("iter-*/checkpoint/*")}


@pytest.mark.parametrize("gate", ["refuse", "warn", "off"])
def test_a_teacher_with_nothing_to_give(
    gate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Stages, "_with_privilege", lambda self, i, limit: (0.5, 0.52, limit))
    if gate == "refuse":
        with pytest.raises(RunError, match=r"pi_0 solves 52% of 5 validation tasks with .* 50% without.*less than 10% to give"):
            run(tmp_path / "run", gate=gate)
        assert not (tmp_path / "run" / "iter-1" / "checkpoint").exists()
    else:
        run(tmp_path / "run", gate=gate)
        assert ("to give (training.margin)" in caplog.text) == (gate == "warn")


def test_a_teacher_who_is_passed_retires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = [(0.2, 0.8, 5), (0.79, 0.8, 5), (0.79, 0.81, 5)]
    monkeypatch.setattr(Stages, "_with_privilege", lambda self, i, limit: gaps[i])
    shrinking = run(tmp_path / "one", 3)
    told = [read_json(shrinking.checkpoint(i) / "leap.json")["result"]["figures"]["distill"] for i in (1, 2, 3)]
    assert not any(one.get("retired") for one in told)
    gaps[0] = (0.795, 0.8, 5)
    done = run(tmp_path / "two", 3)
    told = [read_json(done.checkpoint(i) / "leap.json")["result"]["figures"]["distill"] for i in (1, 2, 3)]
    assert [bool(one.get("retired")) for one in told] == [False, False, True]
    assert told[2]["taught"] == 0 and told[2]["before"] == {} and told[1]["taught"] > 0


def test_corrections_alone_need_no_tokens(tmp_path: Path) -> None:
    done = run(tmp_path / "run", on="corrections", teacher="live", divergence="jsd")
    assert not any(step.tokens for episode in done.episodes(1) for step in episode.steps)
    assert read_json(done.checkpoint(1) / "leap.json")["result"]["figures"]["distill"]["taught"] > 0
    more = {"divergence": "reverse", "clip": 3.0, "contrast": True, "ratio": 2.0}
    other = run(tmp_path / "other", on="own", disagree=True, gated=True, **more)
    told = read_json(other.checkpoint(1) / "leap.json")["result"]["figures"]["distill"]
    assert told["taught"] > 0 and told["before"]["alike"] == 1 and 0 < told["after"]["alike"] < 1
