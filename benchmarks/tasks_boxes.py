"""Task folders in namespace boxes: what an episode costs, and 64 of them at once.

    python benchmarks/tasks_boxes.py [--base TAR] > benchmarks/tasks_boxes.log

Each episode begins in a fresh box, runs five commands, hands in and is judged by its tests. Times are of a wall clock; processor
time is of this process, the sandbox's helper and all that ran in boxes together.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import leap
from leap.core import History
from leap.policies.base import FunctionPolicy
from leap_worlds.sandbox import Limits
from leap_worlds.tasks.env import TasksConfig, TasksEnvironment
from leap_worlds.tasks.terminal import Terminal

FOLDER = Path(__file__).parents[1] / "tests" / "tasks" / "folders" / "list-of-commands"
COMMANDS = ("ls -la", "cat one.txt | sort | uniq -c", "cd '/app/in box' && wc -l *", "echo 3 > /app/x; cat /app/x", "true")


def median(act: Callable[[], object], n: int = 100) -> str:
    """Median and the ninth decile of some calls, in milliseconds."""
    taken = []
    for _ in range(n):
        begun = time.perf_counter()
        act()
        taken.append((time.perf_counter() - begun) * 1e3)
    return f"median {statistics.median(taken):6.1f} ms, p90 {statistics.quantiles(taken, n=10)[8]:6.1f} (n {n})"


def decide(history: History) -> str:
    """The next of the commands, then the submission."""
    done = len(history.actions)
    return COMMANDS[done] if done < len(COMMANDS) else "submit"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", default="machine", help="what the boxes are of: a tar, or machine")
    parser.add_argument("--episodes", type=int, default=64)
    arguments = parser.parse_args()
    print(f"# Linux {platform.release()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (other work on the machine)")
    with tempfile.TemporaryDirectory() as place:
        for number in range(arguments.episodes):
            shutil.copytree(FOLDER, Path(place, f"task-{number:03}"))
        options = {"path": place, "sandbox": "namespace", "actions": "text", "bases": {"debian:*": arguments.base}}
        environment = TasksEnvironment(TasksConfig.from_values(options, "tasks"))
        tasks = environment.tasks("all")
        folder = environment.folder(tasks[0])
        images, machine = environment.images, folder.settings.environment
        image = images.image(folder, machine, folder.environment)
        print("box: make and close       ", median(lambda: images.provider.create(image, Limits()).close()))
        with images.box(image, machine) as box:
            terminal = Terminal(box, "/app", {}, limit=8000, seconds=60)
            print("box: true                 ", median(lambda: box.exec(["/bin/true"])))
            print("terminal: bash, true      ", median(lambda: terminal.bash("true")))

        def judged() -> None:
            trial = environment.trial(folder)
            trial.finish()
            trial.close()

        print("task: begin, tests, close ", median(judged, 20))
        for at_once in (1, arguments.episodes):
            before, own, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time(), time.perf_counter()
            played = leap.rollout(environment, FunctionPolicy(decide, concurrency=at_once, blocking=False), tasks, horizon=10)
            taken, own = time.perf_counter() - begun, time.process_time() - own
            environment.close()  # the helper has ended, and its time is known
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = own + after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            ended = sum(len(episode.steps) == len(COMMANDS) + 1 for episode in played)
            print(
                f"{len(played)} episodes, {at_once} at once: {ended} judged, {taken:.1f} s, "
                f"processor {1e3 * used / len(played):.0f} ms each (leap itself {1e3 * own / len(played):.0f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
