"""Worker processes on this machine: the records are those of one process, whoever is killed on the way."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from deadly_world import DeadlyWorld
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leap.errors import LeapError, RunError
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.runs.executors import Executor, LocalExecutor, own_gpus
from leap.runs.shards import Shard, run_shard
from leap.runs.stages import Stages


def recipe(folder: Path, tasks: int = 40, **more: Any) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    options = {"tasks": tasks, "deaths": str(folder), "driver": os.getpid()}
    world = {"name": DeadlyWorld.name, "options": options, "test": ["test"]}
    acting = {"rollouts": {"beta": 1}, "teacher": {"episodes": "all"}, "student": {"batch": 16}}
    return Recipe.model_validate({"name": "x", "horizon": 12, "environment": world} | acting | more)


def made(folder: Path, by: Executor | None = None, deaths: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
    """Demonstrations, rollouts and corrections, without what a clock says."""
    for task, number in (deaths or {}).items():
        folder.mkdir(parents=True, exist_ok=True)
        folder.joinpath(task).write_text(str(number))
    stages = Stages(recipe(folder, **more), RunDirectory(folder / "run"), Progress())
    if by is not None:
        stages.__dict__["executor"] = by
    with closing(stages):
        stages.rollout(0)
        stages.rollout(1)
        stages.correct(1)
    return on_file(folder / "run")


def on_file(run: Path) -> dict[str, Any]:
    found = {}
    for path in run.rglob("*.jsonl"):
        lines = [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]
        found[str(path.relative_to(run))] = sorted(map(json.dumps, lines))
    return found


@pytest.mark.slow
def test_two_workers_give_what_one_gives_also_where_some_are_killed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = made(tmp_path / "one")
    assert [len(alone[name]) for name in sorted(alone)] == [40, len(alone["iter-1/corrections.jsonl"]), 40]
    deaths = {"train-3": 1, "train-20": 2, "train-35": 1}
    assert made(tmp_path / "two", deaths=deaths, **two()) == alone
    assert all((tmp_path / "two" / task).read_text() == "0" for task in deaths)
    assert "2 workers, 3 of 3 shards, 4 workers died" in capfd.readouterr().err


def two() -> dict[str, Any]:
    return {"executor": {"kind": "local", "workers": 2}}


@pytest.mark.slow
def test_a_shard_that_kills_whoever_takes_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"rollout-0, shard 2 of 3 ended its worker 3 times"):
        made(tmp_path, deaths={"train-20": 9}, **two())
    played = on_file(tmp_path / "run")["iter-0/episodes.jsonl"]
    assert 16 <= len(played) <= 24  # the shards before and after it may have been done


DRIVER = """
import os, signal, sys, threading, time
from pathlib import Path
sys.path[:0] = eval(sys.argv[1])
from test_local_workers import made, two

def children():
    return [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]

def end():
    journal = Path(sys.argv[2]) / "run" / "iter-0" / "episodes.jsonl"
    while len(children()) < 2 or not journal.exists():
        time.sleep(0.001)
    print(*children(), flush=True)
    os.kill(os.getpid(), getattr(signal, sys.argv[3]))

if __name__ == "__main__":
    threading.Thread(target=end, daemon=True).start()
    made(Path(sys.argv[2]), tasks=2000, **two())
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_workers_end_with_the_process_that_started_them(how: str, tmp_path: Path) -> None:
    script = tmp_path / "drive.py"
    script.write_text(DRIVER)
    path = [str(Path(__file__).parent), *sys.path]
    command = [sys.executable, str(script), repr(path), str(tmp_path), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    pids = done.stdout.split()
    assert len(pids) >= 2, done.stderr  # the standard library's own and at least one worker
    for _ in range(100):
        if not (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]):
            break
        time.sleep(0.1)
    assert not left
    played = len(on_file(tmp_path / "run")["iter-0/episodes.jsonl"])
    assert 0 < played < 2000
    assert len(made(tmp_path, tasks=2000)["iter-0/episodes.jsonl"]) == 2000  # and the same command goes on


def test_a_script_that_is_no_module_is_told_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    path = [str(Path(__file__).parent), *sys.path]
    lines = [
        f"import sys; sys.path[:0] = {path!r}",
        "from pathlib import Path",
        "from test_local_workers import made, two",
    ]
    script.write_text("\n".join([*lines, f"made(Path({str(tmp_path)!r}), **two())"]))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert "RunError: workers cannot be started" in done.stderr and 'if __name__ == "__main__":' in done.stderr


def test_what_a_worker_cannot_do_is_told_as_here(tmp_path: Path) -> None:
    told = []
    for executor in ({}, two()):
        with pytest.raises(LeapError) as raised:
            made(tmp_path / str(len(executor)), tasks=7, teacher={"kind": "refusing", "episodes": "all"}, **executor)
        told.append(str(raised.value))
    assert told[0] == told[1] == "no lessons today"


def test_a_slip_in_code_of_ones_own_is_shown_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"corrections for pi_1, shard 1 of 1: AttributeError in code that is not") as raised:
        made(tmp_path, tasks=7, teacher={"kind": "slipping", "episodes": "all"}, **two())
    assert "deadly_world.py" in str(raised.value) and "return ask.lesson" in str(raised.value)


def test_gpus_are_shared_out() -> None:
    three = ["0", "1", "2"]
    assert [own_gpus(n, None, three) for n in range(4)] == ["0", "1", "2", "0"]
    assert [own_gpus(n, "2,7", three) for n in range(3)] == ["2", "7", "2"]
    assert (
        own_gpus(1, None, ["0"]) is own_gpus(1, "", three) is own_gpus(1, "3", three) is own_gpus(0, None, []) is None
    )


def copied(shard: Shard) -> Shard:
    return pickle.loads(pickle.dumps(shard))  # noqa: S301 - the test's own


class Anyhow(Executor):
    """Works in any order, loses shards on the way and does them again, and hands on some records twice."""

    def __init__(self, seed: int) -> None:
        super().__init__(None)
        self.draw = random.Random(seed)

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        waiting = [copied(shard) for shard in shards]
        while waiting:
            shard = waiting.pop(self.draw.randrange(len(waiting)))
            records = await asyncio.to_thread(run_shard, shard)
            self.draw.shuffle(records)
            if self.draw.random() < 0.3:  # the worker dies
                waiting.append(shard)
                records = records[: self.draw.randrange(len(records) + 1)]
            for record in records:
                yield record


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return made(tmp_path_factory.mktemp("alone"))


@given(st.integers(0, 10**6))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_neither_the_order_nor_who_dies_changes_a_record(
    alone: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    assert made(tmp_path_factory.mktemp("anyhow"), Anyhow(seed)) == alone


def test_a_shard_is_small_and_knows_what_it_makes(tmp_path: Path) -> None:
    taken: list[Shard] = []

    class Taking(LocalExecutor):
        async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
            taken.extend(shards)
            async for record in super().map(shards, here):
                yield record

    made(tmp_path, Taking())
    assert len(taken) == 9 and len({shard.key for shard in taken}) == 9
    for shard in taken:
        again = copied(shard)
        assert again.key == shard.key and "deadly_world" in shard.modules
        records = run_shard(again)
        assert {record.key for record in records} == set(shard.keys) and {type(one) for one in records} == {
            shard.record
        }
        assert [shard.record.model_validate_json(one.line()) for one in records] == records
