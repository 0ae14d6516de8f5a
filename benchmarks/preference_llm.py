"""DPO and KTO of a pretrained student with an adapter, from pi_0 of a run: do steps run, what do they hold, do rewards part?

    OMP_NUM_THREADS=1 python benchmarks/preference_llm.py RUN [--steps 8] [--rows 8] [--lr 1e-4]

RUN is one of smollm2-quickstart with rollouts and corrections of iteration 1. Each method trains in a process of its own. Told
are the losses (DPO begins at 0.693, KTO at 0.5: the policy is its reference, base and adapter), the rewards at the end, the most
memory held and tokens per second of CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

METHODS = {"dpo": {"beta": 0.1, "device_rows": 1}, "kto": {"beta": 0.1, "device_rows": 2}}


def train(run: Path, method: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Trains by a method on the run's pairs, in this process."""
    from leap.progress import Progress
    from leap.runs.directory import RunDirectory
    from leap.runs.open import recipe_of
    from leap.runs.stages import Stages
    from leap.training.config import DPOConfig, KTOConfig
    from leap.training.method import Job
    from leap.training.preference import train_preference

    recipe = recipe_of(run)
    stages = Stages(recipe, RunDirectory(run), Progress())
    pairs = stages.preferences(1)
    shared = {"lora": recipe.training.lora, "bf16": True, "max_grad_norm": 1.0, "warmup_steps": 0, "schedule": "constant"}
    shared |= {"steps": given.steps, "batch_rows": given.rows, "lr": given.lr}
    config = {"dpo": DPOConfig, "kto": KTOConfig}[method].model_validate(shared | METHODS[method])
    losses: list[float] = []
    start = stages.actors.checkpoint(0)
    stages.close()
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    job = Job(
        iteration=1,
        start=start,
        out=folder / "out",
        work=folder / "work",
        seed=0,
        on_step=lambda done, total, loss: losses.append(round(loss, 4)),
    )
    done = train_preference(config, pairs, job)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    per_cpu = done.tokens / (time.process_time() - began)
    return {"pairs": len(pairs), "losses": losses, "rewards": done.rewards, "before": before, "held": held, "per_cpu": per_cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rows", type=int, default=8, help="of a step; pairs for DPO")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.method:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(train(given.run, given.method, given, Path(folder))))
        return
    print(f"{platform.platform()}, torch {version('torch')}, transformers {version('transformers')}, trl {version('trl')}")
    for method in METHODS:
        load = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
        command = [sys.executable, __file__, *sys.argv[1:], "--method", method]
        told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])
        rewards = ", ".join(f"{name} {value:.3f}" for name, value in told["rewards"].items())
        print(
            f"{method}, {given.steps} steps of {given.rows} from {told['pairs']} pairs ({load}): {told['per_cpu']:.0f} tokens "
            f"per CPU second; {told['held']:.2f} GB at most, {told['before']:.2f} before it loaded the model; losses "
            f"{told['losses']}; rewards at the end: {rewards}",
            flush=True,
        )


if __name__ == "__main__":
    main()
