"""How long episodes of slow commands take side by side: three times `sleep 1` and a submission, on generated Bash tasks.

python benchmarks/intercode_side_by_side.py > benchmarks/intercode_side_by_side.log
"""

from __future__ import annotations

import os
import time

from leap.core import Episode
from leap.policies.base import ScriptedPolicy
from leap.rollouts import Play, rollout
from leap_worlds.intercode.bash.env import GeneratedBashEnvironment, GeneratedConfig
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig


def main() -> None:
    family = BashFamilyConfig(file_systems={"train": 4, "valid": 1, "unseen": 1})
    world = GeneratedBashEnvironment(GeneratedConfig(generator=family, time_limit=30))
    tasks = world.tasks("train", limit=64)
    for task in tasks:  # images are made once
        world.boxes.open(world.record(task).file_system).close()
    policy = ScriptedPolicy("slow", ["sleep 1", "sleep 1", "sleep 1", "submit"])
    print(f"# {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (other work on the machine), {world.boxes.description}")
    for n in (1, 16, 32, 64) * 2:
        episodes: list[Episode] = []
        began = time.monotonic()
        rollout(world, policy, Play(tasks[:n], 5, 0, str(n)), episodes.append)
        print(f"{len(episodes):3} episodes at once: {time.monotonic() - began:5.1f} s", flush=True)
    world.close()


if __name__ == "__main__":
    main()
