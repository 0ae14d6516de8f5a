"""Settings of a value model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from leap.config import Options, Section
from leap.core import content_key
from leap.training.config import SFTConfig, TrainingSettings


class ValueConfig(Section):
    """A value model of pi_i (`leap value`). Part of a recipe, under `value`."""

    labels: Literal["replay", "returns", "planner"] = Field(
        default="replay",
        description="What it learns from. replay: other actions are tried at states of pi_i's episodes, and pi_i goes on from "
        "there; returns: what the episodes came to, for pi_i's own actions; planner: how far the goal is behind an action for "
        "one who knows the hidden state, which is too much for one who does not: for a warm start alone.",
    )
    tasks: int = Field(default=1000, ge=1, description="Training tasks that pi_i plays for it.")
    held_out: int = Field(default=100, ge=1, description="Validation tasks on which it is measured, by replay.")
    steps: int = Field(
        default=3, ge=1, description="Steps of each episode that are labelled, drawn at random (replay, planner)."
    )
    answers: int = Field(
        default=4, ge=0, description="Answers of pi_i drawn at each, whose actions are tried beside its own."
    )
    temperature: float = Field(
        default=1.0, ge=0, description="At which they are drawn, where that is warmer than in rollouts."
    )
    listed: int = Field(
        default=2, ge=0, description="Further actions tried there, drawn from those that the environment lists."
    )
    rolls: int = Field(
        default=1, ge=1, description="How often pi_i goes on from each; their mean is the label (replay)."
    )
    discount: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="What is left of an outcome of 0 to 1 for each action taken until then; 1: all.",
    )
    start: Literal["student", "returns", "planner"] = Field(
        default="student",
        description="Where its weights come from: pi_i, or its value model by those labels, made before.",
    )
    best_of: list[Annotated[int, Field(ge=1)] | Literal["all"]] = Field(
        default_factory=list,
        description="In each iteration, make a value model and evaluate pi_i with the best of so many answers taken by it.",
    )
    training: Options = Field(
        default_factory=dict,
        description="Keys of SFT that differ from the recipe's training; 3 epochs if it says no more.",
    )

    @property
    def labels_key(self) -> str:
        """Names what of the settings labels depend on."""
        return content_key("labels", self.model_dump(exclude={"tasks", "held_out", "start", "best_of", "training"}))

    @property
    def held_out_labels(self) -> ValueConfig:
        """The same for the tasks on which it is measured: by replay."""
        return self.model_copy(update={"labels": "replay"})

    def settings(self, training: TrainingSettings) -> SFTConfig:
        """How it is trained, where students are trained so.

        Raises:
            ValidationError: A key of `training` is wrong.
        """
        own = {"steps": None, "first_steps": None, "epochs": 3.0, **self.training, "method": "sft", "branches": True}
        return SFTConfig.model_validate({**SFTConfig.in_place_of(training.model_dump()), **own})
