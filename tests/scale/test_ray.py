"""The executor `ray` on a cluster of this machine: a head without CPUs and three nodes of one."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("ray", reason="Ray is not installed: pip install 'leap-agents[ray]'")

import clusters
from killed_runs import Teacher, calls, paid

import leap
from leap import registry
from leap.errors import LeapError, PrerequisiteError, RecipeError, RunError
from leap.models.ledger import BudgetReached
from leap.runs.directory import RunDirectory
from leap.testing.server import MockServer

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with clusters.cluster() as made:
        yield made


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the run `here` in one process, and of its cache."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAP_CACHE", str(folder / "cache"))
        leap.run(clusters.quickstart(), run_dir=folder / "here")
    return folder


@pytest.mark.slow
def test_a_run_on_three_nodes_is_that_of_one_process(
    cluster: Any, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(here / "cache"))
    ray = clusters.executor(cluster, here / "cache")
    leap.run(clusters.quickstart() | {"executor": ray}, run_dir=tmp_path / "there")
    here, there = clusters.kept(here / "here"), clusters.kept(tmp_path / "there")
    assert here == there and sum("as bytes" in name for name in here) > 3
    said = capfd.readouterr()
    assert "3 workers" in said.out + said.err
    assert not [line for line in said.err.splitlines() if "ray" in line.lower() and "Ray: 3 CPU, 3 workers" not in line]
    assert not list((tmp_path / "there").glob(".*.tmp"))


def kill_when(there: Callable[[], bool], name: str, killed: list[int]) -> None:
    """Kills a process of Ray's of that name once something is there."""
    until = time.monotonic() + 240
    while not there() and time.monotonic() < until:
        time.sleep(0.01)
    killed += clusters.processes(name)
    os.kill(killed[0], signal.SIGKILL)


@clusters.many_minutes
@pytest.mark.slow
def test_students_generate_apart_from_environments_and_a_generator_may_go(
    cluster: Any, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(here / "cache"))
    ray = clusters.executor(cluster, here / "cache", 2) | {"generators": {"number": 1, "cpus": 1, "gpus": 0}}
    begun, killed = tmp_path / "there/iter-0/evaluation/valid.jsonl", list[int]()
    killer = Thread(target=kill_when, args=(begun.exists, "ray::Generator", killed))
    killer.start()
    leap.run(clusters.quickstart() | {"executor": ray}, run_dir=tmp_path / "there")
    killer.join()
    assert len(killed) == 1 and clusters.kept(here / "here") == clusters.kept(tmp_path / "there")
    said = capfd.readouterr()
    assert "2 workers and 1 generators" in said.out + said.err


@clusters.many_minutes
@pytest.mark.slow
def test_no_call_passes_the_ledger_by_and_the_cap_holds_across_workers(cluster: Any, tmp_path: Path) -> None:
    def run(where: str, server: MockServer, **more: Any) -> None:
        recipe = paid(f"http://127.0.0.1:{server.port}/v1", size=40)
        leap.run(recipe | {"demonstrations": {"episodes": 20, "successes_only": False}} | more, run_dir=tmp_path / where)

    alone, many = Teacher(), Teacher()
    with MockServer(alone) as server:
        run("here", server)
    ray = {"kind": "ray", "address": cluster.address, "workers": 3}
    spent = sum(row[4] + row[5] for row in calls(tmp_path / "here" / "calls.sqlite"))
    cap = spent // 2
    with MockServer(many) as server:  # the same address both times, for a call is known by it too
        with pytest.raises(BudgetReached, match="the budget is used up"):
            run("there", server, executor=ray, budget={"tokens": cap})
        booked = calls(tmp_path / "there" / "calls.sqlite")
        longest = max(row[4] + row[5] for row in booked)
        assert len(booked) == many.answers.total(), "every call is booked"
        assert cap <= sum(row[4] + row[5] for row in booked) <= cap + 3 * 2 * longest, "calls under way alone go beyond it"
        run("there", server, executor=ray)
    assert set(many.answers.values()) == {1}, "nothing is paid twice"
    assert many.answers == alone.answers
    here, there = (clusters.kept(tmp_path / name) for name in ("here", "there"))
    del here["calls.sqlite"], there["calls.sqlite"]  # addresses are in their keys
    assert here == there


@pytest.mark.slow
def test_what_cannot_be_is_told_in_one_line_before_work_starts(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(error: type[LeapError], told: str, executor: dict[str, Any], **more: Any) -> None:
        with pytest.raises(error, match=told) as caught:
            leap.run(clusters.quickstart() | more | {"executor": {"kind": "ray", **executor}}, run_dir=tmp_path / "run")
        assert str(caught.value).count("\n") <= (error is RecipeError)  # a recipe's slips have a line each below the first

    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{free.getsockname()[1]}"
    refused(PrerequisiteError, f"executor.address: no Ray at {closed}", {"address": closed})
    refused(PrerequisiteError, "run leap on a node of the cluster", {"address": "ray://somewhere:10001"})
    there = {"address": cluster.address, "workers": 2}
    refused(PrerequisiteError, "2 workers need 2 GPU, and the cluster has 0", there | {"gpus_per_worker": 1})
    refused(PrerequisiteError, "4 workers need 4 CPU, and the cluster has 3", there | {"workers": 4})
    refused(RecipeError, "wokers: unknown key", there | {"wokers": 2})
    uneven = clusters.quickstart()["training"] | {"branches": False, "batch_rows": 3, "processes": 2}
    refused(RecipeError, "3 rows cannot be shared out among 2 processes", there, training=uneven)
    with RunDirectory(tmp_path / "run").locked():
        refused(RunError, "another process is working on", there)
    # Workers have an environment of their own: what is set here is so for the driver alone.
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ghost", ModuleType("ghost"))
        patch.setattr(registry, "user_modules", lambda: ("ghost",))
        refused(PrerequisiteError, "a worker lacks something: ModuleNotFoundError: No module named 'ghost'", there)
    with monkeypatch.context() as patch:
        patch.setattr("ray._private.utils.compute_version_info", lambda: ("2.0", "3.9.1"))
        refused(PrerequisiteError, r"Version mismatch: .* Python: 3\.9\.1", there)
    monkeypatch.setattr("leap.runs.ray_pool.__version__", "0.0.1")
    refused(PrerequisiteError, "workers have leap .*, and this is 0.0.1", there)
