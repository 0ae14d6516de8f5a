"""`leap study`: lists, plans, refuses, and runs the theory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from leap.cli.app import app
from leap.errors import RecipeError

runner = CliRunner()
WORLD = {"name": "w", "rooms": 3, "horizon": 2, "answer": 0.5, "concentration": 1.0}
THEORY = {
    "kind": "theory", "name": "small", "claim": "a <script>", "hypothesis": "h", "seeds": [0], "iterations": 1,
    "levels": [0, 100], "worlds": [WORLD],
}  # fmt: skip


def test_studies_are_listed() -> None:
    shown = runner.invoke(app, ["study", "list"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0 and "one-model" in shown.stdout and "theory" in shown.stdout


def test_a_dry_run_names_arms_parts_and_minutes_and_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "300")
    small = [f"environment.options.generator.games.{split}=2" for split in ("train", "valid", "unseen")]
    changes = [word for setting in (*small, "environment.train_tasks=2") for word in ("--set", setting)]
    command = ["study", "on-policy", "--dry-run", "--seeds", "0", "--runs", str(tmp_path / "runs"), *changes]
    shown = runner.invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "mixture" in shown.stdout and "student-0: " in shown.stdout and "in all" in shown.stdout
    assert not (tmp_path / "runs").exists()


def test_the_theory_runs_and_its_page_and_twin_agree(tmp_path: Path) -> None:
    study, out = tmp_path / "small.yaml", tmp_path / "out"
    study.write_text(yaml.safe_dump(THEORY), encoding="utf-8")
    shown = runner.invoke(app, ["study", str(study), "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "holds in 4 of 4 cases" in shown.stdout
    results = json.loads((out / "results.json").read_text())
    page = (out / "index.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert f"{results['measured'][0]['terms']['expert']:.3f}" in page
    assert {path.name for path in out.iterdir()} == {
        "index.html", "results.json", "table.md", "plot-l1.svg", "plot-log.svg"
    }  # fmt: skip
    before = (out / "plot-l1.svg").read_bytes()
    assert runner.invoke(app, ["study", str(study), "--out", str(out)]).exit_code == 0
    assert (out / "plot-l1.svg").read_bytes() == before, "the same results give the same picture"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["study", "nothing"], "no study 'nothing'"),
        (["study", "methods", "--arms", "ppo"], "no arm 'ppo'"),
        (["study", "methods", "--set", "teacher.privilige=3"], "privilige: unknown key"),
        (["study", "methods", "--set", "x"], "dotted.key=value"),
        (["study", "methods", "--recipe", "none.yaml"], "there is no recipe 'none.yaml'"),
        (["study", "methods", "--split", "unseen"], "--split goes with --recipe"),
        (["study", "theory", "--recipe", "none.yaml"], "no base recipe"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], named: str, tmp_path: Path) -> None:
    shown = runner.invoke(app, [*arguments, "--runs", str(tmp_path), "--dry-run"])
    assert isinstance(shown.exception, RecipeError) and named in str(shown.exception)


def test_seeds_are_numbers(tmp_path: Path) -> None:
    shown = runner.invoke(app, ["study", "methods", "--seeds", "a,b", "--runs", str(tmp_path)])
    assert shown.exit_code == 2 and "whole numbers" in shown.output
