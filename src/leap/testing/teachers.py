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
    """A model teacher that asks the model given; `length` measures prompts in place of the model, other arguments are those of
    a `TeacherContext`, options those of a recipe."""
    if length is not None:
        model.length = length  # type: ignore[method-assign]
    config = ModelTeacherConfig(model="mock/given", privilege=privilege, **options)
    return ModelTeacher(
        config, TeacherContext(environment, seed=seed, open_model=lambda _: model, states=states, attempts=attempts)
    )
