"""Public task folders in namespace boxes: each is read, its image made, its reference solution run, and then nothing at all.

    python benchmarks/tasks_public.py NAME=FOLDER[:EVERY] ... [--seconds 120] [--read]

A folder is a data set that was fetched before; with EVERY, only each so-many-th of its tasks is made and run (all are read).
Images are made of Debian's packages and of wheels of the Python index; no box has a network when anything runs. One line for
each task that was run or left out, then what they come to.
"""

from __future__ import annotations

import argparse
import logging
import re
import time
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

from leap.errors import LeapError
from leap_worlds.tasks.env import TasksConfig, TasksEnvironment
from leap_worlds.tasks.folder import SETTINGS, TaskFolder, read_all
from leap_worlds.tasks.format import TaskError


def loss(folder: TaskFolder) -> list[str]:
    """The keys of a task.toml that what was read of it lacks, or has otherwise."""
    said = tomllib.loads((folder.root / SETTINGS).read_text(encoding="utf-8"))
    return [*folder.settings.unknown(), *_missing(said, folder.settings.model_dump(), "")]


def _missing(said: object, read: object, key: str) -> list[str]:
    if isinstance(said, dict) and isinstance(read, dict):
        old = {"version", "allow_internet", "memory", "storage"}  # read as what took their place
        return [lost for name in said.keys() - old for lost in _missing(said[name], read.get(name), f"{key}.{name}")]
    if isinstance(said, list) and isinstance(read, tuple | list):
        if len(said) != len(read):
            return [key]
        return [lost for each, one in zip(said, read, strict=True) for lost in _missing(each, one, key)]
    return [] if said == read or (isinstance(read, dict) and read.get("source") == said) else [key]


def tried(environment: TasksEnvironment, folder: TaskFolder) -> tuple[str, str]:
    """What came of a task: a word, and why."""
    try:
        environment.images.refuse(folder)
    except TaskError as error:
        return "not buildable here", str(error).removeprefix(f"{folder.id}/")
    try:
        trial = environment.trial(folder)
    except LeapError as error:
        return "not buildable here", str(error)
    trial.close()
    has_solution = all(phase.solution for phase in folder.phases)
    if has_solution and (problem := environment._proved(folder, oracle=True)):
        return "oracle fails", problem
    if problem := environment._proved(folder, oracle=False):
        return "no-op passes", problem
    return ("passed", "") if has_solution else ("no-op below 1, no solution in the set", "")


def readable(environment: TasksEnvironment, folder: TaskFolder) -> str:
    """Whether an image can be made, as far as files tell; else why not, without names and numbers."""
    try:
        environment.images.refuse(folder)
    except TaskError as error:
        return f"not buildable: {re.sub(r'^.*?:[0-9]+: |[(].*$', '', str(error))[:60]}"
    return "buildable as far as files tell"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--read", action="store_true", help="only read, and tell what an image cannot be made for")
    parser.add_argument("--seconds", type=float, default=120.0, help="most that a solution or a test may take")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    whole: Counter[str] = Counter()
    for said in arguments.sets:
        name, _, place = said.partition("=")
        place, _, every = place.partition(":")
        options = {"path": place, "sandbox": "namespace", "build_network": True, "memory_mb": 4096, "storage_mb": 2048}
        environment = TasksEnvironment(TasksConfig.from_values(options, "tasks"))
        folders, refused = read_all(Path(place))
        lossy = [f"{task}: {key}" for task, folder in folders.items() for key in loss(folder)]
        counts: Counter[str] = Counter(refused=len(refused))
        for line in refused:
            print(f"{name}/{line.partition('.')[0].rpartition('/')[0]}: refused: {line}", flush=True)
        for folder in [*folders.values()][:: int(every or 1)]:
            phases = tuple(
                replace(
                    phase,
                    seconds=min(phase.seconds or 600.0, arguments.seconds),
                    verifier=phase.verifier.model_copy(
                        update={"timeout_sec": min(phase.verifier.timeout_sec, arguments.seconds)}
                    ),
                )
                for phase in folder.phases
            )
            begun = time.monotonic()
            if arguments.read:
                counts[readable(environment, folder)] += 1
                continue
            word, why = tried(environment, replace(folder, phases=phases))
            counts[word] += 1
            taken = f"{time.monotonic() - begun:.0f} s"
            print(f"{name}/{folder.id}: {word} ({taken}){f': {why}' if why else ''}"[:400], flush=True)
        print(f"== {name}: read {len(folders)}, keys lost {lossy or 'none'}; {dict(counts)}", flush=True)
        whole += counts
        environment.close()
    print(f"== all: {dict(whole)}")


if __name__ == "__main__":
    main()
