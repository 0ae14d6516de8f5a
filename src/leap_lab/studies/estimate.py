"""How long a stage of a run may take, from the pace that was measured for its base recipe.

The pace of the recipe NAME is stated in `leap_lab/recipes/pace/NAME.yaml`, where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pydantic import Field, ValidationError

from leap.config import Section
from leap.core import content_key
from leap.demonstrations.config import PlayedConfig
from leap.envs.base import load_environment
from leap.errors import PrerequisiteError, RecipeError, describe_validation_error
from leap.recipe import Recipe, read_mapping
from leap.runs.table import Stage
from leap.training.method import method_of
from leap_lab.studies.schema import FOLDER

Seconds = Callable[[Recipe, Stage], float | None]


class Pace(Section):
    """Seconds a piece of work took where it was measured; for estimates alone."""

    source: str = Field(description="The log that these come from, and the machine.")
    train_step: float = Field(ge=0, description="One optimizer step of SFT.")
    preference_step: float = Field(default=0.0, ge=0, description="One optimizer step of DPO or KTO.")
    rollout_episode: float = Field(ge=0, description="One rollout.")
    correct_episode: float = Field(ge=0, description="One episode corrected by rule.")
    ask_episode: float | None = Field(default=None, ge=0, description="One episode corrected by a model; a rollout if null.")
    evaluate_episode: float = Field(ge=0, description="One evaluation episode.")


def load_pace(recipe: Path) -> Pace | None:
    """Returns the pace of a base recipe, from `pace/` beside it or of those that come with leap; None where none was measured.

    Raises:
        RecipeError: Its file cannot be read or does not state a pace.
    """
    found = (folder / "pace" / recipe.name for folder in (recipe.parent, FOLDER))
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        return None
    try:
        return Pace.model_validate(read_mapping(path, "pace"))
    except ValidationError as error:
        raise RecipeError(describe_validation_error(error, f"pace {path}")) from error


def pace_of(pace: Pace | None) -> Seconds:
    """Returns a function that estimates the seconds of a stage; None where it cannot."""
    count = _counter()

    def seconds(recipe: Recipe, stage: Stage) -> float | None:
        if pace is None:
            return None
        if stage.kind == "train":
            return _training(recipe, stage.iteration, pace)
        if stage.kind == "evaluate":
            return _times(_evaluated(recipe, count), pace.correct_episode if stage.iteration < 0 else pace.evaluate_episode)
        section = recipe.environment
        if stage.iteration == 0 and stage.kind == "rollout":
            wanted = recipe.demonstrations.episodes if isinstance(recipe.demonstrations, PlayedConfig) else None
            return _times(wanted or count(recipe, section.train), pace.correct_episode)
        by_model = pace.rollout_episode if pace.ask_episode is None else pace.ask_episode
        asked = by_model if recipe.teacher.uses_student or recipe.teacher.models else pace.correct_episode
        if stage.kind in ("rollout", "correct"):
            each = pace.rollout_episode if stage.kind == "rollout" else asked
            if stage.kind == "rollout" and recipe.rollouts.beta_at(stage.iteration) >= 1:
                each = pace.correct_episode
            return _times(section.train_tasks or count(recipe, section.train), each)
        if stage.kind == "measure":  # its corrections, and their likelihood under two checkpoints
            return (recipe.measures.held_out or 0) * (asked + pace.evaluate_episode)
        return 0.0

    return seconds


def _training(recipe: Recipe, i: int, pace: Pace) -> float | None:
    planned = method_of(recipe.training).planned_steps(i)
    paces = {"train": pace.train_step, "preference": pace.preference_step}
    times = [_times(steps, paces[kind]) if kind in paces else None for kind, steps in planned.items()]
    return None if None in times else sum(time for time in times if time is not None)


def _evaluated(recipe: Recipe, count: Callable[[Recipe, str], int | None]) -> int | None:
    section = recipe.environment
    numbers = [section.validation_tasks or count(recipe, section.validation)]
    numbers += [section.test_tasks or count(recipe, split) for split in section.test]
    return None if None in numbers else sum(number for number in numbers if number)


def _times(number: int | None, each: float) -> float | None:
    return None if number is None else number * each


def _counter() -> Callable[[Recipe, str], int | None]:
    """Counts the tasks of a split, where the environment's data is there."""
    known: dict[str, int | None] = {}

    def count(recipe: Recipe, split: str) -> int | None:
        section = recipe.environment
        key = content_key(section.name, section.options, split)
        if key not in known:
            try:
                with closing(load_environment(section.name, section.options)) as world:
                    world.prepare()
                    known[key] = len(world.tasks(split))
            except PrerequisiteError:
                known[key] = None
        return known[key]

    return count
