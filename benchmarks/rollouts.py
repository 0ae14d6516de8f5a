"""Episodes per second: leap's rollouts against one game at a time on the real engine with one prompt at a time.

    python benchmarks/rollouts.py RUN -i 3 [--games 20]      # needs the extra [alfworld]

The second way is the paper's released code's: the real engine, the whole prompt through `generate` at every step. Same
student (pi_i of a run), same games (the run's training games), same horizon, greedy, free decoding, one process, in one
run. Wall-clock seconds.
"""

from __future__ import annotations

import argparse
import platform
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from leap.core import Actor, Episode, History, Observation
from leap.envs.answer import parse_answer
from leap.envs.base import load_environment
from leap.models.base import Sampling
from leap.models.chat import ChatTokens
from leap.models.checkpoints import load_causal_lm
from leap.models.hf import HFModel
from leap.policies.base import UNPARSED
from leap.policies.model import ModelPolicy
from leap.policies.rendering import Renderer
from leap.recipe import Recipe, load_recipe
from leap.rollouts import Play, rollout
from leap.runs.directory import RunDirectory
from leap_worlds.alfworld.env import AlfworldEnvironment
from leap_worlds.alfworld.native import NativeEngine

REAL = find_spec("textworld") is not None


def engine_of(path: Path) -> Any:
    """Returns the real engine at a game; leap's own where that is not installed (for `iteration.py`, which says so)."""
    if not REAL:
        return NativeEngine(path)
    from leap_worlds.alfworld.textworld import TextWorldEngine

    return TextWorldEngine(path)


def one_at_a_time(
    environment: AlfworldEnvironment, tasks: list, checkpoint: str, renderer: Renderer, horizon: int, max_tokens: int
):
    """Plays the games one after another; returns seconds and steps."""
    model, tokenizer = load_causal_lm(checkpoint)
    model.eval()
    chat = ChatTokens(tokenizer)
    steps = 0
    began = time.perf_counter()
    for task in tasks:
        engine = engine_of(environment.game_path(task))
        reply = engine.start()
        history = History(task=task, observations=(Observation(text=reply.observation, admissible=reply.admissible),))
        for _ in range(horizon):
            ids = torch.tensor([chat.prompt(renderer.render(history))], device=model.device)
            with torch.inference_mode():
                output = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=max_tokens,
                    do_sample=False,
                    eos_token_id=chat.end_of_turn,
                    pad_token_id=chat.end_of_turn,
                )
            decision = parse_answer(chat.decode(output[0, ids.shape[1] :].tolist()), history.now.admissible)
            action = decision.action if decision else UNPARSED
            reply = engine.step(action)
            steps += 1
            history = history.extend(action, Observation(text=reply.observation, admissible=reply.admissible))
            if reply.won:
                break
        if REAL:
            engine.close()
    return time.perf_counter() - began, steps


def together(
    environment: AlfworldEnvironment, tasks: list, checkpoint: str, renderer: Renderer, horizon: int, max_tokens: int
):
    """Plays the games by leap's rollout; returns seconds and the episodes."""
    model = HFModel(checkpoint, Sampling(temperature=0, max_tokens=max_tokens), batch=len(tasks))
    episodes: list[Episode] = []
    began = time.perf_counter()
    policy = ModelPolicy(model, renderer, Actor(name="student"))
    rollout(environment, policy, Play(tasks, horizon, 0, "benchmark"), episodes.append)
    return time.perf_counter() - began, episodes


def opened(folder: Path, i: int, games: int) -> tuple[Recipe, tuple[Any, ...]]:
    """A run's recipe, and what `one_at_a_time` and `together` take for its pi_i and so many training games."""
    run = RunDirectory(folder)
    recipe = load_recipe(run.recipe)
    environment = load_environment(recipe.environment.name, recipe.environment.options)
    assert isinstance(environment, AlfworldEnvironment)
    environment.prepare()
    tasks = environment.tasks(recipe.environment.train, limit=games)
    renderer = Renderer(recipe.student.prompt, environment.prompts_of)
    return recipe, (
        environment, tasks, str(run.checkpoint(i)), renderer, recipe.horizon, recipe.student.sampling.max_tokens
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("-i", type=int, required=True, help="which pi_i plays")
    parser.add_argument("--games", type=int, default=20, help="games played one at a time")
    parser.add_argument(
        "--batch", type=int, default=128, help="games leap plays at once; the first --games are the same"
    )
    arguments = parser.parse_args()
    recipe, play = opened(arguments.run, arguments.i, arguments.batch)
    environment, tasks, checkpoint, renderer, horizon, max_tokens = play
    size = sum(file.stat().st_size for file in Path(checkpoint).glob("*.safetensors"))
    print(
        f"{platform.platform()}, {torch.get_num_threads()} threads, torch {torch.__version__}, transformers "
        f"{version('transformers')}, textworld {version('textworld')}; pi_{arguments.i} of recipe {recipe.name}, "
        f"{size / 1e6:.1f} MB, horizon {horizon}, at most {max_tokens} tokens an answer"
    )
    together(environment, tasks[:8], checkpoint, renderer, 2, max_tokens)  # warm up
    rates = {}
    for name, play, games in (
        ("one game, one prompt at a time, real engine", one_at_a_time, tasks[: arguments.games]),
        ("leap, the same games", together, tasks[: arguments.games]),
        (f"leap, {len(tasks)} games", together, tasks),
    ):
        seconds, played = play(environment, games, checkpoint, renderer, horizon, max_tokens)
        steps = played if isinstance(played, int) else sum(len(episode.steps) for episode in played)
        rates[name] = len(games) / seconds
        print(
            f"{name}: {len(games)} episodes, {steps} steps in {seconds:.1f} s: {rates[name]:.3f} episodes/s", flush=True
        )
    base, *others = rates.items()
    for name, rate in others:
        print(f"{name}: {rate / base[1]:.1f} times")


if __name__ == "__main__":
    main()
