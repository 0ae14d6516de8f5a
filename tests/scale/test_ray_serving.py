"""A teacher served with the run (`teacher.serve: ray`): Ray Serve is real, and an application of the test stands in for vLLM."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'ray[serve]'")
pytest.importorskip("openai")

import clusters
import httpx2
import killed_runs
from stand_in_served import application

from leap.errors import PrerequisiteError, RecipeError
from leap.models.engine import ServeConfig
from leap.recipe import Recipe
from leap.runs import ray_serving
from leap.runs.ray_pool import Pool, RayConfig
from leap.runs.ray_serving import Serving
from leap.teachers.config import ModelTeacherConfig

MODEL = "some/model"
pytestmark = pytest.mark.timeout(900)


def recipe(executor: dict[str, Any], **serve: Any) -> dict[str, Any]:
    """The teacher plays as well."""
    values = killed_runs.paid("", size=6)
    values["teacher"] |= {"model": f"vllm/{MODEL}", "endpoint": {"concurrency": 2}, "serve": {"kind": "ray", **serve}}
    return values | {"baselines": {"teacher_model": True}, "prices": {}, "executor": executor}


# ---- without a cluster ---------------------------------------------------------------------------------------------------


def test_short_and_long_form_are_the_same() -> None:
    teacher = ModelTeacherConfig(model=f"vllm/{MODEL}", serve="ray")  # type: ignore[arg-type]
    assert teacher.serve == ServeConfig() and teacher.check() is None


@pytest.mark.parametrize(
    ("teacher", "executor", "told"),
    [
        ({"model": "openai/gpt-4o", "serve": "ray"}, {"kind": "ray"}, "the model is vllm/NAME, not openai/gpt-4o"),
        ({"serve": "ray"}, {"kind": "local"}, "teacher.serve is done on the cluster of executor.kind: ray"),
        ({"serve": {"options": {"trust_remote_code": True}}}, {"kind": "ray"}, "no option 'trust_remote_code' can be given"),
        ({"serve": {"options": {"tensor_parallel_size": 2}}}, {"kind": "ray"}, "tensor_parallel_size is what gpus and replicas"),
        ({"serve": {"replica": 2}}, {"kind": "ray"}, "replica: unknown key"),
    ],
)
def test_what_makes_no_sense_is_refused_when_the_recipe_is_read(
    teacher: dict[str, Any], executor: dict[str, Any], told: str
) -> None:
    values = recipe(executor)
    with pytest.raises(RecipeError, match=told):
        Recipe.from_values(values | {"teacher": values["teacher"] | teacher}, "the recipe")


def test_vllm_that_is_missing_is_told_before_a_cluster_is_looked_for() -> None:
    try:
        import ray.serve.llm  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("ray.serve.llm is here")
    read = Recipe.from_values(recipe({"kind": "ray", "address": "127.0.0.1:1"}), "the recipe")
    with pytest.raises(PrerequisiteError, match=r"teacher\.serve: ray needs .* pip install 'ray\[serve,llm\]'") as told:
        Pool(RayConfig(address="127.0.0.1:1")).check(read)
    assert "\n" not in str(told.value)


def test_settings_are_those_of_ray_serve() -> None:
    try:
        from ray.serve.llm import LLMConfig
    except ImportError as error:
        pytest.skip(f"ray.serve.llm cannot be imported: {error}")
    made = LLMConfig(**ray_serving.settings(MODEL, ServeConfig(replicas=2, gpus=4, options={"max_model_len": 4096})))
    assert made.model_id == MODEL and made.deployment_config["num_replicas"] == 2
    assert made.engine_kwargs == {"tensor_parallel_size": 4, "load_format": "safetensors", "max_model_len": 4096}


# ---- with one --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with clusters.cluster(0) as made:
        made.add_node(num_cpus=4, num_gpus=1)
        yield made


@pytest.fixture
def pool(cluster: Any) -> Iterator[Pool]:
    """A pool that is connected."""
    from ray import serve

    made = Pool(RayConfig(address=cluster.address))
    made.connect()
    yield made
    serve.shutdown()
    made.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def serving(run: Path, **serve: Any) -> Serving:
    return Serving(MODEL, ServeConfig(**{"port": free_port(), **serve}), run)


@pytest.mark.slow
def test_replicas_start_answer_are_found_again_and_stop(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import serve

    monkeypatch.setattr(ray_serving, "application", application(tmp_path / "log"))
    one = serving(tmp_path / "run", replicas=2)
    at = one.served()
    assert one.served() == at and at.weights == MODEL
    assert httpx2.get(f"{at.url}/models", trust_env=False).json()["data"][0]["id"] == MODEL
    again, other = serving(tmp_path / "run", replicas=2, port=one._serve.port), serving(tmp_path / "other run")
    assert again.served() == at, "those that are there already"
    assert other.served().url != at.url and len(serve.status().applications) == 2
    again.stop()
    assert len(serve.status().applications) == 1, "those of the other run stay"
    one.stop()
    other.stop()
    assert not serve.status().applications and not clusters.processes("ServeReplica")


@pytest.mark.slow
def test_replicas_that_cannot_start_are_told_in_one_line(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_serving, "application", application(tmp_path / "log", broken="no such weights"))
    failing = serving(tmp_path / "run")
    try:
        with pytest.raises(PrerequisiteError, match="some/model cannot be served: ValueError: no such weights") as told:
            failing.served()
    finally:
        failing.stop()
    assert "\n" not in str(told.value)
    with socket.socket() as taken:
        taken.bind((ray_serving._head(), 0))
        taken.listen()
        failing = serving(tmp_path / "run", port=taken.getsockname()[1])
        try:
            with pytest.raises(PrerequisiteError, match=r"teacher\.serve\.port: something listens at .* already") as told:
                failing.served()
        finally:
            failing.stop()
    assert "\n" not in str(told.value)


def played(run: Path) -> dict[str, Any]:
    """What a run has on file of its baselines."""
    return {name: held for name, held in clusters.kept(run).items() if name.startswith("baselines") and name.endswith("json")}


@pytest.mark.slow
def test_a_killed_driver_finds_its_teacher_again_and_pays_nothing_twice(cluster: Any, tmp_path: Path) -> None:
    executor = {"kind": "ray", "address": cluster.address, "workers": 2, "cpus_per_worker": 0.5}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(executor, port=free_port())))
    program = Path(__file__).with_name("stand_in_served.py")

    def given(name: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(program), str(file), str(tmp_path / name), str(tmp_path / f"{name}.log")]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def answers(name: str) -> list[str]:
        log = tmp_path / f"{name}.log"
        return log.read_text().splitlines() if log.exists() else []

    def ended(process: subprocess.Popen[str]) -> None:
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output[-3000:]
        assert "2 workers and a served teacher" in output
        assert not clusters.processes("ServeReplica"), "the teacher stops with the run"

    def met(process: subprocess.Popen[str], there: Callable[[], bool]) -> None:
        until = time.monotonic() + 240
        while not there():
            assert process.poll() is None and time.monotonic() < until, process.communicate()[0][-3000:]
            time.sleep(0.02)

    ended(given("alone"))
    cut = given("cut")
    met(cut, lambda: len(answers("cut")) > 5)
    cut.send_signal(signal.SIGKILL)
    cut.communicate()
    assert clusters.processes("ServeReplica"), "it waits for the run to go on"
    ended(given("cut"))
    assert played(tmp_path / "alone") == played(tmp_path / "cut") and played(tmp_path / "cut")
    [alone, pieces] = ([line.split() for line in answers(name)] for name in ("alone", "cut"))
    assert len({process for process, _ in pieces}) == 1, "the same replica"
    asked = Counter(what for _, what in pieces)
    assert asked.keys() == {what for _, what in alone}
    assert asked.total() - len(asked) <= 4, "two workers, two calls of each: what was under way is asked again, and no more"
    booked = killed_runs.calls(tmp_path / "cut" / "calls.sqlite")
    assert {row[2:4] for row in booked} == {("vllm", MODEL)} and len(booked) == len(asked)
