"""Harbor itself on our folders and trajectories: its models, its trials, its oracle.

Needs LEAP_TEST_HARBOR, the path of a Python 3.12 with `harbor` and leap's own requirements: Harbor does not run on 3.11.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from leap.core import Actor, Episode, Observation, Step, StopReason, Task
from leap.envs.atif import Turn, as_json, episode_trajectory, trajectory
from leap.envs.grammar import ToolCalls
from leap_worlds.tasks.env import TOOLS

REPOSITORY = Path(__file__).parents[2]
PYTHON = os.environ.get("LEAP_TEST_HARBOR", "")
CALLED = ToolCalls(TOOLS).tools
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not PYTHON, reason="set LEAP_TEST_HARBOR to a Python 3.12 with harbor (docs/testing.md)"),
]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.run([PYTHON, *words], capture_output=True, text=True, env=environment, timeout=280, check=False)


@pytest.mark.slow
def test_harbor_s_oracle_and_ours_agree_on_each_of_our_folders() -> None:
    done = run(str(REPOSITORY / "benchmarks" / "tasks_harbor.py"))
    *lines, last = [json.loads(line) for line in done.stdout.splitlines()] or [{"problem": done.stderr}]
    apart = [line for line in lines if not line.get("agree")]
    assert not apart
    assert last == {"folders": 12, "parsed by Harbor": 12, "agree": 12}
    assert all(line["oracle"]["harbor"] != line["nop"]["harbor"] for line in lines)


def test_trajectories_are_what_harbor_reads(tmp_path: Path) -> None:
    task = Task(env="tasks", split="all", id="a", instruction="Do\nit.")
    call = json.dumps({"name": "bash", "arguments": {"command": "ls \ud800"}})
    steps = (
        Step(observation=Observation(text="A terminal."), action=call, completion="x", reason="why", prompt_tokens=3),
        Step(observation=Observation(text="half \ud800"), action="ls", parsed=False),
    )
    episode = Episode(
        task=task, actor=Actor(name="student"), horizon=9, steps=steps, final=Observation(text=""), score=0.5,
        parts={"a": 0.5}, success=False, stop=StopReason.ENDED,
    )  # fmt: skip
    for number, made in enumerate(
        [
            episode_trajectory(episode, CALLED),
            episode_trajectory(episode.model_copy(update={"steps": ()})),
            trajectory("Do.", [Turn(call, "seen"), Turn("submit", None)], seen="", tools=CALLED),
            trajectory("Do.", []),
        ]
    ):
        (tmp_path / f"{number}.json").write_bytes(as_json(made))
    check = "import sys; from harbor.utils import trajectory_validator as v; print(v.validate_trajectory(sys.argv[1]))"
    for path in sorted(tmp_path.iterdir()):
        done = run("-c", check, str(path))
        assert done.stdout.strip() == "True", done.stdout + done.stderr
