"""ALFWorld's games under verl-agent's own environment manager: the original with its Ray actor for each game, and leap's batch.

    python benchmarks/verl_agent.py CHECKOUT DATA --games 2 8 16 32 --alone 128

CHECKOUT is a checkout of verl-agent, DATA a folder of games in the official layout. For each number of games both batches are
open at once and play the same games: the original draws them and a seeded random player acts, then leap's batch takes the same
actions, and so on by turns. What each shows is compared. `--alone` plays leap's batch alone. It says

* steps a second, by the seconds within the manager's own `step`;
* processor time a step, of a batch's process and all that it started, which says more than seconds where other programs run;
* memory of the same processes, Ray's own included, when the steps are done: the proportional share (PSS: a page of n processes
  counts 1/n in each), what is a process's own (USS), and with shared pages counted in each (RSS).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil

MIB = 2**20
SPARE = 3 * 2**30
"""A number of games is left out where, by the line so far, less than this would stay free, in bytes."""


def memory() -> dict[str, float]:
    """PSS, USS and RSS of this process and its descendants, in MiB, and how many processes they are."""
    this = psutil.Process()
    total = {"pss": 0.0, "uss": 0.0, "rss": 0.0, "processes": 0}
    for process in (this, *this.children(recursive=True)):
        try:
            used = process.memory_full_info()
        except psutil.Error:  # it has just ended
            continue
        for kind in ("pss", "uss", "rss"):
            total[kind] += getattr(used, kind) / MIB
        total["processes"] += 1
    return total


def processor() -> float:
    """Seconds of processor time that this process and its descendants have taken."""
    this = psutil.Process()
    total = 0.0
    for process in (this, *this.children(recursive=True)):
        try:
            used = process.cpu_times()
        except psutil.Error:  # it has just ended
            continue
        total += used.user + used.system
    return total


def start_ray(attempts: int = 5) -> None:
    """Starts Ray on this machine: its node has 30 s to come up, which a busy machine needs more than once.

    A node counts as dead after five checks in vain; while 48 games start on two cores it misses more than that.
    """
    import ray

    patient = {"health_check_failure_threshold": 1000, "health_check_timeout_ms": 60_000}

    for left in reversed(range(attempts)):
        try:
            ray.init(address="local", include_dashboard=False, _system_config=patient)  # never somebody else's cluster
            return
        except Exception as error:
            print(f"Ray did not come up: {str(error).splitlines()[0]}", file=sys.stderr)
            ray.shutdown()
            if not left:
                raise


def serve(which: str, checkout: Path, data: Path, games: int, group: int) -> None:
    """Plays one batch as the lines of the standard input say; answers are lines of JSON on the standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Ray and the environments print, too

    def answer(**told: Any) -> None:
        print(json.dumps(told), file=answers, flush=True)

    os.environ["ALFWORLD_DATA"] = str(data)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(checkout), *sys.path])
    sys.path.insert(0, str(checkout))
    from agent_system.environments.env_manager import AlfWorldEnvironmentManager
    from agent_system.environments.env_package.alfworld.projection import alfworld_projection

    build: Any
    if which == "leap":
        from leap.interop.verl_agent import build_alfworld_envs as build
    else:
        from agent_system.environments.env_package.alfworld.envs import build_alfworld_envs as build
    before = memory()["pss"]
    if which == "original":
        start_ray()
    configuration = checkout / "agent_system/environments/env_package/alfworld/configs/config_tw.yaml"
    played = json.loads(input())
    began = time.perf_counter()
    envs = build(
        str(configuration), 0, games // group, group, {"num_cpus": 0.01}, True, {"eval_dataset": "eval_in_distribution"}
    )
    if played:  # the games that the original drew
        tasks = {os.path.realpath(envs.environment.game_path(task)): task for task in envs.environment.tasks("train")}
        envs._orders = [iter([tasks[game]]) for game in played[::group]]
    manager = AlfWorldEnvironmentManager(
        envs, partial(alfworld_projection), SimpleNamespace(env=SimpleNamespace(history_length=2))
    )
    shown, infos = manager.reset({})
    answer(
        ready=time.perf_counter() - began,
        before=before,
        games=[os.path.realpath(info["extra.gamefile"]) for info in infos],
        shown=shown["anchor"],
    )
    draw = random.Random(0)
    for line in sys.stdin:
        given = json.loads(line)
        if not given["steps"]:
            break
        seconds, taken, texts, busy = 0.0, [], [], processor()
        for step in range(given["steps"]):
            actions = (
                given["actions"][step]
                if given["actions"]
                else [draw.choice(sorted(each)) for each in envs.get_admissible_commands]
            )
            replies = [f"<think>so</think><action>{each}</action>" for each in actions]
            began = time.perf_counter()
            shown, *_ = manager.step(replies)
            seconds += time.perf_counter() - began
            taken.append(actions)
            texts.append(shown["anchor"])
        answer(seconds=seconds, busy=processor() - busy, actions=taken, shown=texts)
    answer(**memory())
    manager.close()


class Batch:
    """A batch in a process of its own."""

    def __init__(self, which: str, given: argparse.Namespace, games: int) -> None:
        command = [sys.executable, __file__, str(given.checkout), str(given.data), "--serve", which]
        self.process = subprocess.Popen(
            [*command, "--games", str(games), "--group", str(given.group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, told: Any) -> dict[str, Any]:
        """Sends a line and waits for the answer."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps(told), file=self.process.stdin, flush=True)
        if not (line := self.process.stdout.readline()):
            raise SystemExit(f"a batch ended with {self.process.wait()}; the lines above say why")
        return json.loads(line)


def differing(one: list[Any], other: list[Any]) -> int:
    """How many of two batches' texts are not equal."""
    return sum(a != b for a, b in zip(np.ravel(one), np.ravel(other), strict=True))


def line_through(counts: list[int], used: list[float]) -> tuple[float, float]:
    """Slope and intercept by least squares."""
    slope, intercept = np.polyfit(counts, used, 1)
    return float(slope), float(intercept)


def compare(given: argparse.Namespace, games: int, which: Sequence[str]) -> dict[str, dict[str, float]]:
    """Plays so many games in both batches by turns, and prints what came of it; the memory of each."""
    batches = {each: Batch(each, given, games) for each in which}
    played: list[str] = []
    first: dict[str, dict[str, Any]] = {}
    for each, batch in batches.items():
        first[each] = batch.ask(played)
        played = first[each]["games"]
    print(f"{games} games: ready", flush=True)
    time.sleep(3)  # what has started them comes to rest
    rates: dict[str, list[float]] = {each: [] for each in which}
    busy = dict.fromkeys(which, 0.0)
    texts = len(played) if len(which) > 1 else 0
    wrong = differing(*[first[each]["shown"] for each in which]) if texts else 0
    for turn in range(given.turns + 1):  # the first is for warming up
        steps = given.steps if turn else 1
        answers: dict[str, dict[str, Any]] = {}
        for each, batch in batches.items():
            actions = answers[which[0]]["actions"] if answers else None
            answers[each] = batch.ask({"steps": steps, "actions": actions})
            if turn:
                rates[each].append(games * steps / answers[each]["seconds"])
                busy[each] += answers[each]["busy"]
        if len(which) > 1:
            wrong += differing(*[answers[each]["shown"] for each in which])
            texts += games * steps
    load, used = os.getloadavg()[0], {}
    print(f"{games} games: timed", flush=True)
    for each, batch in batches.items():
        used[each] = one = batch.ask({"steps": 0})
        batch.process.wait()
        cost = 1000 * busy[each] / (games * given.steps * given.turns)
        print(
            f"  {each:8} {statistics.median(rates[each]):8.1f} steps/s (median of {given.turns} turns, "
            f"{min(rates[each]):.1f} to {max(rates[each]):.1f}), {cost:.2f} ms of processor time a step; "
            f"PSS {one['pss']:.0f} MiB, USS {one['uss']:.0f}, RSS {one['rss']:.0f}, {one['processes']} processes; "
            f"{first[each]['before']:.0f} MiB before any game; first observations after {first[each]['ready']:.1f} s"
        )
    if len(which) > 1:
        ratio = statistics.median(ours / theirs for theirs, ours in zip(*rates.values(), strict=True))
        print(
            f"  leap takes {ratio:.0f} times as many steps a second; {wrong} of {texts} observations differ; load {load:.1f}"
        )
    sys.stdout.flush()
    return used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--games", type=int, nargs="*", default=[2, 8, 16, 32], help="numbers of games of both")
    parser.add_argument("--alone", type=int, nargs="*", default=[128], help="numbers of games of leap alone")
    parser.add_argument("--group", type=int, default=2, help="games of a group, which are the same game")
    parser.add_argument("--steps", type=int, default=5, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--serve", choices=("leap", "original"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.checkout, given.data = given.checkout.resolve(), given.data.resolve()
    if given.serve:
        return serve(given.serve, given.checkout, given.data, given.games[0], given.group)
    counts: list[int] = []
    used: list[float] = []
    for games in given.games:
        need = line_through(counts, used)[0] * games * MIB if len(counts) > 1 else 0
        if (free := psutil.virtual_memory().available) < need + SPARE:
            print(f"{games} games are not run: {free / 2**30:.1f} GiB are free, they need {need / 2**30:.1f}")
            continue
        counts.append(games)
        used.append(compare(given, games, ("original", "leap"))["original"]["pss"])
    if len(counts) > 1:
        slope, intercept = line_through(counts, used)
        off = ", ".join(f"{n}: {y - slope * n - intercept:+.0f}" for n, y in zip(counts, used, strict=True))
        print(f"original, PSS: {slope:.1f} MiB a game beside {intercept:.0f} MiB; residuals in MiB: {off}")
        print(f"extrapolated: 128 games of the original {(slope * 128 + intercept) / 1024:.1f} GiB")
    for games in given.alone:
        compare(given, games, ("leap",))


if __name__ == "__main__":
    main()
