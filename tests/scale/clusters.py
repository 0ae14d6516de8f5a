"""A cluster of raylets on this machine, and small runs on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from killed_runs import on_file

from leap.recipe import read_mapping
from leap.recipes import find_recipe

many_minutes = pytest.mark.skipif(
    not os.environ.get("LEAP_TEST_RAY"), reason="takes many minutes on a small machine: set LEAP_TEST_RAY=1"
)

NOISE = ("recipe.yaml", "report/report.json")
"""Files of a run that name its executor."""


_SET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 starves workers on a machine that has other work
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process less in each training
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "240",
    "OPENAI_API_KEY": "of-no-value",
    "HF_HUB_OFFLINE": "1",
}


@contextmanager
def cluster(nodes: int = 3) -> Iterator[Any]:
    """A head without CPUs, and nodes of one."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in _SET.items():
            patch.setenv(name, value)
        for tries_left in (2, 1, 0):
            try:
                made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
                break
            except Exception:  # on a busy machine it takes longer than the 30 s that Ray waits
                if not tries_left:
                    if os.getloadavg()[0] > 4 * (os.cpu_count() or 1):
                        pytest.skip("a head of Ray has not started in 30 s, three times: this machine has too much other work")
                    raise
        try:
            for _ in range(nodes):
                before = len(made.global_state._live_node_ids())
                try:
                    made.add_node(num_cpus=1)
                except Exception:  # likewise
                    _wait(lambda before=before: len(made.global_state._live_node_ids()) > before)
            yield made
        finally:
            made.shutdown()


@contextmanager
def blind_node(cluster: Any, hidden: Path) -> Iterator[None]:
    """A node of one CPU that does not see what is in a folder, as if it were another machine."""
    if shutil.which("unshare") is None or subprocess.run([*_APART, "mount", "-t", "tmpfs", "none", hidden]).returncode:
        pytest.skip("no mount namespaces here")
    before = len(cluster.global_state._live_node_ids())
    script = 'mount -t tmpfs none "$0" && exec "$@"'
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={cluster.address}", "--num-cpus=1", "--block"]
    command = [*_APART, "sh", "-c", script, str(hidden), *start, "--object-store-memory=150000000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait(lambda: len(cluster.global_state._live_node_ids()) > before)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def processes(name: str) -> list[int]:
    """Processes of Ray's by what they call themselves."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if name.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def _wait(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not there():
        assert time.monotonic() < until, "a node does not start"
        time.sleep(0.2)


_APART = ["unshare", "-m" if os.geteuid() == 0 else "-rm"]


def quickstart() -> dict[str, Any]:
    """The shipped quickstart at a tiny size."""
    values: dict[str, Any] = read_mapping(find_recipe("quickstart"), "recipe")
    generator = values["environment"]["options"]["generator"]
    generator |= {"games": {"train": 12, "valid": 4, "unseen": 4}, "receptacles": [6, 7], "objects": [6, 7]}
    values["environment"]["train_tasks"] = 6
    values["student"] |= {"scratch": {"layers": 1, "width": 16, "heads": 2, "mlp": 16, "max_tokens": 1024}, "batch": 2}
    values["student"]["sampling"] = {"temperature": 0.3, "max_tokens": 24, "max_reason_tokens": 6}
    values["training"] |= {"steps": 3, "first_steps": 3, "batch_tokens": 500}
    values["demonstrations"] = {"episodes": 4, "successes_only": False}
    values["demonstrations"] = {"episodes": 4, "successes_only": False}
    return values | {"iterations": 1, "horizon": 4, "evaluation_horizon": 4}


def kept(run: Path) -> dict[str, Any]:
    """What a run has on file, but for times and for who worked; tables byte for byte."""
    tables = {f"{path.relative_to(run)} as bytes": path.read_bytes() for path in run.rglob("evaluation.json")}
    return tables | {name: held for name, held in on_file(run).items() if name not in NOISE and not name.startswith("jobs")}


def executor(cluster: Any, cache: Path, workers: int = 3) -> dict[str, Any]:
    """Workers with a cache for games."""
    environment = {"env_vars": {"LEAP_CACHE": str(cache)}}
    return {"kind": "ray", "address": cluster.address, "workers": workers, "runtime_env": environment}
