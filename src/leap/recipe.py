"""A recipe: one YAML file that states a whole experiment. Every key is typed and documented; unknown keys are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from leap.envs.base import describe_validation_error
from leap.errors import RecipeError
from leap.models.base import Sampling
from leap.models.scratch import ScratchConfig
from leap.policies.rendering import PromptConfig
from leap.training.config import SFTConfig


class Section(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EnvironmentSection(Section):
    """Which world, and which of its tasks serve for what."""

    name: str = Field(description="Registered environment, for example alfworld.")
    options: dict[str, Any] = Field(default_factory=dict, description="The environment's own options.")
    train: str = Field(default="train", description="Split of demonstrations and rollouts.")
    validation: str = Field(default="valid", description="Split on which the best iteration is chosen.")
    test: list[str] = Field(default_factory=lambda: ["unseen"], description="Splits that are only ever reported.")
    train_tasks: int | None = Field(
        default=None, ge=1, description="Tasks rolled out per iteration, a fresh sample for each; all by default."
    )
    validation_tasks: int | None = Field(default=None, ge=1, description="Validation tasks; all by default.")
    test_tasks: int | None = Field(default=None, ge=1, description="Tasks of each test split; all by default.")


class StudentSection(Section):
    """Who learns, how it is asked and how it answers."""

    model: str = Field(
        default="scratch", description="`scratch`, or `hf/PATH-or-name` of a causal LM with a chat template."
    )
    scratch: ScratchConfig = Field(default_factory=lambda: ScratchConfig(), description="Size of a scratch student.")
    prompt: PromptConfig = Field(default_factory=lambda: PromptConfig(), description="How it is asked.")
    sampling: Sampling = Field(default_factory=lambda: Sampling(), description="How its answers are drawn.")
    evaluation_temperature: float | None = Field(
        default=None, ge=0, description="Temperature at evaluation; as above if null."
    )
    decoding: Literal["free", "constrained"] = Field(
        default="free", description="constrained: admissible actions only."
    )
    batch: int = Field(default=64, ge=1, description="Episodes played at once.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Weights' type in rollouts."
    )


class DemonstrationSection(Section):
    """D_0: the unprivileged expert's episodes."""

    episodes: int | None = Field(
        default=None, ge=1, description="How many training tasks the expert plays; all by default."
    )
    successes_only: bool = Field(default=True, description="Clone only episodes that solved their task.")


class TeacherSection(Section):
    """Who corrects, with how much privilege, and what."""

    kind: Literal["expert"] = Field(default="expert", description="expert: the environment's programmatic teacher.")
    privilege: int = Field(
        default=50, ge=0, le=100, description="How far the privileged state may be used; 50 is the paper's."
    )
    episodes: Literal["failures", "all"] = Field(default="failures", description="Which episodes are corrected.")
    failure_score: float = Field(default=0.0, ge=0, le=1, description="An episode is a failure up to this score.")
    drop_leaks: bool = Field(
        default=False, description="Reject corrections whose reason names what the student has not seen."
    )


class Recipe(Section):
    """A whole experiment."""

    name: str = Field(
        description="Name of the run; its directory under runs/.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
    )
    seed: int = Field(default=0, ge=0, description="The one source of randomness.")
    iterations: int = Field(default=3, ge=0, description="N, the number of LEAP iterations after behaviour cloning.")
    horizon: int = Field(default=30, ge=1, description="Largest number of actions per episode.")
    evaluation_horizon: int | None = Field(default=None, ge=1, description="The same at evaluation; as above if null.")
    environment: EnvironmentSection
    student: StudentSection = Field(default_factory=lambda: StudentSection())
    demonstrations: DemonstrationSection = Field(default_factory=lambda: DemonstrationSection())
    teacher: TeacherSection = Field(default_factory=lambda: TeacherSection())
    training: SFTConfig = Field(default_factory=lambda: SFTConfig(), description="The method and its settings.")

    @model_validator(mode="after")
    def _sensible(self) -> Recipe:
        env = self.environment
        if env.validation in env.test:
            raise ValueError(
                f"validation split {env.validation!r} is also a test split; models may not be chosen on it"
            )
        if env.train in env.test:
            raise ValueError(f"training split {env.train!r} is also a test split; test tasks may not be trained on")
        if env.train == env.validation:
            raise ValueError(f"training and validation are both {env.train!r}; choose models on other tasks")
        if self.training.branches and self.student.prompt.renderer != "dialogue":
            raise ValueError(
                "training.branches needs student.prompt.renderer: dialogue (paper prompts share no prefix)"
            )
        if self.student.model == "scratch" and self.training.lora is not None:
            raise ValueError("training.lora makes no sense for a scratch student: its base weights are random")
        if self.student.model != "scratch" and not self.student.model.startswith("hf/"):
            raise ValueError(f"student.model {self.student.model!r} is neither `scratch` nor `hf/PATH-or-name`")
        return self

    @property
    def test_horizon(self) -> int:
        """The horizon at evaluation."""
        return self.evaluation_horizon or self.horizon


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        path: The YAML file.
        overrides: `dotted.key=value` settings that replace the file's; values are YAML.

    Raises:
        RecipeError: The file is missing, is not YAML, or does not state a valid experiment.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {path} is not UTF-8 text") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"the recipe {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"the recipe {path} must be a mapping of keys to values")
    for override in overrides or []:
        apply_setting(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(describe_validation_error(error, f"recipe {path}")) from error


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Puts a `dotted.key=value` setting into nested mappings; the value is YAML. The one form of `--set` in every command.

    Raises:
        RecipeError: It is not of that form, or a part of its key already holds something that is no mapping.
    """
    key, found, value = setting.partition("=")
    if not found or not key:
        raise RecipeError(f"override {setting!r} is not of the form dotted.key=value")
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise RecipeError(f"override {setting!r}: {part!r} is not a mapping")
    try:
        values[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {setting!r}: the value is not valid YAML") from error
