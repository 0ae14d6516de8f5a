"""One iteration of LEAP from end to end, by leap and the way of the paper's released code: rollouts, corrections, training.

    python benchmarks/iteration.py RUN -i 0 [--games 40]

RUN is a run of `quickstart` (or of another ALFWorld recipe); its pi_i acts. Both ways play the same games, greedy and free. The
released code plays one game after another, the whole prompt through `generate` at every step, on the real engine (where ALFWorld
is not installed leap's own stands in for it, which favours that way, and the output says so), and trains on rows, by TRL.
Both ways' teacher is the script, for a model's answers take as long whoever asks; both train one epoch on the rows that
leap's own rollouts were corrected to. One process, by turns; seconds of CPU, and by the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from leap.core import Episode
from leap.core.message import Message
from leap.datasets import Row
from leap.envs.answer import format_answer
from leap.envs.tutor import scripts
from leap.policies.rendering import Renderer
from leap.training.config import SFTConfig
from leap.training.distributed import train
from leap.training.method import Job
from leap.training.methods import SFT
from leap_worlds.alfworld.env import AlfworldEnvironment
from rollouts import REAL, one_at_a_time, opened, together


async def corrected(
    environment: AlfworldEnvironment, episodes: list[Episode], renderer: Renderer, privilege: int
) -> list[Row]:
    """Every step as the teacher would have it."""
    rows = []
    for episode in episodes:
        taught = await scripts(environment).correct_along(episode, privilege)
        for t, (_, _, decision) in enumerate(taught):
            if decision is not None:
                said: list[Message] = [{"role": "assistant", "content": format_answer(decision)}]
                prompt = renderer.render(episode.history(t))
                rows.append(
                    Row(prompt=prompt, completion=said, episode=episode.key, t=t, source="correction", iteration=1)
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-i", type=int, default=0, help="which pi_i acts")
    parser.add_argument("--games", type=int, default=40)
    given = parser.parse_args()
    recipe, play = opened(given.run, given.i, given.games)
    environment, tasks, checkpoint, renderer, *_ = play
    engine = "the real engine" if REAL else "leap's engine on both sides: the real one is not installed"
    print(
        f"{platform.platform()}, load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"pi_{given.i} of recipe {recipe.name}, {len(tasks)} games, horizon {recipe.horizon}; {engine}")
    total = {"leap": 0.0, "the released code's way": 0.0}

    def timed(who: str, what: str, work: Callable[[], Any], n: Callable[[Any], str]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        total[who] += cpu
        print(f"{who}, {what}: {n(result)}, {cpu:.2f} s CPU ({wall:.1f} s wall)", flush=True)
        return result

    leap, other = total
    steps: Callable[[list[Episode]], str] = lambda episodes: f"{sum(len(one.steps) for one in episodes)} steps"  # noqa: E731
    together(environment, tasks[:4], checkpoint, renderer, 2, 60)  # warm up
    episodes = timed(leap, "rollouts", lambda: together(*play)[1], steps)
    timed(other, "rollouts", lambda: one_at_a_time(*play)[1], lambda n: f"{n} steps")
    correct = lambda: asyncio.run(corrected(environment, episodes, renderer, 50))  # noqa: E731
    rows = timed(leap, "corrections", correct, lambda rows: f"{len(rows)} rows")
    timed(other, "corrections", correct, lambda rows: f"{len(rows)} rows")
    with tempfile.TemporaryDirectory() as name:
        ways = {
            leap: SFTConfig(warmup_steps=0, branches=True, batch_tokens=2000),
            other: SFTConfig(warmup_steps=0, batch_rows=1, device_rows=1),
        }
        for who, config in ways.items():
            job = Job(1, checkpoint, Path(name) / who / "out", Path(name) / who / "work", seed=0)
            work = lambda config=config, job=job: train(SFT(config), rows, job)  # noqa: E731
            timed(who, "training", work, lambda done: f"{done.tokens} tokens computed")
    print(f"one iteration, CPU seconds: leap {total[leap]:.1f}, the released code's way {total[other]:.1f}, "
          f"ratio {total[other] / total[leap]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
