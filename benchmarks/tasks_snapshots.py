"""What snapshots of boxes save the scripted teacher of task folders, beside doing the student's actions again for each trial.

    python benchmarks/tasks_snapshots.py [EPISODES] [--steps N] [--seconds S] [--sandbox NAME]

Made tasks, by default in namespace boxes of this machine's own programs. The student of each episode takes random actions, of
which some change files. Each episode is corrected twice, once each way, one after the other, with nothing kept from before.
`--seconds S` has each of the student's actions take so much longer, as compilers do. The corrections must be equal.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

from leap.core import Actor, Episode, Observation, Step, StopReason, Task
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig
from leap_worlds.tasks.env import TasksConfig, TasksEnvironment
from leap_worlds.tasks.make import make_tasks


def played(environment: TasksEnvironment, task: Task, steps: int, seconds: float) -> Episode:
    """An episode of random actions, without what was shown: the teacher here needs none of it."""
    drawn = random.Random(task.id)
    own = ["touch /made{n}", "mkdir -p /d{n} && echo {n} > /d{n}/f", "ls /", "rm -f /made{n}", "cat /log", "echo {n} >> /log"]
    wait = f"sleep {seconds}; " if seconds else ""
    actions = [wait + drawn.choice(own).format(n=drawn.randrange(4)) for _ in range(steps)]
    done = tuple(Step(observation=Observation(text=""), reason="", action=action) for action in actions)
    return Episode(
        task=task,
        actor=Actor(name="random"),
        horizon=steps,
        steps=done,
        final=Observation(text=""),
        stop=StopReason.HORIZON,
        score=0,
        success=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("episodes", type=int, nargs="?", default=10)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--sandbox", default="namespace")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        values = {"seed": 0, "file_systems": {"train": 10, "valid": 1, "unseen": 1}, "tasks": 5}
        make_tasks(BashFamilyConfig.from_values(values, "settings"), Path(folder, "made"))
        options = {
            "path": Path(folder, "made"),
            "sandbox": arguments.sandbox,
            "bases": {"debian:*": "machine"},
            "actions": "text",
            "checks": "never",
            "split": {"by": "folder"},
        }
        environment = TasksEnvironment(TasksConfig.from_values(options, "tasks"))
        provider = environment.images.provider
        taken: dict[bool, list[float]] = {True: [], False: []}
        same = 0
        for number, task in enumerate(environment.tasks("train", limit=arguments.episodes)):
            episode, told = played(environment, task, arguments.steps, arguments.seconds), {}
            environment.start(task).close()  # its image is made
            for snapshots in (True, False) if number % 2 else (False, True):
                provider.snapshots = snapshots  # pyright: ignore[reportAttributeAccessIssue] - of this one alone
                environment._worth.clear()
                begun = time.monotonic()
                told[snapshots] = asyncio.run(environment.tutor.correct_along(episode, 50))
                taken[snapshots].append(time.monotonic() - begun)
            same += [one.decision for one in told[True]] == [one.decision for one in told[False]]
        environment.close()
    print(f"{arguments.episodes} episodes of {arguments.steps} steps, {arguments.seconds:g} s more an action: {same} the same")
    for snapshots, seconds in taken.items():
        name = "snapshots" if snapshots else "all again"
        print(f"{name}: {statistics.mean(seconds):.2f} s an episode, median {statistics.median(seconds):.2f}")


if __name__ == "__main__":
    main()
