"""Training a pretrained student by branches with LoRA in bfloat16: memory by cause and speed, beside another version of leap.

    git worktree add ../leap01 61459c4
    OMP_NUM_THREADS=1 python benchmarks/memory_llm.py CHECKPOINT --against ../leap01 [--steps 6] [--batch-tokens 2000]

The unprivileged expert's episodes in the quickstart's world, adapters of rank 32 on all linear layers. Each way trains the same
batches in a process of its own, in turn: the other version, this one, and this one with a step in one pass. Told are the most
memory that the process has held with its libraries imported, with the model loaded and in all, tokens per second of CPU (without
the first step), and the losses.
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

import yaml

HERE = Path(__file__).resolve().parent.parent
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ROW = ("prompt", "completion", "episode", "t", "source", "iteration")


def write_rows(file: Path, episodes: int) -> None:
    """Rows of the expert's episodes."""
    from leap.core import Episode
    from leap.datasets import demonstration_rows
    from leap.policies.base import ExpertPolicy
    from leap.policies.rendering import PromptConfig, Renderer
    from leap.rollouts import Play, rollout
    from leap_worlds.alfworld.env import AlfworldConfig, AlfworldEnvironment

    recipe = yaml.safe_load((HERE / "src/leap/recipes/quickstart.yaml").read_text(encoding="utf-8"))
    environment = AlfworldEnvironment(AlfworldConfig.model_validate(recipe["environment"]["options"]))
    environment.prepare()
    renderer = Renderer(PromptConfig.model_validate(recipe["student"]["prompt"]), environment.prompts_of)
    found: list[Episode] = []
    play = Play(environment.tasks("train", limit=episodes), recipe["horizon"], 0, "benchmark")
    rollout(environment, ExpertPolicy(environment), play, found.append)
    rows = demonstration_rows(sorted(found, key=lambda episode: episode.task.id), renderer)
    file.write_text("".join(json.dumps({key: getattr(row, key) for key in ROW}) + "\n" for row in rows), encoding="utf-8")


def held() -> float:
    """The most memory that this process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def train(checkpoint: str, rows_file: str, given: argparse.Namespace, folder: Path, one_pass: bool) -> dict[str, Any]:
    """Trains with the leap that is on the path."""
    from leap.datasets import Row
    from leap.training import sft
    from leap.training.config import LoraConfig, SFTConfig

    if one_pass:
        sft.PASS_TOKENS = 1 << 30
    rows = [Row(**json.loads(line)) for line in Path(rows_file).read_text(encoding="utf-8").splitlines()]
    lora = LoraConfig(rank=32, alpha=64, dropout=0.0, targets=LINEAR)
    settings: dict[str, Any] = {"branches": True, "lora": lora, "bf16": True, "lr": 1e-3, "max_grad_norm": 1.0}
    config = SFTConfig(**settings, steps=given.steps, batch_tokens=given.batch_tokens)
    stages = {"libraries": held()}
    load = sft.load_student

    def noting(*args: Any) -> Any:
        loaded = load(*args)
        stages["model"] = held()
        return loaded

    sft.load_student = noting
    losses, clock = [], []

    def on_step(done: int, total: int, loss: float) -> None:
        losses.append(round(loss, 4))
        clock.append((time.process_time(), time.perf_counter()))

    places = {"start": checkpoint, "out": folder / "out", "work": folder / "work", "seed": 0, "on_step": on_step}
    try:
        from leap.training.method import Job
    except ImportError:
        done = sft.train_sft(config, rows, **places)
    else:
        done = sft.train_sft(config, rows, Job(iteration=0, **places))
    timed = done.tokens * (done.steps - 1) / done.steps
    cpu, wall = (timed / (clock[-1][i] - clock[0][i]) for i in range(2))
    return {"losses": losses, "per_cpu": cpu, "per_second": wall, "held": {**stages, "training": held()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--against", type=Path, required=True, help="folder of the other version")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch-tokens", type=int, default=2000)
    parser.add_argument("--as", dest="kind", choices=["other", "this", "one pass"], help=argparse.SUPPRESS)
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.kind:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(train(given.checkpoint, given.rows, given, Path(folder), given.kind == "one pass")))
        return
    threads = os.environ.get("OMP_NUM_THREADS", "PyTorch's choice of")
    print(f"{platform.platform()}, torch {version('torch')}, transformers {version('transformers')}, {threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        write_rows(rows, 100)
        for kind in ("other", "this", "one pass"):
            source = given.against if kind == "other" else HERE
            command = [sys.executable, __file__, *sys.argv[1:], "--as", kind, "--rows", str(rows)]
            path = {**os.environ, "PYTHONPATH": str(source.resolve() / "src")}
            load = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
            done = subprocess.run(command, env=path, stdout=subprocess.PIPE, check=True, text=True)
            told = json.loads(done.stdout.splitlines()[-1])
            memory = ", ".join(f"{name} {gb:.2f}" for name, gb in told["held"].items())
            print(
                f"{kind}: {told['per_cpu']:.0f} tokens per CPU second, {told['per_second']:.0f} per second ({load}); GB held at "
                f"most: {memory}; losses {told['losses']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
