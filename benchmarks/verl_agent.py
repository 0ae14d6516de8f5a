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
from abc import ABC, abstractmethod
from collections import Counter
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

RESOURCES = {"num_cpus": 0.01}
"""Of an actor of Ray's; more of them than processors can be open."""
MANAGED = SimpleNamespace(env=SimpleNamespace(history_length=2))
"""The manager's configuration."""


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


class Side(ABC):
    """One of the two, under verl-agent's own environment manager.

    Attributes:
        anew: Whether each turn begins with other games.
        games: What is being played, which the other side is then given.
        seen: What each game shows, by kind.
    """

    anew = False
    manager: Any
    games: list[Any]
    seen: list[dict[str, Any]]

    @abstractmethod
    def __init__(self, which: str, given: argparse.Namespace, games: int) -> None:
        """Opens so many games of `original` or `leap`."""

    @abstractmethod
    def reset(self, games: list[Any]) -> None:
        """Begins these games, or those that come next if there are none."""

    @abstractmethod
    def choose(self, draw: random.Random, left: int) -> list[str]:
        """An action for each game, where so many steps are left of a turn."""

    @abstractmethod
    def look(self, shown: Any, *told: Any) -> None:
        """Notes what the manager's `step` returned: what is shown; rewards, whether each game is over, and infos."""


class Alfworld(Side):
    """ALFWorld. A random player goes on with the same games."""

    def __init__(self, which: str, given: argparse.Namespace, games: int) -> None:
        os.environ["ALFWORLD_DATA"] = str(given.data)
        from agent_system.environments.env_manager import AlfWorldEnvironmentManager
        from agent_system.environments.env_package.alfworld.projection import alfworld_projection

        build: Any
        if which == "leap":
            from leap.interop.verl_agent import build_alfworld_envs as build
        else:
            from agent_system.environments.env_package.alfworld.envs import build_alfworld_envs as build
        configuration = given.checkout / "agent_system/environments/env_package/alfworld/configs/config_tw.yaml"
        evaluated = {"eval_dataset": "eval_in_distribution"}
        self.envs = build(str(configuration), 0, games // given.group, given.group, RESOURCES, True, evaluated)
        self.group = given.group
        self.manager = AlfWorldEnvironmentManager(self.envs, partial(alfworld_projection), MANAGED)

    def reset(self, games: list[Any]) -> None:
        if games:
            world = self.envs.environment
            tasks = {os.path.realpath(world.game_path(task)): task for task in world.tasks("train")}
            self.envs._orders = [iter([tasks[game]]) for game in games[:: self.group]]
        shown, infos = self.manager.reset({})
        self.games = [os.path.realpath(info["extra.gamefile"]) for info in infos]
        self.look(shown)

    def choose(self, draw: random.Random, left: int) -> list[str]:
        return [draw.choice(sorted(each)) for each in self.envs.get_admissible_commands]

    def look(self, shown: Any, *told: Any) -> None:
        self.seen = [{"observations": text} for text in shown["anchor"]]


def serve(side: type[Side], given: argparse.Namespace) -> None:
    """Plays one batch as the lines of the standard input say; answers are lines of JSON on the standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Ray and the environments print, too

    def answer(**told: Any) -> None:
        print(json.dumps(told), file=answers, flush=True)

    os.environ["PYTHONPATH"] = os.pathsep.join([str(given.checkout), *sys.path])
    sys.path.insert(0, str(given.checkout))
    import agent_system.environments.env_manager  # noqa: F401  # what it takes counts for the driver

    before = memory()["pss"]
    if given.serve == "original":
        start_ray()
    batch, draw, began = None, random.Random(0), time.perf_counter()
    for asked in map(json.loads, sys.stdin):
        if batch is None:
            began = time.perf_counter()
            batch = side(given.serve, given, given.games[0])
        if "games" in asked:
            batch.reset(asked["games"])
            answer(ready=time.perf_counter() - began, before=before, games=batch.games, seen=batch.seen)
        elif asked["steps"]:
            seconds, taken, seen, busy = 0.0, [], [], processor()
            for step in range(asked["steps"]):
                actions = asked["actions"][step] if asked["actions"] else batch.choose(draw, asked["steps"] - step)
                replies = [f"<think>so</think><action>{each}</action>" for each in actions]
                start = time.perf_counter()
                told = batch.manager.step(replies)
                seconds += time.perf_counter() - start
                batch.look(*told)
                taken.append(actions)
                seen += batch.seen
            answer(seconds=seconds, busy=processor() - busy, actions=taken, seen=seen)
        else:
            answer(**memory())
            batch.manager.close()
            break


class Batch:
    """A batch in a process of its own."""

    def __init__(self, which: str, given: argparse.Namespace, games: int) -> None:
        command = [sys.executable, sys.argv[0], str(given.checkout), str(given.data), "--serve", which]
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


class Differences:
    """What two sides show, side by side, by its kind: how many there are and how many are not equal."""

    def __init__(self) -> None:
        self.all: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    def add(self, answers: Sequence[dict[str, Any]]) -> None:
        """Counts what the answers of both saw; the first difference of a kind is told on the standard error."""
        for one, other in zip(*(answer["seen"] for answer in answers), strict=True):
            for kind in one.keys() | other.keys():
                self.all[kind] += 1
                if one.get(kind) != other.get(kind):
                    self.wrong[kind] += 1
                    if self.wrong[kind] == 1:
                        print(f"{kind} differ:\n  {one.get(kind)}\n  {other.get(kind)}", file=sys.stderr)

    def __str__(self) -> str:
        return ", ".join(f"{self.wrong[kind]} of {n} {kind} differ" for kind, n in sorted(self.all.items()))


def line_through(counts: list[int], used: list[float]) -> tuple[float, float]:
    """Slope and intercept by least squares."""
    slope, intercept = np.polyfit(counts, used, 1)
    return float(slope), float(intercept)


def compare(given: argparse.Namespace, games: int, which: Sequence[str], *, anew: bool) -> dict[str, dict[str, float]]:
    """Plays so many games in both batches by turns, and prints what came of it; the memory of each."""
    batches = {each: Batch(each, given, games) for each in which}
    first, differences = {}, Differences()

    def begin() -> None:
        played: list[Any] = []
        for each, batch in batches.items():
            told = batch.ask({"games": played})
            played = told["games"]
            first.setdefault(each, told)
            answers[each] = told
        if len(which) > 1:
            differences.add([*answers.values()])

    answers: dict[str, dict[str, Any]] = {}
    begin()
    print(f"{games} games: ready", flush=True)
    time.sleep(3)  # what has started them comes to rest
    rates: dict[str, list[float]] = {each: [] for each in which}
    busy = dict.fromkeys(which, 0.0)
    for turn in range(given.turns + 1):  # the first is for warming up
        if turn and anew:
            begin()
        steps = given.steps if turn else 1
        actions = None
        for each, batch in batches.items():
            answers[each] = batch.ask({"steps": steps, "actions": actions})
            actions = answers[each]["actions"]
            if turn:
                rates[each].append(games * steps / answers[each]["seconds"])
                busy[each] += answers[each]["busy"]
        if len(which) > 1:
            differences.add([*answers.values()])
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
        print(f"  leap takes {ratio:.0f} times as many steps a second; {differences}; load {load:.1f}")
    sys.stdout.flush()
    return used


def main(side: type[Side], described: str | None) -> None:
    """Compares as the command line says."""
    parser = argparse.ArgumentParser(description=described, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        return serve(side, given)
    counts: list[int] = []
    used: list[float] = []
    for games in given.games:
        need = line_through(counts, used)[0] * games * MIB if len(counts) > 1 else 0
        if (free := psutil.virtual_memory().available) < need + SPARE:
            print(f"{games} games are not run: {free / 2**30:.1f} GiB are free, they need {need / 2**30:.1f}")
            continue
        counts.append(games)
        used.append(compare(given, games, ("original", "leap"), anew=side.anew)["original"]["pss"])
    if len(counts) > 1:
        slope, intercept = line_through(counts, used)
        off = ", ".join(f"{n}: {y - slope * n - intercept:+.0f}" for n, y in zip(counts, used, strict=True))
        print(f"original, PSS: {slope:.1f} MiB a game beside {intercept:.0f} MiB; residuals in MiB: {off}")
        print(f"extrapolated: 128 games of the original {(slope * 128 + intercept) / 1024:.1f} GiB")
    for games in given.alone:
        compare(given, games, ("leap",), anew=side.anew)


if __name__ == "__main__":
    main(Alfworld, __doc__)
