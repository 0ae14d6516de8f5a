"""What the search teacher's corrections are worth by the planner, which it does not know: training games of a quickstart run.

    leap run quickstart --set iterations=1 --run-dir RUN
    python benchmarks/search_labels.py RUN --tasks 30 answers=1 attempts=8       # log: benchmarks/search_labels.log

A correction is right if its action brings the goal one action nearer on the shortest plan.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from leap.core import Actor, Correction, Episode, Tried
from leap.envs.base import load_environment
from leap.envs.live import states_along
from leap.envs.replay import plans_after
from leap.models.hf import HFModel
from leap.policies.model import ModelPolicy
from leap.policies.rendering import Renderer
from leap.recipe import load_recipe
from leap.rollouts import Play, rollout
from leap.sync import run_sync
from leap.teachers.base import StudentContext, TeacherContext
from leap.teachers.config import SearchConfig
from leap.teachers.search import SearchTeacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--show", type=int, default=12, help="Corrections that are shown.")
    parser.add_argument("options", nargs="*", help="Of the teacher: KEY=VALUE.")
    given = parser.parse_intermixed_args()
    recipe = load_recipe(given.run / "recipe.yaml")
    world = load_environment(recipe.environment.name, recipe.environment.options)
    world.prepare()
    section = recipe.student
    model = HFModel(str(given.run / "iter-0" / "checkpoint"), section.sampling, batch=section.batch)
    renderer = Renderer(section.prompt, world.prompts_of, grammar_of=world.grammar_of)

    def policy(hot: float) -> ModelPolicy:
        return ModelPolicy(model, renderer, Actor(name="student"), constrained=True, hot=hot)

    episodes: dict[str, Episode] = {}
    play = Play(world.tasks(recipe.environment.train, limit=given.tasks, seed=1), recipe.horizon, recipe.seed, "labels")
    rollout(world, policy(0.0), play, lambda one: episodes.__setitem__(one.key, one))
    options = {key: json.loads(value) for key, _, value in (one.partition("=") for one in given.options)}
    context = StudentContext(lambda: model, renderer, constrained=True, policy=policy)
    teacher = SearchTeacher(
        SearchConfig.model_validate({"privilege": 0, "most_steps": 20000} | options), TeacherContext(world, student=context)
    )
    made: list[Correction] = []
    began = time.process_time()
    ordered = sorted(episodes.values(), key=lambda one: one.key)
    run_sync(teacher.correct_all(ordered, lambda _, corrections: made.extend(corrections)))
    seconds = time.process_time() - began
    solved = sum(one.success for one in ordered)
    print(f"{options}: {solved} of {len(ordered)} episodes solved; {Tried.over(made)}; {seconds:.0f} s of processor time")
    counts: dict[str, Counter[str]] = {"solved": Counter(), "failed": Counter()}
    shown = given.show
    for one in made:
        episode = episodes[one.episode]
        own = one.action == episode.steps[one.t].action
        count = counts["solved" if episode.success else "failed"]
        what = "declined" if not one.kept else "own" if own else "other"
        count[what] += 1
        if one.kept:
            state: Any = run_sync(states_along(world, episode))[one.t]
            left = run_sync(plans_after(world, episode, one.t)).get(one.action)
            count[f"{what}, right"] += state.plan is not None and left is not None and left < len(state.plan)
        if one.kept and not own and shown:
            shown -= 1
            print(f"  {episode.task.instruction} | step {one.t} | {one.reason} | {one.action}")
    for which, count in counts.items():
        print(f"  steps of {which} episodes: {dict(sorted(count.items()))}")


if __name__ == "__main__":
    main()
