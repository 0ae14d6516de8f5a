"""Settings of a value model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from leap.config import Options, Section
from leap.core import content_key
from leap.training.config import SFTConfig, TrainingSettings


class ValueTrainingConfig(SFTConfig):
    """How a value network is trained."""

    compare: float = Field(default=0.0, ge=0, description="Weight of the `choice_loss`.")

    def deciding(self) -> dict[str, object]:
        told = super().deciding()
        if not self.compare:  # as before there was the key: value models on file keep their names
            del told["compare"]
        return told


LABELS = ("labels", "steps", "answers", "temperature", "listed", "rolls", "discount")
"""Keys on which labels depend."""


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
    reads: Literal["action", "answer"] = Field(
        default="action",
        description="What of an answer it is shown: its action alone, or the reason too that the student gave for it.",
    )
    compare: float = Field(
        default=0.0,
        ge=0,
        description="Weight of a second loss, between the shares that the actions of a step have of the sum of their values: it "
        "tells actions apart where steps differ by more than actions do.",
    )
    start: Literal["student", "returns", "planner"] = Field(
        default="student",
        description="Where its weights come from: pi_i, or its value model by those labels, made before.",
    )
    best_of: list[Annotated[int, Field(ge=1)] | Literal["all"]] = Field(
        default_factory=list,
        description="In each iteration, make a value model and evaluate pi_i with the best of so many answers taken by it.",
    )
    votes: float = Field(default=1.0, ge=0, description="In evaluations of the best of N: as `policy.votes`.")
    training: Options = Field(
        default_factory=dict,
        description="Keys of SFT that differ from the recipe's training; 3 epochs if it says no more.",
    )

    @property
    def labels_key(self) -> str:
        """Names what of the settings labels depend on."""
        told = self.model_dump(include={*LABELS})
        return content_key("labels", told | ({"reads": self.reads} if self.reads != "action" else {}))

    @property
    def held_out_labels(self) -> ValueConfig:
        """The same for the tasks on which it is measured: by replay."""
        return self.model_copy(update={"labels": "replay"})

    def settings(self, training: TrainingSettings) -> ValueTrainingConfig:
        """How it is trained, where students are trained so.

        Raises:
            ValidationError: A key of `training` is wrong.
        """
        own = {"steps": None, "first_steps": None, "epochs": 3.0, **self.training, "method": "sft", "branches": True}
        sft = SFTConfig.model_validate({**SFTConfig.in_place_of(training.model_dump()), **own})
        return ValueTrainingConfig.model_validate(sft.model_dump() | {"compare": self.compare})
