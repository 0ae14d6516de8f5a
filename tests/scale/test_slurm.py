"""The executor `slurm`, on submitit's stand-in for a cluster and on a fake Slurm that kills jobs, requeues and reorders them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import fake_slurm
import pytest
from small_games import small_games
from small_work import Steps, Tell

from leap.errors import PrerequisiteError, RecipeError, RunError
from leap.loop import leap
from leap.progress import Progress
from leap.recipe import resolved
from leap.runs.directory import RunDirectory
from leap.runs.slurm import CLUSTERS, SlurmConfig, SlurmExecutor
from leap.runs.slurm_jobs import Pool, Worker
from leap.runs.stages import Stages
from leap.training.config import SFTConfig, TrainingSettings
from leap.training.method import Job

pytest.importorskip("submitit")
pytest.importorskip("torch")


class Fake:
    """A fake Slurm in the PATH.

    Attributes:
        home: Where it keeps its jobs.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.faults([])

    def faults(self, faults: Sequence[dict[str, Any]]) -> None:
        """What it is to do to jobs; see `fake_slurm`."""
        (self.home / "faults.json").write_text(json.dumps(faults))

    def states(self) -> dict[str, str]:
        return {file.stem: file.read_text() for file in self.home.glob("*.state")}

    def started(self) -> int:
        """How often a job was started."""
        return int((self.home / "started").read_text())


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    home = tmp_path / "slurm"
    home.mkdir()
    fake_slurm.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(home))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    fake = Fake(home)
    yield fake
    subprocess.run(["scancel", *fake.states()], check=True)


def pool(folder: Path, cluster: str = "slurm", *, settings: str = "", **config: Any) -> Pool:
    section = SlurmConfig.model_validate({"kind": "slurm", "cluster": cluster, "jobs": 2, "cpus": 1, "time": 60, **config})
    asked = section.asked("leap-test", section.jobs)
    return Pool(
        folder, CLUSTERS[cluster](asked), settings, jobs=section.jobs, attempts=section.attempts, poll=0.1, idle=section.idle
    )


def done(pool: Pool, works: dict[str, Tell]) -> dict[str, str]:
    async def all_of_them() -> dict[str, str]:
        return {key: file.read_text() async for key, file in pool.results(works)}

    with closing(pool):
        return asyncio.run(all_of_them())


def works(folder: Path, number: int = 6, **how: Any) -> dict[str, Tell]:
    return {f"key{i}": Tell(f"work {i}", folder / f"begun-{i}", **how) for i in range(number)}


SAID = {f"key{i}": f"work {i} says so" for i in range(6)}


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_submitits_own_stand_ins_do_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    assert done(pool(tmp_path / "jobs", cluster, idle=0), works(tmp_path)) == SAID


# ---- jobs that end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["kill", "requeue", "preempt"])
def test_a_job_that_ends_early_costs_what_it_had_in_hand(tmp_path: Path, slurm: Fake, fault: str) -> None:
    slurm.faults([{"start": 1, "when": str(tmp_path / "begun-*"), "do": fault}])
    given = works(tmp_path, seconds=0.5)
    assert done(pool(tmp_path / "jobs"), given) == SAID
    assert sorted(work.times for work in given.values()) == [1, 1, 1, 1, 1, 2]
    assert slurm.started() == 3


def test_a_queue_that_does_not_answer_is_no_job_that_has_ended(tmp_path: Path, slurm: Fake) -> None:
    given = works(tmp_path, seconds=0.2)
    jobs = pool(tmp_path / "jobs")

    async def all_of_them() -> None:
        async for _ in jobs.results(given):
            (slurm.home / "down").touch()

    with closing(jobs):
        asyncio.run(all_of_them())
        (slurm.home / "down").unlink()
    assert [work.times for work in given.values()] == [1] * 6 and slurm.started() == 2


def test_what_fails_is_tried_again_in_another_job_and_named_when_that_is_enough(tmp_path: Path, slurm: Fake) -> None:
    given = works(tmp_path, 2) | {"key2": Tell("work 2", tmp_path / "begun-2", fails=2)}
    assert done(pool(tmp_path / "jobs"), given) == {key: SAID[key] for key in given}
    assert len({*given["key2"].begun.read_text().splitlines()}) == 3
    with pytest.raises(RunError, match=r"work 0 failed 3 times, the last: ValueError: a bad moment \(job \d+(_\d)? on "):
        done(pool(tmp_path / "more"), works(tmp_path / "more", 1, fails=9))


def test_what_another_attempt_does_not_mend_ends_at_once(tmp_path: Path, slurm: Fake) -> None:
    given = works(tmp_path, 1, fails=9, final=True)
    with pytest.raises(PrerequisiteError, match="the data is not here"):
        done(pool(tmp_path / "jobs"), given)
    assert given["key0"].times == 1


# ---- a driver that ends ----------------------------------------------------------------------------------------------------

DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_slurm import done, pool, works
print(done(pool(Path(sys.argv[1], "jobs")), works(Path(sys.argv[1]), seconds=1.0)))
"""


def test_a_driver_that_was_killed_takes_up_its_jobs(tmp_path: Path, slurm: Fake) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(Path(__file__).parent)]
    driver = subprocess.Popen(command)
    while not (tmp_path / "begun-3").exists():
        time.sleep(0.05)
        assert driver.poll() is None
    driver.kill()
    driver.wait()
    given = works(tmp_path, seconds=1.0)
    assert done(pool(tmp_path / "jobs"), given).items() >= {key: SAID[key] for key in ("key2", "key3", "key4", "key5")}.items()
    assert sum(work.times for work in given.values()) <= 8 and slurm.started() == 2  # what the first had taken is done again


def test_jobs_that_were_asked_for_otherwise_are_ended(tmp_path: Path, slurm: Fake) -> None:
    given = works(tmp_path, 2, seconds=0.5)
    first = pool(tmp_path / "jobs", settings="before", idle=60)
    asyncio.run(anext(first.results(given)))
    assert done(pool(tmp_path / "jobs", settings="now"), given)
    assert sorted(slurm.states()) and {slurm.states()[job] for job in ("1_0", "1_1")} == {"CANCELLED"}


# ---- a training and a run ------------------------------------------------------------------------------------------------------


def executor(**config: Any) -> SlurmExecutor:
    return SlurmExecutor(SlurmConfig.model_validate({"kind": "slurm", "jobs": 2, "cpus": 1, "time": 60, "poll": 0.5, **config}))


def test_a_training_goes_on_from_its_last_state_in_another_job(tmp_path: Path, slurm: Fake) -> None:
    out, work, told = tmp_path / "out", tmp_path / "iter-1/training", list[tuple[int, int, float]]()
    out.mkdir()
    work.mkdir(parents=True)
    (work / "key").write_text("a key")
    slurm.faults([{"start": 1, "when": str(work / "steps"), "do": "kill"}])
    job = Job(1, "a-model", out, work, 0, lambda *step: told.append(step))
    result = executor().train(Steps(TrainingSettings()), ["a row"], job)
    assert (result.steps, result.rows, result.loss, result.first) == (6, 1, 0.5, None)
    steps = [line.split() for line in (out / "weights").read_text().splitlines()]
    assert [int(step) for step, _ in steps] == [*range(6)] and len({job for _, job in steps}) == 2
    assert told[-1] == (6, 6, 1 / 6)
    with pytest.raises(RecipeError, match=r"training\.batch_rows: 32 rows cannot be shared out among 3"):
        executor(training="here", cluster="local").check(RECIPE.model_copy(update={"training": SFTConfig(processes=3)}))


def tables(folder: Path, on: SlurmExecutor | None = None) -> dict[str, Any]:
    """A tiny run's episodes, checkpoints and tables, without what a clock says."""
    recipe = {
        "name": "tiny",
        "iterations": 1,
        "horizon": 4,
        "environment": {"name": "alfworld", "options": small_games(4, 2, 2)},
        "student": {"scratch": {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "max_tokens": 1024}, "batch": 2,
                    "sampling": {"max_tokens": 12, "max_reason_tokens": 2}, "decoding": "constrained"},
        "demonstrations": {"successes_only": False},
        "training": {"steps": 2},
    }  # fmt: skip
    with closing(Stages(resolved(recipe, "the recipe"), RunDirectory(folder), Progress())) as stages:
        if on is not None:
            stages.executor = on
        leap(stages)
        stages.executor.close()
    found: dict[str, Any] = {}
    for path in folder.rglob("*.jsonl"):
        lines = [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]
        found[str(path.relative_to(folder))] = sorted(map(json.dumps, lines))
    for path in folder.rglob("evaluation.json"):
        found[str(path.relative_to(folder))] = json.loads(path.read_text())
    return found | {i: json.loads((folder / f"iter-{i}/checkpoint/leap.json").read_text())["key"] for i in ("0", "1")}


@pytest.mark.slow
def test_a_run_on_a_cluster_that_fails_gives_the_tables_of_one_process(
    tmp_path: Path, slurm: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    there, claims = tmp_path / "there", str(tmp_path / "there/jobs/*.claimed")
    slurm.faults([{"start": 1, "when": claims, "do": "kill"}, {"start": 2, "when": claims, "do": "requeue"}])
    assert tables(there, executor()) == tables(tmp_path / "here")
    assert "NODE_FAIL" in slurm.states().values() and not (there / "jobs").exists()
    assert not [path for path in there.rglob("*") if path.suffix in (".work", ".claimed", ".done")]


# ---- bad input -------------------------------------------------------------------------------------------------------------


RECIPE = resolved({"name": "small", "environment": {"name": "alfworld"}}, "the recipe")


def check(**config: Any) -> None:
    SlurmExecutor(SlurmConfig.model_validate({"kind": "slurm", **config})).check(RECIPE)


def test_what_slurm_does_not_take_is_said_before_work_starts(tmp_path: Path, slurm: Fake) -> None:
    check(partition="gpu", gpus=1)
    with pytest.raises(PrerequisiteError, match=r"sbatch does not take such jobs: .*Invalid partition name specified$"):
        check(partition="nowhere")
    with pytest.raises(PrerequisiteError, match="Invalid partition name specified"):
        check(training={"partition": "nowhere"})
    with pytest.raises(PrerequisiteError, match=r"sbatch does not take the jobs: .*Invalid partition name specified"):
        done(pool(tmp_path / "jobs", partition="nowhere"), works(tmp_path))


def test_without_slurm_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PrerequisiteError, match="no sbatch, srun, squeue here; start the run on a login node"):
        check()
    assert SlurmExecutor.doctor() == [(False, "no sbatch here: runs are started on a login node of a Slurm cluster")]


def test_doctor_tells_the_partitions(slurm: Fake) -> None:
    assert SlurmExecutor.doctor() == [(True, "slurm 25.05.0; partitions: cpu, gpu")]


def test_a_node_that_does_not_see_the_folder(tmp_path: Path, slurm: Fake) -> None:
    slurm.faults([{"do": "blind"}])
    with pytest.raises(PrerequisiteError, match=r"as FAILED: it left no log\. Perhaps its node does not see"):
        done(pool(tmp_path / "jobs"), works(tmp_path))


def test_a_job_without_what_it_needs(tmp_path: Path, slurm: Fake) -> None:
    with pytest.raises(PrerequisiteError, match=r"jobs end before they begin to work.*no-such-module: command not found"):
        done(pool(tmp_path / "jobs", setup=["no-such-module load", "exit 1"]), works(tmp_path))


def test_another_version_of_leap_in_the_jobs(tmp_path: Path, slurm: Fake) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/sitecustomize.py").write_text("import leap; leap.__version__ = '0.0.9'")
    given = works(tmp_path)
    with pytest.raises(PrerequisiteError, match=r"has leap 0\.0\.9 and Python 3\.\d+, this process leap "):
        done(pool(tmp_path / "jobs", setup=[f"export PYTHONPATH={tmp_path / 'other'}:$PYTHONPATH"]), given)
    assert not list(tmp_path.glob("begun-*"))


def test_a_folder_that_others_may_write_to_is_not_worked_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMITIT_DEBUG_JOB_ID", "DEBUG_1")
    tmp_path.chmod(0o777)
    with pytest.raises(RunError, match="open to other users"):
        Worker(str(tmp_path), idle=0, poll=0)()


@pytest.mark.parametrize(
    "wrong",
    [{"partition": "a\nrm x"}, {"options": {"comment": "a\nrm"}}, {"options": {"a b": 1}}, {"training": "there"}, {"jobs": 0}],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        SlurmConfig.from_values({"kind": "slurm", **wrong}, "the recipe")
