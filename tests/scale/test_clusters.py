"""The files for clusters and clouds that ship: shells and schemas take them, and what they give to leap is a valid recipe."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from leap import registry
from leap.recipe import Recipe, load_recipe
from leap.recipes import FOLDER, find_recipe

CLUSTERS = FOLDER / "clusters"

# From the reference of KubeRay's API (ray.io/v1) and the schema of SkyPilot 0.14.
RAY_JOB = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
RAY_CLUSTER = {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
RAY_GROUP = {"rayStartParams", "template", "groupName", "replicas", "minReplicas", "maxReplicas"}
SKY = {"name", "num_nodes", "resources", "file_mounts", "secrets", "setup", "run"}
SKY_RESOURCES = {"accelerators", "use_spot", "disk_size"}


def given(folder: Path, script: str, **environment: str) -> list[str]:
    """What a script gives to `leap run`, where every program but the shell is a stand-in."""
    programs = folder / "bin"
    programs.mkdir()
    called = folder / "called.json"
    (programs / "leap").write_text(f"#!/bin/sh\n[ $1 = run ] && printf '%s\\n' \"$@\" > {shlex.quote(str(called))}\nexit 0\n")
    (programs / "leap").chmod(0o755)
    for name in (folder / "leap/bin/activate", folder / "sky_templates/ray/start_cluster"):
        name.parent.mkdir(parents=True)
        name.write_text("#!/bin/sh\n")
        name.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-c", script], check=True, env={"PATH": path, "HOME": str(folder), **environment})
    return called.read_text().splitlines(keepends=True)


def recipe_of(arguments: list[str]) -> Recipe:
    """The recipe that `leap run` makes of its arguments."""
    words = iter("".join(arguments).split("\n--"))
    name = next(words).split("\n")[1]
    settings = [word.partition("\n")[2].strip() for word in words if word.startswith("set\n")]
    return load_recipe(find_recipe(name), settings)


def containers(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield from node.get("containers", ())
        for inner in node.values():
            yield from containers(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from containers(inner)


def test_slurm(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    script = (CLUSTERS / "slurm.sh").read_text()
    recipe: Any = recipe_of(given(tmp_path, script, RUNS=str(tmp_path), PARTITION="gpu"))
    assert (recipe.executor.kind, recipe.executor.jobs, recipe.executor.training.gpus) == ("slurm", 8, 8)
    assert recipe.training.processes == recipe.executor.training.gpus and recipe.training.save_steps


def test_kuberay() -> None:
    job = yaml.safe_load((CLUSTERS / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"], {*job["spec"]} - RAY_JOB) == ("ray.io/v1", "RayJob", set())
    cluster = job["spec"]["rayClusterSpec"]
    workers = cluster["workerGroupSpecs"]
    assert not {*cluster} - RAY_CLUSTER and not {*cluster["headGroupSpec"], *workers[0]} - RAY_GROUP
    (image,) = {one["image"] for one in containers(cluster)}
    assert image.startswith("<")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["leap", "run"] and words[-2] == "--set"
    executor = yaml.safe_load(words[-1].partition("=")[2])
    assert executor["workers"] * executor["gpus_per_worker"] == workers[0]["replicas"]
    if "ray" in registry.executor.names():
        assert load_recipe(find_recipe(words[2]), [words[-1]]).executor.kind == "ray"


def test_skypilot(tmp_path: Path) -> None:
    task = yaml.safe_load((CLUSTERS / "skypilot.yaml").read_text())
    assert not {*task} - SKY and not {*task["resources"]} - SKY_RESOURCES
    assert task["file_mounts"]["/runs"]["mode"] == "MOUNT_CACHED" and task["secrets"] == {"OPENAI_API_KEY": None}
    nodes = {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8"}
    arguments = given(tmp_path, task["run"], **nodes)
    assert "workers: 16" in "".join(arguments)
    if "ray" in registry.executor.names():
        assert recipe_of(arguments).executor.kind == "ray"
