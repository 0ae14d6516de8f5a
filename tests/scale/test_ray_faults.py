"""Faults of a cluster: nodes that go without a word, workers that do not see the run directory, a driver that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("ray", reason="Ray is not installed: pip install 'leap-agents[ray]'")

import clusters
import slow_corridor  # noqa: F401 - registers it

import leap

pytestmark = [clusters.many_minutes, pytest.mark.slow, pytest.mark.timeout(1800)]

TASKS = 40
RECIPE: dict[str, Any] = {
    "name": "slow",
    "iterations": 1,
    "horizon": 3,
    "environment": {"name": "slow-corridor", "test": ["unseen"], "options": {"size": TASKS, "pause": 0.2}},
    "student": {
        "scratch": {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "max_tokens": 512},
        "sampling": {"temperature": 0.5, "max_tokens": 12, "max_reason_tokens": 4},
        "decoding": "constrained",
        "batch": 4,
    },
    "demonstrations": {"successes_only": False},
    "teacher": {"episodes": "all"},
    "training": {"steps": 30, "save_steps": 2, "batch_rows": 4, "device_rows": 4, "lr": 1e-3},
}
STAGES = {
    "a baseline": "baselines/expert/valid.jsonl",
    "demonstrations": "iter-0/episodes.jsonl",
    "behaviour cloning": "iter-0/training",
    "an evaluation": "iter-0/evaluation/valid.jsonl",
    "rollouts": "iter-1/episodes.jsonl",
    "corrections": "iter-1/corrections.jsonl",
    "a training": "iter-1/training",
    "the last evaluation": "iter-1/evaluation/unseen.jsonl",
}


def given(recipe: Path, run: Path) -> subprocess.Popen[str]:
    """`leap run`, as a user gives it whose world is a module beside the recipe."""
    command = [sys.executable, "-c", "import slow_corridor; from leap.cli import main; main()", "run", str(recipe)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--run-dir", str(run)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def under_way(path: Path) -> bool:
    """Whether a stage has begun to leave something, and is not over."""
    if path.name == "training":
        return any(path.glob("checkpoint-*/complete.json"))
    return path.exists() and path.read_bytes().count(b"\n") > 0


def over(path: Path, undisturbed: Path) -> bool:
    """Whether it has left all."""
    if path.name == "training":
        return (path.parent / "checkpoint" / "leap.json").exists()
    return path.read_bytes().count(b"\n") >= undisturbed.read_bytes().count(b"\n")


def met(process: subprocess.Popen[str], done: Callable[[], bool]) -> None:
    while not done():
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    leap.run(RECIPE, run_dir=folder)
    return folder


def test_a_node_that_goes_in_the_middle_of_each_stage_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    cut: list[str] = []
    with clusters.cluster() as cluster:
        recipe.write_text(yaml.safe_dump(RECIPE | {"executor": clusters.executor(cluster, tmp_path / "cache")}))
        process = given(recipe, run)
        try:
            for stage, name in STAGES.items():
                met(process, lambda name=name: under_way(run / name))
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                if not over(run / name, undisturbed / name):
                    cut.append(stage)
                cluster.add_node(num_cpus=1)
            output = process.communicate(timeout=300)[0]
        finally:
            process.kill()
    assert process.returncode == 0, output[-3000:]
    assert "Traceback" not in output
    assert clusters.kept(run) == clusters.kept(undisturbed)
    assert len(cut) >= len(STAGES) - 2, f"met in the middle: {cut}"


def test_a_killed_driver_goes_on_by_the_same_command(undisturbed: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    with clusters.cluster() as cluster:
        recipe.write_text(yaml.safe_dump(RECIPE | {"executor": clusters.executor(cluster, tmp_path / "cache")}))
        for name in ("iter-0/training", "iter-1/episodes.jsonl"):
            process = given(recipe, run)
            met(process, lambda name=name: under_way(run / name))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert not over(run / name, undisturbed / name)
        process = given(recipe, run)
        output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output[-3000:]
    assert clusters.kept(run) == clusters.kept(undisturbed)


@pytest.mark.parametrize("stored", [False, True], ids=["object store", "storage path"])
def test_workers_need_not_see_the_run_directory(stored: bool, undisturbed: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    with clusters.cluster(0) as cluster, clusters.blind_node(cluster, hidden), clusters.blind_node(cluster, hidden):
        executor = clusters.executor(cluster, tmp_path / "cache", 2)
        executor |= {"storage_path": str(tmp_path / "storage")} if stored else {}
        quick = RECIPE | {"environment": RECIPE["environment"] | {"options": {"size": TASKS, "pause": 0}}}
        leap.run(quick | {"executor": executor}, run_dir=hidden / "run")
    # The pause is a part of the recipe and of its report, and of nothing else.
    here, there = clusters.kept(undisturbed), clusters.kept(hidden / "run")
    assert here == there
    assert stored == any((tmp_path / "storage").glob("*"))
