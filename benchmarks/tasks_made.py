"""Episodes a second on made tasks in namespace boxes: the reference solution is played, command by command, and verified.

    leap tasks make /tmp/tasks --set 'file_systems={train: 40, valid: 8, unseen: 12}' --set tasks=30
    OMP_NUM_THREADS=1 python benchmarks/tasks_made.py /tmp/tasks
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from leap.core import Task
from leap_worlds.tasks.env import TasksConfig, TasksEnvironment, TaskSession

EPISODES = 120


def main() -> None:
    options = {"path": sys.argv[1], "bases": {"debian:*": "machine"}, "actions": "text", "split": {"by": "folder"}}
    options["checks"] = "never"
    environment = TasksEnvironment(TasksConfig.from_values(options, "options"))
    began = time.monotonic()
    environment.prepare()
    print(f"{len(environment.folders)} folders read in {time.monotonic() - began:.1f} s")
    tasks = environment.tasks("train", limit=EPISODES, seed=0)

    def play(task: Task) -> tuple[float, float]:
        """Seconds until the tests begin, and in the tests."""
        began = time.monotonic()
        session = environment.start(task)
        assert isinstance(session, TaskSession)
        plan = session.privileged().plan
        assert plan is not None
        for action in plan[:-1]:
            session.act(action)
        worked = time.monotonic()
        assert session.act(plan[-1]).success
        session.close()
        return worked - began, time.monotonic() - worked

    began = time.monotonic()
    for task in {task.id.partition("-")[0]: task for task in tasks}.values():  # makes each file system's image
        play(task)
    print(f"first on each file system: {time.monotonic() - began:.1f} s")
    for number in (1, 16, 64):
        some, began = tasks[: 20 if number == 1 else EPISODES], time.monotonic()
        with ThreadPoolExecutor(number) as pool:
            took = list(pool.map(play, some))
        rate = len(some) / (time.monotonic() - began)
        work, tests = (1000 * sum(each) / len(took) for each in zip(*took, strict=True))
        load = Path("/proc/loadavg").read_text().split()[0]
        told = f"{work:.0f} ms working, {tests:.0f} ms in the tests (n {len(some)}, load {load})"
        print(f"{number:3} at once: {rate:5.1f} episodes/s; {told}")
    environment.close()


if __name__ == "__main__":
    main()
