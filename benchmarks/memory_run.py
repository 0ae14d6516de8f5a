"""What a whole run of a pretrained student holds in memory, stage by stage: smollm2-quickstart, made short, in one process.

    OMP_NUM_THREADS=1 python benchmarks/memory_run.py MODEL [--steps 20] [--games 40] [--demonstrations 60]

pi_0, rollouts, corrections, pi_1, both on validation games. Of each line that leap says is told the most memory (RSS) that the
process has held since the line before, what it holds then, and its seconds of CPU; at the end the most of each stage and of all,
and how RSS went, every 5 s. Variables of the environment, as those of glibc's allocator, reach the run.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent.parent
SHOWN = ("OMP_NUM_THREADS", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD")


def recipe(given: argparse.Namespace) -> dict[str, Any]:
    """The recipe, made short."""
    own = yaml.safe_load((HERE / "src/leap/recipes/smollm2-quickstart.yaml").read_text(encoding="utf-8"))
    world = own["environment"]
    world["options"]["generator"]["games"] = {"train": 400, "valid": 100, "unseen": 10}
    world |= {"train_tasks": given.games, "validation_tasks": given.games, "test": []}
    own["student"]["model"] = f"hf/{given.model.resolve()}"
    own["training"] |= {"first_steps": given.steps, "steps": given.steps, "bf16": True}
    return own | {"iterations": 1, "demonstrations": {"episodes": given.demonstrations}}


def held(process: int) -> tuple[float, float]:
    """The most that a process has held since this was asked before, and what it holds now, in GB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines())
    Path(f"/proc/{process}/clear_refs").write_text("5", encoding="utf-8")
    most, now = (int(status[name].split()[0]) / 1e6 for name in ("VmHWM", "VmRSS"))
    return most, now


def seconds(process: int) -> float:
    """Seconds of CPU of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Returns the run's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder or GGUF file of SmolLM2-135M-Instruct")
    parser.add_argument("--steps", type=int, default=20, help="of each of the two trainings")
    parser.add_argument("--games", type=int, default=40, help="of the rollouts and of each evaluation")
    parser.add_argument("--demonstrations", type=int, default=60)
    given = parser.parse_args()
    shown = {name: os.environ[name] for name in SHOWN if name in os.environ}
    print(f"{platform.platform()}, torch {version('torch')}, transformers {version('transformers')}, {shown}")
    sizes = ", ".join(f"{name} {getattr(given, name)}" for name in ("steps", "games", "demonstrations"))
    print(f"{sizes}; load {os.getloadavg()[0]:.0f}", flush=True)
    most, rss = dict[str, float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe(given)), encoding="utf-8")
        command = [str(Path(sys.executable).with_name("leap")), "run", str(file), "--run-dir", f"{folder}/run"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

        def watch() -> None:
            while process.poll() is None:
                rss.append(int(Path(f"/proc/{process.pid}/statm").read_text(encoding="utf-8").split()[1]) * 4096 / 1e9)
                time.sleep(5)

        threading.Thread(target=watch, daemon=True).start()
        assert process.stdout is not None
        for line in process.stdout:
            try:
                peak, now, cpu = *held(process.pid), seconds(process.pid)
            except (OSError, KeyError):  # it has ended
                print(line, end="", flush=True)
                continue
            stage = line.split(":")[0].strip()
            most[stage] = max(most.get(stage, 0.0), peak)
            print(f"{peak:.2f} GB at most, {now:.2f} now, {cpu:.0f} s of CPU: {line}", end="", flush=True)
        status = process.wait()
    print("RSS in GB every 5 s: " + " ".join(f"{one:.1f}" for one in rss))
    print(", ".join(f"{stage} {gb:.2f}" for stage, gb in most.items() if gb > 1))
    print(f"ended with {status}; {max(most.values()):.2f} GB at most; load {os.getloadavg()[0]:.0f}")
    return status


if __name__ == "__main__":
    sys.exit(main())
