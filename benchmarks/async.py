"""Episodes side by side, and what a step costs, beside leap 0.1 in the same run.

    python benchmarks/async.py [--base PATH/TO/LEAP-0.1] [--rounds 3]      # Bash's boxes need a sandbox that works here

Waits are wall-clock seconds: 32 episodes with 164 steps of 50 ms, the longest of 8, as in 0.1's review; and 16 InterCode
boxes in which `sleep 1` runs. Steps are seconds of CPU, for a busy machine must not matter: the scripted experts' episodes
(rollouts), and the same actions again in bare sessions (steps). Each part runs in a process of its own, the two versions
in turn, and the best of the rounds counts (of steps, the best of 12 repeats in each).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

LENGTHS = (8, 4, *[5] * 28, 6, 6)
SECONDS = 0.05
BOXES = 16
GAMES = {"seed": 2, "games": {"train": 120, "valid": 3, "unseen": 3}}
GOALS = 200
REPEATS = 12


def played(environment: Any, policy: Any, tasks: list[Any], horizon: int) -> list[Any]:
    import leap

    if "rollout" in getattr(leap, "__all__", ()):
        return [*leap.rollout(environment, policy, tasks, horizon=horizon, stream="benchmark")]
    from leap.rollout import rollout  # 0.1  # pyright: ignore[reportMissingImports]

    episodes: list[Any] = []
    rollout(environment, policy, tasks, horizon=horizon, seed=0, stream="benchmark", on_episode=episodes.append)
    return episodes


def scripted(concurrency: int, action: str) -> Any:
    from leap.policies.base import ScriptedPolicy

    policy = ScriptedPolicy("waiter", [action])
    policy.concurrency = concurrency
    return policy


def waits() -> dict[str, float]:
    """32 episodes at once in a world whose actions take 50 ms."""
    from leap.core import Observation, Task
    from leap.envs.base import Environment, Outcome, Session

    class Waiting(Session):
        def __init__(self, left: int) -> None:
            self.left = left

        def observe(self) -> Observation:
            return Observation(text="A corridor.")

        def act(self, action: str) -> Outcome:
            time.sleep(SECONDS)
            self.left -= 1
            return Outcome(Observation(text=f"{self.left} left."), done=self.left == 0)

        def privileged(self) -> Any:
            return None

    class Corridor(Environment):
        name = "corridor"

        def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
            return [Task(env="corridor", split=split, id=str(n), instruction="wait") for n in range(len(LENGTHS))]

        def start(self, task: Task) -> Session:
            return Waiting(LENGTHS[int(task.id)])

        # What 0.1 asks for beside.
        expert = correct = entities = None  # type: ignore[assignment]

    world = Corridor(None)
    began = time.perf_counter()
    played(world, scripted(len(LENGTHS), "wait"), world.tasks("train"), 20)
    return {"seconds": time.perf_counter() - began, "longest alone": max(LENGTHS) * SECONDS}


def machinery() -> dict[str, float]:
    """What a rollout itself costs: 200 episodes of 11 steps in a world that answers at once."""
    from leap.core import Observation, Task
    from leap.envs.base import Environment, Outcome, Session

    shown = Observation(text="Here.", admissible=("go",))

    class Quick(Session):
        blocking = False

        def __init__(self) -> None:
            self.steps = 0

        def observe(self) -> Observation:
            return shown

        def act(self, action: str) -> Outcome:
            self.steps += 1
            return Outcome(shown, done=self.steps == 11)

        def privileged(self) -> Any:
            return None

    class Path11(Environment):
        name = "path"
        blocking = False

        def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
            return [Task(env="path", split=split, id=str(n), instruction="go") for n in range(200)]

        def start(self, task: Task) -> Session:
            return Quick()

        # What 0.1 asks for beside.
        expert = correct = entities = None  # type: ignore[assignment]

    world, best = Path11(None), float("inf")
    for _ in range(REPEATS + 1):
        began = time.process_time()
        played(world, scripted(64, "go"), world.tasks("train"), 30)
        best = min(best, time.process_time() - began)
    return {"rollout, us per step": 1e6 * best / 2200}


def boxes() -> dict[str, float]:
    """16 slow commands at once in InterCode's boxes."""
    try:
        from leap_worlds.intercode.bash.env import BashConfig, BashEnvironment
    except ImportError:  # 0.1
        from leap.envs.intercode.bash.env import BashConfig, BashEnvironment  # pyright: ignore[reportMissingImports]

    environment = BashEnvironment(BashConfig.model_validate({"source": "generated", "image": "machine"}))
    environment.prepare()
    tasks = environment.tasks("train", limit=BOXES)
    alone = time.perf_counter()
    played(environment, scripted(1, "sleep 1"), tasks[:1], 1)
    alone = time.perf_counter() - alone
    began = time.perf_counter()
    episodes = played(environment, scripted(BOXES, "sleep 1"), tasks, 1)
    seconds = time.perf_counter() - began
    environment.close()
    assert len(episodes) == BOXES and not any(episode.final.text for episode in episodes)
    return {"seconds": seconds, "longest alone": alone}


def steps(environment: Any, split: str, limit: int, horizon: int) -> dict[str, float]:
    """The expert's rollouts, and the same actions in bare sessions."""
    from leap.policies.base import ExpertPolicy

    environment.prepare()
    tasks = environment.tasks(split, limit=limit)
    episodes = played(environment, ExpertPolicy(environment), tasks, horizon)  # files read, caches filled
    count = sum(len(episode.steps) for episode in episodes)

    def bare() -> None:
        for episode in episodes:
            session = environment.start(episode.task)
            session.observe()
            for step in episode.steps:
                session.act(step.action)
            session.close()

    def milliseconds(work: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(REPEATS):
            began = time.process_time()
            work()
            best = min(best, time.process_time() - began)
        return 1e3 * best / count

    rollout = milliseconds(lambda: played(environment, ExpertPolicy(environment), tasks, horizon))
    return {"steps": count, "rollout, ms per step": rollout, "session, ms per step": milliseconds(bare)}


def alfworld() -> dict[str, float]:
    """The native engine and its common-sense expert."""
    try:
        from leap_worlds.alfworld.env import AlfworldConfig, AlfworldEnvironment
    except ImportError:  # 0.1
        from leap.envs.alfworld.env import AlfworldConfig, AlfworldEnvironment  # pyright: ignore[reportMissingImports]

    return steps(AlfworldEnvironment(AlfworldConfig.model_validate({"generator": GAMES})), "train", GAMES["games"]["train"], 30)


def webshop() -> dict[str, float]:
    """The generated catalogue of 4,000 products and its shopper."""
    try:
        from leap_worlds.webshop.env import WebshopConfig, WebshopEnvironment
    except ImportError:  # 0.1
        from leap.envs.webshop.env import WebshopConfig, WebshopEnvironment  # pyright: ignore[reportMissingImports]

    return steps(WebshopEnvironment(WebshopConfig()), "train", GOALS, 15)


PARTS: dict[str, Callable[[], dict[str, float]]] = {
    part.__name__: part for part in (waits, boxes, machinery, alfworld, webshop)
}


def measured(part: str, checkout: Path, folder: Path) -> dict[str, float]:
    """A part in a process of its own, with leap from a checkout."""
    path = os.pathsep.join([str(checkout / "src"), str(_registered(checkout, folder / "registered"))])
    environment = os.environ | {"PYTHONPATH": path, "LEAP_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--part", part], env=environment, capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        sys.exit(f"{part} with {checkout}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _registered(checkout: Path, folder: Path) -> Path:
    """A folder that registers what the checkout's own pyproject.toml does, whatever version is installed."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{n} = {at}" for n, at in points.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def main() -> None:
    """Measures, and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, help="a checkout of leap 0.1; only this version is measured without")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part]()))
        return
    checkouts = {"now": Path(__file__).parents[1]}
    if arguments.base:
        checkouts["0.1"] = arguments.base
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs, best of {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.only:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
            for _ in range(arguments.rounds):
                for name, checkout in checkouts.items():
                    found[name].append(measured(part, checkout, Path(folder) / name))
            print(f"\n{part}: {PARTS[part].__doc__}")
            for figure in found["now"][0]:
                best = {name: min(one[figure] for one in rounds) for name, rounds in found.items()}
                told = "   ".join(f"{name} {value:9.3f}" for name, value in best.items())
                ratio = f"   0.1 / now {best['0.1'] / best['now']:6.2f}" if "0.1" in best else ""
                print(f"  {figure:22} {told}{ratio}")
            if part in ("waits", "boxes"):
                for name, rounds in found.items():
                    print(f"  {name}: {min(one['seconds'] / one['longest alone'] for one in rounds):.2f} times the longest alone")


if __name__ == "__main__":
    main()
