"""What prompts on file cost: size of `calls.sqlite` and time per call, with prompts and without.

    python benchmarks/calls_size.py [--calls 1000]

Real prompts of a teacher about ALFWorld episodes of a random player (generated games, 12 steps), by trajectory and by step, and
of a ReAct player with two worked examples; a scripted model answers in no time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from pathlib import Path

from leap.core import Actor, Decision, Episode, History
from leap.envs.base import Environment, load_environment
from leap.models.base import Sampling
from leap.models.calls import CallsSection
from leap.models.ledger import Ledger, look_at_calls
from leap.models.metered import MeteredModel
from leap.models.mock import MockModel, first_choice, read_plan
from leap.policies.base import FunctionPolicy, Policy
from leap.policies.model import ModelPolicy
from leap.policies.react import ReActRenderer
from leap.rollouts import Play, rollout
from leap.testing.play import expert_episodes
from leap.testing.teachers import model_teacher

WORLD = {"source": "generated", "generator": {"seed": 0, "games": {"train": 300, "valid": 8, "unseen": 8}}}
HORIZON = 12


def play(environment: Environment, policy: Policy, episodes: int) -> list[Episode]:
    played: list[Episode] = []
    rollout(environment, policy, Play(environment.tasks("train")[:episodes], HORIZON, 0, "size"), played.append)
    return played


def anything(history: History) -> Decision:
    draw = random.Random(f"{history.task.id} {len(history.actions)}")
    return Decision(reason="I try this.", action=draw.choice(history.now.admissible or ("look",)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=1000)
    calls = parser.parse_args().calls
    environment = load_environment("alfworld", WORLD)
    environment.prepare()
    shown = expert_episodes(environment, "valid", horizon=30)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    for what in ("trajectory", "step", "react"):
        episodes = calls if what == "trajectory" else -(-calls // HORIZON)
        player = FunctionPolicy(anything, name="random", blocking=False)
        given = [] if what == "react" else play(environment, player, min(episodes, 300))
        figures = []
        for keep in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                path, sampling = Path(folder) / "calls.sqlite", Sampling(max_tokens=4096)
                ledger = Ledger(path, calls=CallsSection(keep=keep))
                model = MeteredModel(MockModel(first_choice if what == "react" else read_plan), sampling, ledger)
                began = time.process_time()
                if what == "react":
                    renderer = ReActRenderer(shown, prompts=environment.prompts_of, grammar_of=environment.grammar_of)
                    play(environment, ModelPolicy(model, renderer, Actor(name="react"), untrained=True), episodes)
                else:
                    for round_ in range(-(-calls // (len(given) * (HORIZON if what == "step" else 1)))):
                        teacher = model_teacher(environment, model, seed=round_, by=what)
                        for episode in given:
                            asyncio.run(teacher.correct(episode))
                seconds = time.process_time() - began
                made = ledger.total().calls
                ledger.close()
                told = look_at_calls(path, lambda each: sum(len(str(call.request)) for call in each if call.request))
                figures.append((path.stat().st_size, 1000 * seconds / made, made, told))
        (bare, without, made, _), (kept, with_, _, told) = figures
        print(
            f"{what}: {made} calls, requests of {told / made / 1000:.1f} kB; file {bare / 1e6:.2f} MB without prompts, "
            f"{kept / 1e6:.2f} MB with them ({(kept - bare) / made / 1000:.2f} kB a call, {(kept - bare) / told:.1%} of the "
            "text); "
            f"{without:.2f} and {with_:.2f} ms of processor time a call in all",
            flush=True,
        )


if __name__ == "__main__":
    main()
