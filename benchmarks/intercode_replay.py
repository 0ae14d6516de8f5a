"""Replays InterCode's published Bash transcripts (2023, three models) and compares every reward.

    INTERCODE_DATA=... python benchmarks/intercode_replay.py TRANSCRIPTS [--every 1] > benchmarks/intercode_replay.log

TRANSCRIPTS is the folder `data/results/bash` of upstream's repository. Where upstream's runs computed a reward after each action,
as if it were submitted, so is it done here; its ReAct runs did at `submit` alone. An answer that upstream could not read as an
action was never run ("Error executing query") and is left out. Some files were recorded on another file system's image than
that of their tasks (`ls /` shows its set-up script): each file is replayed on the image that reproduces most of the outputs of
its first tasks, and says so. Each difference is put into the first class that explains it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

from leap.core import Task
from leap.envs.base import load_environment
from leap_worlds.intercode.bash.env import BashEnvironment, BashSession
from leap_worlds.intercode.bash.tasks import NOT_REPEATABLE

TIMES = re.compile(
    r"-[acm](?:time|min)\b|-newer|-perm\b|ls -[a-z]*[lst]|\bstat\b|\bdate\b|-ls\b|tree -[a-z]*[pugDs]|tar [a-z-]*v|-printf"
)
HOST = re.compile(r"\b(?:df|du|uname|hostname|who|w|ps|pstree|env|mount|free|uptime|ping|dig|curl|wget|nslookup|host|python3?)\b")
NAMES = {"fs_1": 1, "fs_2": 2, "fs_3": 3, "fs_4": 4}
PROBED = 12
"""Tasks of a file that are tried on every image."""


def turns(log: dict[str, Any]) -> list[tuple[str, str, float | None]]:
    """(action, recorded observation, recorded reward) of each turn that was run; None where no reward was computed."""
    history = log["turn_history"]
    rows = zip(history["actions"], history["observations"], history["rewards"], strict=False)
    found = []
    for action, observation, reward in rows:
        if str(observation).startswith("Error executing query"):
            continue
        executed = re.fullmatch(r"execute\[(.*)\]", action, re.DOTALL)
        found.append((executed.group(1) if executed else action, str(observation), None if executed else reward))
    return found


def why(task_id: str, gold: str, action: str, recorded: str, shown: str, earlier: bool) -> str:
    """The class of a difference."""
    if task_id in NOT_REPEATABLE:
        return "the gold tells of clock, host or network"
    if "not found" in recorded or "not found" in shown:
        return "a program is in one image only"
    if TIMES.search(gold) or (recorded != shown and TIMES.search(action)):
        return "times and modes, which upstream's git reset loses"
    if recorded != shown and HOST.search(action):
        return "clock, host, sizes or network in the output"
    if recorded != shown:
        return "another output: versions of programs, order of files, state left from earlier episodes"
    if earlier:
        return "same output; an earlier output of the episode differed already"
    return "same outputs, another state: left from earlier episodes upstream"


def replay(environment: BashEnvironment, folder: Path, every: int) -> None:
    """Replays all transcripts and prints the table."""
    total: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    began = process_time()
    tasks = {task.id: task for task in environment.tasks("all")}
    for path in sorted(folder.glob("*/*.json")):
        named = re.search(r"fs_\d", path.name)
        file_system = named.group() if named else "fs_1"
        logs = json.loads(path.read_text(encoding="utf-8"))
        logs = logs.get("logs", logs)
        counts: Counter[str] = Counter()
        image = image_of(environment, list(logs.items())[:PROBED], tasks, file_system)
        for index, log in list(logs.items())[::every]:
            task = tasks[f"{file_system}/{log.get('task_id', index)}"]
            if task.instruction != log["query"]:
                counts["another task"] += 1
                continue
            with closing(session_on(environment, task, image)) as session:
                play(environment, session, task, turns(log), counts, classes)
        total += counts
        where = "" if image == NAMES[file_system] else f" (recorded on fs_{image}'s image)"
        print(f"{path.parent.name}/{path.name}{where}: {summary(counts)}", flush=True)
    print(f"\nall: {summary(total)}; {process_time() - began:.0f} s of CPU time here")
    print("\nrewards that differ, by class:")
    for name, count in classes.most_common():
        print(f"{count:6}  {count / total['rewards']:6.1%}  {name}")


def session_on(environment: BashEnvironment, task: Task, image: int) -> BashSession:
    """A session of a task in a box of the given file system; its gold runs in such a box, too, as upstream's did."""
    return BashSession(environment, task, replace(environment.record(task), file_system=image))


def image_of(
    environment: BashEnvironment, logs: list[tuple[str, dict[str, Any]]], tasks: dict[str, Task], file_system: str
) -> int:
    """The file system whose image reproduces most recorded outputs; the tasks' own where none does better."""
    same: Counter[int] = Counter()
    for image in (own := NAMES[file_system], *(other for other in NAMES.values() if other != own)):
        for index, log in logs:
            task = tasks[f"{file_system}/{log.get('task_id', index)}"]
            with closing(session_on(environment, task, image)) as session:
                acted = [(action, recorded) for action, recorded, _ in turns(log) if not action.startswith("submit")]
                same[image] += sum(session.act(action).observation.text == recorded for action, recorded in acted)
    return same.most_common(1)[0][0]


def play(
    environment: BashEnvironment, session: BashSession, task: Task, steps: list[tuple[str, str, float | None]],
    counts: Counter[str], classes: Counter[str],
) -> None:  # fmt: skip
    """One transcript."""
    gold = environment.record(task).gold
    shown, before, differed = "", "", False
    for action, recorded, reward in steps:
        if not action.startswith("submit"):
            before = action
            shown = session.act(action).observation.text
            counts["actions"] += 1
            counts["same output"] += shown == recorded
        if reward is None:
            differed = differed or shown != recorded
            continue
        value = session.judge().total
        counts["rewards"] += 1
        counts["same reward"] += abs(value - reward) < 1e-9
        counts["same success"] += (value == 1.0) == (reward == 1)
        if abs(value - reward) >= 1e-9:
            classes[why(task.id, gold, before, recorded, shown, differed)] += 1
        differed = differed or shown != recorded


def summary(counts: Counter[str]) -> str:
    """One line."""
    rewards, actions = max(counts["rewards"], 1), max(counts["actions"], 1)
    return (
        f"{counts['actions']} actions, output the same {counts['same output'] / actions:.1%}; {counts['rewards']} rewards, the "
        f"same {counts['same reward'] / rewards:.1%}, success the same {counts['same success'] / rewards:.1%}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transcripts", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every n-th task of each file")
    arguments = parser.parse_args()
    world = load_environment("intercode-bash", {"observation_limit": 10_000_000})
    assert isinstance(world, BashEnvironment)
    with closing(world):
        replay(world, arguments.transcripts, arguments.every)
