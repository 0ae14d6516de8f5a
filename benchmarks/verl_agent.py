"""ALFWorld's games under verl-agent's own environment manager: leap's batch, and the original with its Ray actor for each game.

    python benchmarks/verl_agent.py leap     CHECKOUT DATA --games 128
    python benchmarks/verl_agent.py original CHECKOUT DATA --games 8

CHECKOUT is a checkout of verl-agent, DATA a folder of games in the official layout. The player is a seeded random one. Memory is
the proportional share (PSS) of this process and all that it started, Ray's own processes included, when the steps are done. The
time to the first observations does not have Ray's own start.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil


def memory() -> int:
    """Proportional set size of this process and its descendants, in bytes."""
    this = psutil.Process()
    total = 0
    for process in (this, *this.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total


def start_ray(attempts: int = 5) -> None:
    """Starts Ray on this machine: its node has 30 s to come up, which a busy machine needs more than once."""
    import ray

    for left in reversed(range(attempts)):
        try:
            ray.init(address="local", include_dashboard=False)  # never somebody else's cluster
            return
        except Exception as error:
            print(f"Ray did not come up: {str(error).splitlines()[0]}", file=sys.stderr)
            ray.shutdown()
            if not left:
                raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("leap", "original"))
    parser.add_argument("checkout", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--games", type=int, default=128)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    os.environ["ALFWORLD_DATA"] = str(given.data)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(given.checkout), *sys.path])
    sys.path.insert(0, str(given.checkout))

    from agent_system.environments.env_manager import AlfWorldEnvironmentManager
    from agent_system.environments.env_package.alfworld.projection import alfworld_projection

    configuration = given.checkout / "agent_system/environments/env_package/alfworld/configs/config_tw.yaml"
    if given.which == "leap":
        from leap.interop.verl_agent import build_alfworld_envs
    else:
        from agent_system.environments.env_package.alfworld.envs import build_alfworld_envs
    before = memory()
    if given.which == "original":
        start_ray()
    began = time.perf_counter()
    envs = build_alfworld_envs(
        str(configuration),
        0,
        given.games // given.group,
        given.group,
        {"num_cpus": 0.01},
        True,
        {"eval_dataset": "eval_in_distribution"},
    )
    manager = AlfWorldEnvironmentManager(
        envs, partial(alfworld_projection), SimpleNamespace(env=SimpleNamespace(history_length=2))
    )
    observations, infos = manager.reset({})
    ready = time.perf_counter() - began
    draw, began = random.Random(0), time.perf_counter()
    for _ in range(given.steps):
        commands = [draw.choice(sorted(each)) for each in envs.get_admissible_commands]
        observations, _, _, infos = manager.step([f"<think>so</think><action>{each}</action>" for each in commands])
    seconds = time.perf_counter() - began
    print(
        f"{given.which}: {given.games} games; first observations after {ready:.1f} s; "
        f"{given.games * given.steps / seconds:.0f} steps/s; {memory() / 2**20:.0f} MiB in all, "
        f"{(memory() - before) / 2**20 / given.games:.1f} MiB a game beside {before / 2**20:.0f} MiB at the start"
    )
    print(f"example: {observations['anchor'][0]!r}, won {infos[0]['won']}")
    manager.close()


if __name__ == "__main__":
    main()
