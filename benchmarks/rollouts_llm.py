"""Rollouts of a pretrained student through the generator in this process: another version of leap against this one.

    git worktree add ../leap01 61459c4
    python benchmarks/rollouts_llm.py CHECKPOINT [CHECKPOINT ...] --against ../leap01 [--games 100] [--batch 60]

Both play the same games of the quickstart's world, constrained, temperature 0, each in a process of its own and in turn, with
the same number of threads. Told are seconds of CPU and by the clock from the first prompt to the last answer, the most memory
the process held, and how many texts are the same. A LoRA adapter is a checkpoint too.
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


def play(source: Path, checkpoint: str, given: argparse.Namespace) -> dict[str, Any]:
    """Plays the games with the leap that is on the path."""
    import torch

    from leap.core import Actor
    from leap.models.base import Sampling
    from leap.models.hf import HFModel
    from leap.policies.rendering import PromptConfig, Renderer

    old = (source / "src/leap/rollout.py").exists()
    if old:
        from leap.envs.alfworld.env import AlfworldConfig, AlfworldEnvironment  # pyright: ignore[reportMissingImports]
        from leap.policies.student import ModelPolicy  # pyright: ignore[reportMissingImports]
        from leap.rollout import rollout  # pyright: ignore[reportMissingImports]
    else:
        from leap.policies.model import ModelPolicy
        from leap.rollouts import rollout
        from leap_worlds.alfworld.env import AlfworldConfig, AlfworldEnvironment

    recipe = yaml.safe_load((HERE / "src/leap/recipes/quickstart.yaml").read_text(encoding="utf-8"))
    environment = AlfworldEnvironment(AlfworldConfig.model_validate(recipe["environment"]["options"]))
    environment.prepare()
    tasks = environment.tasks("valid", limit=given.games)
    sampling = Sampling.model_validate({**recipe["student"]["sampling"], "temperature": given.temperature})
    model: Any = HFModel(checkpoint, sampling, batch=given.batch, dtype=given.dtype)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    renderer = Renderer(PromptConfig.model_validate(recipe["student"]["prompt"]), environment.prompts_of)
    policy = ModelPolicy(model, renderer, Actor(name="student"), constrained=True)
    episodes: list[Any] = []

    def begin(some: list[Any], horizon: int, into: Any) -> None:
        if old:
            rollout(environment, policy, some, horizon=horizon, seed=0, stream="benchmark", on_episode=into)  # pyright: ignore
        else:
            from leap.rollouts import Play

            rollout(environment, policy, Play(some, horizon, 0, "benchmark"), into)

    begin(tasks[:2], 1, lambda episode: None)  # warm up
    wall, cpu = time.perf_counter(), time.process_time()
    begin(tasks, given.horizon, episodes.append)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    steps = [step for episode in episodes for step in episode.steps]
    return {
        "wall": wall,
        "cpu": cpu,
        "loaded": loaded / 1e6,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "steps": len(steps),
        "tokens": sum(step.completion_tokens for step in steps),
        "solved": sum(episode.success for episode in episodes),
        "texts": {episode.task.id: [step.completion for step in episode.steps] for episode in episodes},
        "dtype": str(next(model.network.parameters()).dtype if not old else next(model._model.parameters()).dtype),
        "threads": torch.get_num_threads(),
    }


def played(source: Path, arguments: list[str]) -> dict[str, Any]:
    """The same in a process of its own, with the leap of a source tree."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, __file__, *arguments, "--source", str(source), "--out", str(out)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(source / "src")})
        return json.loads(out.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="+")
    parser.add_argument("--against", type=Path, help="source tree of the other version")
    parser.add_argument("--games", type=int, default=100)
    parser.add_argument("--batch", type=int, default=60, help="games at once")
    parser.add_argument("--horizon", type=int, default=12, help="actions of a game, as in the quickstart")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.out:
        result = play(given.source, given.checkpoint[0], given)
        given.out.write_text(json.dumps(result), encoding="utf-8")
        return
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{platform.platform()}, {load}, torch {version('torch')}, transformers {version('transformers')}")
    for checkpoint in given.checkpoint:
        keys = ("games", "batch", "horizon", "dtype", "temperature")
        more = [part for key in keys for part in (f"--{key}", str(getattr(given, key)))]
        print(f"{Path(checkpoint).name}, {' '.join(more)}")
        results = {}
        for name, source in (("other", given.against), ("this", HERE)):
            if source is None:
                continue
            results[name] = r = played(source.resolve(), [checkpoint, *more])
            print(
                f"  {name + ':':6} {r['cpu']:7.1f} s CPU {r['wall']:7.1f} s wall, {r['tokens'] / r['cpu']:5.0f} answer tokens "
                f"per CPU second, {r['steps']} steps, {r['solved']} solved, "
                f"{r['loaded']:.2f} GB loaded, {r['peak']:.2f} GB at most; {r['dtype']}, {r['threads']} thread(s)",
                flush=True,
            )
        if len(results) == 2:
            a, b = results["other"], results["this"]
            same = sum(a["texts"][task] == b["texts"][task] for task in a["texts"])
            times = f"{a['cpu'] / b['cpu']:.2f} times by CPU, {a['wall'] / b['wall']:.2f} by the clock"
            print(f"  {times}; {same} of {len(a['texts'])} episodes word for word")


if __name__ == "__main__":
    main()
