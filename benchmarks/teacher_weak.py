"""What can be used of the answers of a weak teacher: SmolLM2-135M-Instruct on the quickstart's world.

    python benchmarks/teacher_weak.py --model hf/FOLDER [--episodes 20] [--part 0 5] [--tokens 1024]
    python benchmarks/teacher_weak.py --gguf FILE       # the same by a llama.cpp server of this process (pip install xllamacpp)

The same episodes of a random player each time; each is corrected by trajectory and by step. PYTHONPATH picks the version of leap
that is measured, so that two of them can be compared on one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

import leap
from leap.core import Actor, Decision, Episode, History
from leap.envs.base import Environment, load_environment
from leap.models.base import Completion, Conversation, EndpointConfig, Model, Request
from leap.models.providers import ModelSampling
from leap.policies.base import FunctionPolicy
from leap.policies.model import ModelPolicy
from leap.policies.react import ReActRenderer
from leap.recipe import ReActSection
from leap.rollouts import Play, rollout
from leap.teachers.base import TeacherContext
from leap.teachers.config import ModelTeacherConfig, TeacherSampling
from leap.teachers.model import ModelTeacher
from leap.testing.play import expert_episodes

WORLD = {
    "source": "generated",
    "generator": {
        "seed": 0,
        "games": {"train": 60, "valid": 4, "unseen": 4},
        "layout_per_game": ["train", "valid", "unseen"],
        "dialect": "move",
        "rooms": ["bathroom"],
        "task_types": ["pick_and_place_simple", "pick_clean_then_place_in_recep"],
        "receptacles": [8, 12],
        "objects": [8, 12],
    },
}


class Counting(Model):
    """A model whose calls, tokens and cut-off answers are counted."""

    def __init__(self, model: Model) -> None:
        self.__dict__.update({name: getattr(model, name) for name in ("name", "concurrency", "calls_at_once", "room")})
        self.in_process, self.constrains, self.model = model.in_process, model.constrains, model
        self.length, self.counts = model.length, Counter[str]()

    @property
    def identity(self) -> str:
        return self.model.identity

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        counts = self.counts
        async with self.model.conversation() as inner:

            class Counted:
                async def complete(self, request: Request) -> Completion:
                    done = await inner.complete(request)
                    counts.update(calls=1, tokens=done.completion_tokens, cut_off=done.truncated)
                    return done

            yield Counted()


def episodes_of(environment: Environment, count: int, horizon: int) -> list[Episode]:
    def anything(history: History) -> Decision:
        draw = random.Random(f"{history.task.id} {len(history.actions)}")
        return Decision(reason="I try this.", action=draw.choice(history.now.admissible or ("look",)))

    played: list[Episode] = []
    play = Play(environment.tasks("train")[:count], horizon, 0, "weak")
    rollout(environment, FunctionPolicy(anything, name="random", blocking=False), play, played.append)
    return sorted((one for one in played if not one.success), key=lambda one: one.task.id)


async def corrected(teacher: ModelTeacher, episodes: list[Episode]) -> Counter[str]:
    gate, counts = asyncio.Semaphore(teacher.concurrency), Counter[str]()

    async def one(episode: Episode) -> None:
        async with gate:
            corrections = await teacher.correct(episode)
        for correction, step in zip(corrections, episode.steps, strict=True):
            same = "kept, the student's" if correction.action == step.action else "kept, another"
            counts[correction.rejected or same] += 1

    await asyncio.gather(*map(one, episodes))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="")
    parser.add_argument("--gguf", default="")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--part", type=int, nargs=2, default=(0, None), help="only these of the episodes, as in a slice")
    parser.add_argument("--horizon", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--by", nargs="+", default=["trajectory", "step"])
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--react", action="store_true")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"leap {leap.__version__} {options.note}, load {load}, {time.strftime('%H:%M', time.gmtime())} UTC", flush=True)
    environment = load_environment("alfworld", WORLD)
    environment.prepare()
    episodes = episodes_of(environment, options.episodes, options.horizon)[slice(*options.part)]
    steps = sum(len(one.steps) for one in episodes)
    with ExitStack() as stack:
        name, endpoint = options.model, None
        if options.gguf:
            import xllamacpp  # type: ignore[import-not-found]

            params = xllamacpp.CommonParams()
            params.model.path, params.n_ctx, params.n_parallel = options.gguf, 8192, 1
            params.cpuparams.n_threads, params.port = 1, 0
            server = xllamacpp.Server(params)
            name = "openai/smollm2"
            endpoint = EndpointConfig(base_url=f"{server.listening_address}/v1", timeout=600, concurrency=1)
            print(f"by llama.cpp, xllamacpp {version('xllamacpp')}")
        print(f"{len(episodes)} episodes, {steps} steps, max_tokens {options.tokens}, temperature 0", flush=True)
        section: dict[str, Any] = {"endpoint": endpoint.model_dump()} if endpoint else {}
        for by in options.by:
            config = ModelTeacherConfig(model=name, by=by, sampling=TeacherSampling(max_tokens=options.tokens), **section)
            model, began = Counting(config.open()), time.monotonic()
            stack.callback(model.model.close)
            context = TeacherContext(environment, open_model=lambda _, model=model: model, attempts=options.attempts)
            counts = asyncio.run(corrected(ModelTeacher(config, context), episodes))
            kept = sum(count for what, count in counts.items() if what.startswith("kept"))
            read = steps - counts["teacher_error"]
            print(f"by {by}: {read} of {steps} steps read ({read / steps:.0%}), {kept} kept ({kept / steps:.0%})")
            print(f"  {dict(counts)}; {dict(model.counts)}; {time.monotonic() - began:.0f} s", flush=True)
        if options.react:
            player = ReActSection(model=name, sampling=ModelSampling(max_tokens=200), **section)
            react(environment, Counting(player.open()), options)


def react(environment: Environment, model: Counting, options: argparse.Namespace) -> None:
    shown, played, began = expert_episodes(environment, "valid", horizon=12), list[Episode](), time.monotonic()
    renderer = ReActRenderer(
        shown, prompts=environment.prompts_of, grammar_of=environment.grammar_of, limit=model.room, length=model.length
    )
    play = Play(environment.tasks("train")[: options.episodes], options.horizon, 0, "react")
    rollout(environment, ModelPolicy(model, renderer, Actor(name="react"), untrained=True), play, played.append)
    taken = [step for one in played for step in one.steps]
    admissible = sum(step.action in (step.observation.admissible or ()) for step in taken)
    imagined = sum("OBSERVATION:" in step.completion.upper() for step in taken)
    read = sum(step.parsed for step in taken)
    print(f"react: {read} of {len(taken)} answers read, {admissible} admissible, {imagined} with an imagined observation")
    print(f"  {dict(model.counts)}; {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
