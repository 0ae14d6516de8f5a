"""How long a stage of a run may take, from the pace that was measured for its base recipe.

The pace of the recipe NAME is stated in `leap_lab/recipes/pace/NAME.yaml`, where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from leap.config import Section
from leap.demonstrations.sources import PlayedConfig
from leap.envs.base import load_environment
from leap.errors import PrerequisiteError
from leap.recipe import Recipe, read_mapping
from leap.runs.table import Stage
from leap.training.method import method_of
from leap_lab.studies.schema import FOLDER


class Pace(Section):
    """Seconds a piece of work took where it was measured; for estimates alone."""

    source: str = Field(description="The log that these come from, and the machine.")
    train_step: float = Field(ge=0, description="One optimizer step of SFT.")
    preference_step: float = Field(default=0.0, ge=0, description="One optimizer step of DPO or KTO.")
    rollout_episode: float = Field(ge=0, description="One rollout.")
    correct_episode: float = Field(ge=0, description="One episode corrected by rule.")
    ask_episode: float | None = Field(
        default=None, ge=0, description="One episode corrected by a model; a rollout if null."
    )
    evaluate_episode: float = Field(ge=0, description="One evaluation episode.")


def load_pace(recipe: Path) -> Pace | None:
    """Returns the pace of a base recipe, from `pace/` beside it or of those that come with leap; None where none was measured.

    Raises:
        RecipeError: Its file cannot be read or does not state a pace.
    """
    found = (folder / "pace" / recipe.name for folder in (recipe.parent, FOLDER))
    path = next((path for path in found if path.is_file()), None)
    return Pace.from_values(read_mapping(path, "pace"), f"pace {path}") if path else None


def pace_of(pace: Pace | None) -> Callable[[Recipe, Stage], float | None]:
    """Returns a function that estimates the seconds of a stage; None where it cannot."""

    def seconds(recipe: Recipe, stage: Stage) -> float | None:
        if pace is None:
            return None
        total = 0.0
        for number, each in _work(recipe, stage, pace):
            if number is None or each is None:
                return None
            total += number * each
        return total

    return seconds


def _work(recipe: Recipe, stage: Stage, pace: Pace) -> list[tuple[int | None, float | None]]:
    """Returns how many pieces of work a stage is, and the seconds of one; None for what is not known."""
    section = recipe.environment
    by_rule, asked = pace.correct_episode, pace.ask_episode
    if not (recipe.teacher.uses_student or recipe.teacher.models):
        asked = by_rule
    elif asked is None:
        asked = pace.rollout_episode
    if stage.kind == "train":
        paces = {"train": pace.train_step, "preference": pace.preference_step}
        return [
            (steps, paces.get(kind))
            for kind, steps in method_of(recipe.training).planned_steps(stage.iteration).items()
        ]
    if stage.kind == "evaluate":
        each = by_rule if stage.iteration < 0 else pace.evaluate_episode
        splits = {section.validation: section.validation_tasks} | dict.fromkeys(section.test, section.test_tasks)
        return [(tasks or _count(recipe, split), each) for split, tasks in splits.items()]
    if stage.kind == "rollout" and stage.iteration == 0:
        wanted = recipe.demonstrations.episodes if isinstance(recipe.demonstrations, PlayedConfig) else None
        return [(wanted or _count(recipe, section.train), by_rule)]
    if stage.kind == "rollout":
        alone = recipe.rollouts.beta_at(stage.iteration) >= 1  # the teacher, by rule
        return [(section.train_tasks or _count(recipe, section.train), by_rule if alone else pace.rollout_episode)]
    if stage.kind == "correct":
        return [(section.train_tasks or _count(recipe, section.train), asked)]
    if stage.kind == "measure":  # its corrections, and their likelihood under two checkpoints
        return [(recipe.measures.held_out or 0, asked + pace.evaluate_episode)]
    return []


def _count(recipe: Recipe, split: str) -> int | None:
    """Returns the number of a split's tasks, where the environment's data is there."""
    return _counted(recipe.environment.name, json.dumps(recipe.environment.options, sort_keys=True), split)


@lru_cache(maxsize=64)
def _counted(name: str, options: str, split: str) -> int | None:
    try:
        with closing(load_environment(name, json.loads(options))) as world:
            world.prepare()
            return len(world.tasks(split))
    except PrerequisiteError:
        return None
