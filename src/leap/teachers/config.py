"""The options of teachers, as they stand in a recipe under `teacher`. Read before anything heavy is imported."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from leap.models.base import Sampling
from leap.models.endpoint_config import EndpointConfig
from leap.teachers.levels import LEVELS


class TeacherConfig(BaseModel):
    """Options of every teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    privilege: int = Field(
        default=50, ge=0, le=100, description="How far the privileged state may be used; 50 is the paper's."
    )
    drop_leaks: bool = Field(
        default=False, description="Reject corrections whose reason names what the student has not seen."
    )


class PromptedTeacherConfig(TeacherConfig):
    """Options of a teacher that is a language model, asked by a prompt for its level of privilege."""

    verify: bool = Field(
        default=False,
        description="Try each correction in a fresh session, in place of the student's action, and reject it where less is in "
        "reach then.",
    )


class ExpertConfig(TeacherConfig):
    """Options of the environment's scripted teacher."""

    @field_validator("privilege")
    @classmethod
    def _has_a_prompt(cls, privilege: int) -> int:
        if privilege not in LEVELS:
            raise ValueError(f"a language model is told how to teach at {', '.join(map(str, LEVELS))} alone")
        return privilege


class SelfTeacherConfig(PromptedTeacherConfig):
    """Options of the student as its own teacher."""


class TeacherSampling(Sampling):
    """How a teacher's model answers: a whole episode's corrections need room."""

    temperature: float = Field(default=0.0, ge=0, description="0 takes the likeliest token.")
    max_tokens: int = Field(default=4096, ge=1, description="Longest answer, in tokens; some 100 per step corrected at once.")


class ModelTeacherConfig(PromptedTeacherConfig):
    """Options of a language model as teacher."""

    model: str = Field(description="`provider/model`, for example openai/gpt-4o.")
    endpoint: EndpointConfig = Field(default_factory=EndpointConfig, description="Where that model is.")
    sampling: TeacherSampling = Field(default_factory=TeacherSampling, description="How it answers.")
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
