"""`benchmarks/run_all.py` reads the figures of each part in what its script prints, as the scripts' own logs have it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LOGS = {
    "alfworld": ("alfworld_engines.log", 6, 719),
    "webshop": ("webshop_engine.log", 4, 269),
    "bubblewrap": ("sandbox_bwrap.log", 2, 1.4),
    "docker": ("sandbox_docker.log", 4, 13.2),
    "episodes": ("intercode_side_by_side.log", 1, 34),
    "pretrained": ("engines_llm.log", 1, 2.7),
    "training": ("generation.log", 3, 10.0),
    "branches": ("branches.log", 2, 6.4),
    "rollouts": ("rollouts.log", 4, 17.9),
}
"""By part: its script's log, how many figures stand there, and the first one's ratio as the log has it."""


@pytest.fixture(scope="module")
def run_all() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_all", BENCHMARKS / "run_all.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_all"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def given(**options: object) -> argparse.Namespace:
    nothing = dict.fromkeys(("alfworld", "catalogue", "webshop", "model", "vllm"))
    return argparse.Namespace(**nothing, quick=True, **options)


@pytest.mark.parametrize("name", LOGS)
def test_a_part_reads_its_scripts_log(run_all: ModuleType, name: str) -> None:
    (part,) = [part for part in run_all.parts(given(), Path("run")) if part.name == name]
    log, count, times = LOGS[name]
    text = (BENCHMARKS / log).read_text(encoding="utf-8")
    if name == "rollouts":
        text = text.split("\n$ ")[0]
        count = 2
    figures = list(part.read(text))
    assert len(figures) == count
    assert figures[0].times == pytest.approx(times, rel=0.05)
    assert all(figure.leap > 0 and figure.other > 0 and "{" not in figure.what for figure in figures)


def test_what_is_lacking_is_told_and_what_fails_too(run_all: ModuleType, tmp_path: Path) -> None:
    every = {part.name: part for part in run_all.parts(given(), Path("run"))}
    assert "--model" in run_all.result(every["pretrained"], 60)["left_out"]
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('out of paper')", encoding="utf-8")
    part = run_all.Part("broken", "Broken", [str(script)], "", lambda text: iter(()))
    assert run_all.result(part, 60)["failed"] == "out of paper"
    script.write_text("print('3 apples')", encoding="utf-8")
    assert run_all.result(part, 60)["failed"] == "3 apples"  # no figure was read


def test_one_part_alone_leaves_the_others_on_file(
    run_all: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "all.json"
    out.write_text(json.dumps({"parts": {"branches": {"title": "kept"}}}), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--quick", "--only", "pretrained", "--out", str(out)])
    run_all.main()
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["quick"] and set(found["parts"]) == {"branches", "pretrained"}
    assert found["parts"]["branches"] == {"title": "kept"} and "left_out" in found["parts"]["pretrained"]
