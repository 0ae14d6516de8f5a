"""Resident memory over episodes of ALFWorld: it must level off, however many games come and go.

    python benchmarks/memory_over_episodes.py [--episodes 10000] [--games 600]

The unprivileged expert plays generated games in full rooms, more of them than the cache of games holds, again and again.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from leap.envs.base import load_environment
from leap.policies.base import ExpertPolicy
from leap.rollouts import Play, rollout
from leap_worlds.alfworld.game import Game


def resident() -> float:
    """Memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    """Plays and prints a line for each tenth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--games", type=int, default=600)
    given = parser.parse_args()
    world = load_environment("alfworld", {"generator": {"seed": 1, "games": {"train": 1, "valid": given.games}}})
    world.prepare()
    tasks, played, told = world.tasks("valid"), 0, 0
    while played < given.episodes:
        rollout(world, ExpertPolicy(world), Play(tasks, 30, 0, f"round {played}"), lambda episode: None)
        played += len(tasks)
        if played - told >= given.episodes / 10 or played >= given.episodes:
            told = played
            gc.collect()
            alive = sum(isinstance(one, Game) for one in gc.get_objects())
            print(f"{played} episodes: {resident():.0f} MB, {alive} games in memory", flush=True)


if __name__ == "__main__":
    main()
