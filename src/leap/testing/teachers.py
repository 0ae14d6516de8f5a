"""Teachers made of a model at hand, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leap.core.message import Length
from leap.envs.base import Environment
from leap.models.base import Model
from leap.teachers.base import TeacherContext
from leap.teachers.config import ModelTeacherConfig
from leap.teachers.model import ModelTeacher


def model_teacher(
    environment: Environment,
    model: Model,
    privilege: int = 50,
    *,
    states: Mapping[str, str] | None = None,
    seed: int = 0,
    attempts: int = 3,
    length: Length | None = None,
    **options: Any,
) -> ModelTeacher:
    """A model teacher that asks the model given.

    Args:
        environment: Where the episodes were played.
        model: The model to ask.
        privilege: The privilege level.
        states: Privileged states by task key, as if read from logs.
        seed: Seed of the requests.
        attempts: How often a missing correction is asked for.
        length: Measures prompts, in place of the model itself.
        **options: Further options, as in a recipe.
    """
    if length is not None:
        model.length = length  # type: ignore[method-assign]
    config = ModelTeacherConfig(model="mock/given", privilege=privilege, **options)
    context = TeacherContext(environment, seed=seed, open_model=lambda _: model, states=states, attempts=attempts)
    return ModelTeacher(config, context)
