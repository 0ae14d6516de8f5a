"""The examples run: the loop in one file learns, and an environment of another package goes through the whole loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_recipe import RECIPE

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_an_environment_of_another_package_runs_through_the_whole_loop(tmp_path: Path) -> None:
    package = tmp_path / "site"
    info = package / "tiny_world-1.0.dist-info"
    info.mkdir(parents=True)
    (package / "tiny_world.py").write_text((EXAMPLES / "tiny_world.py").read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-world\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[leap.environments]\ntiny-world = tiny_world:TinyWorld\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    environment = os.environ | {"PYTHONPATH": str(package), "LEAP_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    leap = [sys.executable, "-c", "from leap.cli import main; main()"]
    done = subprocess.run(
        [*leap, "run", str(recipe), "--run-dir", str(tmp_path / "run")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "run" / "iter-1" / "evaluation.json").read_text())
    assert {table["split"]: table["overall"]["n"] for table in tables} == {"valid": 12, "test": 12}
    assert (tmp_path / "run" / "report" / "index.html").exists()
    validated = subprocess.run([*leap, "validate", "tiny-world"], env=environment, capture_output=True, text=True)
    assert validated.returncode == 0, validated.stdout + validated.stderr


@pytest.mark.slow
def test_the_loop_in_one_file_finds_the_key_sooner_than_its_demonstrator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The student really learns: after one iteration it needs fewer actions than the expert it was cloned from."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import leap_loop

    monkeypatch.setattr(leap_loop, "ITERATIONS", 1)
    expert, cloned, taught = leap_loop.main(steps=60, tasks=60)
    assert taught < expert
    assert taught < cloned


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_who_is_taught_by_one_who_sees_the_word_finds_more_words_than_who_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The student really learns, in less than the example's time: on words that it was not trained on."""
    pytest.importorskip("textarena", reason="TextArena is not installed (leap-agents[textarena])")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import nltk

    monkeypatch.setattr(nltk.data, "path", [*nltk.data.path])
    import hangman

    found = hangman.main(steps=200, tasks=250, games=200, iterations=2, held_out="valid")
    assert list(found) == ["expert", "pi_0", "pi_1", "pi_2"]
    assert found["pi_2"].overall.low > found["pi_0"].overall.high
