"""The options of teachers, as they stand in a recipe under `teacher`. Read before anything heavy is imported."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from leap.config import Section
from leap.models.providers import ModelConfig, ModelSampling

LEVELS = (0, 25, 50, 75, 100)
"""Privilege levels that have a prompt for model teachers (paper, ablation of privileged information)."""


class TeacherConfig(Section):
    """Options of every teacher: who corrects, with how much privilege, and what.

    Class attributes:
        uses_student: Whether the student's own weights take part in its corrections.
        acts_as: Name of the baseline in which its own actions are executed; may name attributes of the section.
    """

    uses_student: ClassVar[bool] = False
    acts_as: ClassVar[str] = "{0.kind}-{0.privilege}"

    kind: str = Field(default="", description="Registered teacher: expert, model, self, or another package's.")
    privilege: int = Field(
        default=50, ge=0, le=100, description="How far the privileged state may be used; 50 is the paper's."
    )
    episodes: Literal["failures", "all"] = Field(default="failures", description="Which episodes are corrected.")
    failure_score: float = Field(default=0.0, ge=0, le=1, description="An episode is a failure up to this score.")
    labels: int | None = Field(
        default=None, ge=1, description="Correct at most so many steps per iteration, of whole episodes drawn at random."
    )
    drop_leaks: bool = Field(
        default=False, description="Reject corrections whose reason names what the student has not seen."
    )

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The models it asks, beside the student; their calls may be paid for."""
        return ()

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.kind

    @property
    def acting(self) -> str:
        """Name of the baseline in which its own actions are executed, where the run has that baseline."""
        return self.acts_as.format(self)


class PromptedTeacherConfig(TeacherConfig):
    """Options of a teacher that is a language model, asked by a prompt for its level of privilege."""

    verify: bool = Field(
        default=False,
        description="Try each correction in a fresh session, in place of the student's action, and reject it where less is in "
        "reach then.",
    )

    @field_validator("privilege")
    @classmethod
    def _has_a_prompt(cls, privilege: int, info: ValidationInfo) -> int:
        if privilege not in LEVELS:
            raise ValueError(f"a {info.data.get('kind')} teacher knows {', '.join(map(str, LEVELS))}")
        return privilege


class ExpertConfig(TeacherConfig):
    """Options of the environment's scripted teacher."""

    acts_as: ClassVar[str] = "teacher-{0.privilege}"

    kind: Literal["expert"] = Field(default="expert", description="The environment's scripted teacher.")  # type: ignore[assignment]


class SelfTeacherConfig(PromptedTeacherConfig):
    """Options of the student as its own teacher."""

    uses_student: ClassVar[bool] = True

    kind: Literal["self"] = Field(default="self", description="The student's own weights, pi_{i-1}.")  # type: ignore[assignment]


class TeacherSampling(ModelSampling):
    """How a teacher's model answers: a whole episode's corrections need room."""

    max_tokens: int = Field(default=4096, ge=1, description="Longest answer, in tokens; some 100 per step corrected at once.")


class ModelTeacherConfig(PromptedTeacherConfig, ModelConfig):
    """Options of a language model as teacher."""

    acts_as: ClassVar[str] = "{0.model}-{0.privilege}"

    kind: Literal["model"] = Field(default="model", description="A language model.")  # type: ignore[assignment]
    sampling: TeacherSampling = Field(default_factory=TeacherSampling, description="How it answers.")  # type: ignore[assignment]
    by: Literal["trajectory", "step"] = Field(
        default="trajectory", description="It is asked once per episode (the paper), or once per step."
    )
    state: Literal["environment", "extracted"] = Field(
        default="environment",
        description="Privileged state as the environment tells it, or as the model reads it from demonstrations.",
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Longest prompt, in tokens; the oldest steps are left out of longer ones. For models at endpoints three "
        "characters count as one. Null: as the model's context allows, or an endpoint's refusal tells.",
    )

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        return (self,)

    @property
    def label(self) -> str:
        return f"{self.kind} {self.model}"
