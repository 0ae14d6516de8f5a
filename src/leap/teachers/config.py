"""The options of teachers, as they stand in a recipe under `teacher`. Read before anything heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from leap.config import Section
from leap.models.engine import ServeConfig
from leap.models.providers import Ask, ModelConfig, ModelSampling, split_name

if TYPE_CHECKING:
    from leap.envs.base import Environment

LEVELS = (0, 25, 50, 75, 100)
"""Privilege levels that have a prompt for model teachers (paper, ablation of privileged information)."""


class StudentsPart(NamedTuple):
    """What the student does for the corrections of one episode, at most: conversations that it begins, answers, and actions
    executed in the environment."""

    conversations: float
    answers: float
    actions: float


class TeacherConfig(Section):
    """Options of every teacher: who corrects, with how much privilege, and what.

    Class attributes:
        uses_student: Whether the student's own weights take part in its corrections.
        acts_as: Name of the baseline in which its own actions are executed; may name attributes of the section.
    """

    uses_student: ClassVar[bool] = False
    acts_as: ClassVar[str] = "{0.kind}-{0.privilege}"

    kind: str = Field(default="", description="Registered teacher: expert, model, self, search, or another package's.")
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

    def students_part(self, steps: int) -> StudentsPart | None:
        """What the student does for an episode of so many steps; None where it takes no part."""
        return None

    def lacks(self, environment: Environment) -> str:
        """Says what it needs of an environment that is not there, and what to do; empty where nothing is missing."""
        return ""

    @property
    def acting(self) -> str:
        """Name of the baseline in which its own actions are executed, where the run has that baseline."""
        return self.acts_as.format(self)


class LevelledTeacherConfig(TeacherConfig):
    """Options of a teacher that asks a language model by a prompt for its level of privilege."""

    @field_validator("privilege")
    @classmethod
    def _has_a_prompt(cls, privilege: int, info: ValidationInfo) -> int:
        if privilege not in LEVELS:
            raise ValueError(f"a {info.data.get('kind')} teacher knows {', '.join(map(str, LEVELS))}")
        return privilege


class PromptedTeacherConfig(LevelledTeacherConfig):
    """Options of a teacher that is a language model."""

    verify: bool = Field(
        default=False,
        description="Try each correction in a fresh session, in place of the student's action, and reject it where less is in "
        "reach then.",
    )


class ExpertConfig(TeacherConfig):
    """Options of the environment's scripted teacher."""

    acts_as: ClassVar[str] = "teacher-{0.privilege}"

    kind: Literal["expert"] = Field(default="expert", description="The environment's scripted teacher.")  # type: ignore[assignment]

    def lacks(self, environment: Environment) -> str:
        if (tutor := environment.tutor) is not None and tutor.corrects:
            return ""
        return f"{environment.name} has no scripted teacher; set teacher.kind: model, self or search."


class SelfTeacherConfig(PromptedTeacherConfig):
    """Options of the student as its own teacher."""

    uses_student: ClassVar[bool] = True

    kind: Literal["self"] = Field(default="self", description="The student's own weights, pi_{i-1}.")  # type: ignore[assignment]
    state: Literal["environment", "hindsight"] = Field(
        default="environment",
        exclude_if=lambda state: state == "environment",
        description="Privileged state as the environment tells it, or in its place the shortest attempt on file that solved the "
        "task; where none has, nothing is corrected.",
    )

    def students_part(self, steps: int) -> StudentsPart:
        return StudentsPart(1, steps, steps)


class SearchConfig(LevelledTeacherConfig):
    """Options of search by the student itself."""

    uses_student: ClassVar[bool] = True

    kind: Literal["search"] = Field(  # type: ignore[assignment]
        default="search", description="Tries the student's own answers in copies of the session."
    )
    answers: int = Field(
        default=4,
        ge=1,
        description="Answers of the student at each step; half of them with the privileged state in the prompt, where there is "
        "one and the privilege is above 0.",
    )
    temperature: float = Field(
        default=1.0, ge=0, description="At which all but the first are drawn, where that is warmer than in rollouts."
    )
    roll_in: Literal["student", "expert", "tutor"] = Field(
        default="student",
        description="Who goes on behind an action that is tried: the student, the environment's expert, or its tutor, which "
        "without a script of its own follows the privileged plan.",
    )
    attempts: int = Field(
        default=0,
        ge=0,
        description="Attempts of the student at each task from its beginning, at that temperature. What solved the task is done "
        "again from each step of the episode, with whatever is in vain left out, and the student is not asked for that.",
    )
    depth: int | None = Field(
        default=None, ge=1, description="Most actions of a trial, the one that is tried included; to the horizon if null."
    )
    rolls: int = Field(default=1, ge=1, description="Trials of each action; their mean counts.")
    discount: float = Field(
        default=0.97, gt=0, le=1, description="What is left of a score for each action that it takes; 1: time does not count."
    )
    most_steps: int = Field(
        default=5000, ge=1, description="Most actions executed for one episode, those that only lead to a step included."
    )
    stage_steps: int | None = Field(
        default=None, ge=1, description="The same for all episodes of an iteration; each has an equal share of it."
    )

    def students_part(self, steps: int) -> StudentsPart:
        trials = steps * self.answers * self.rolls
        executed = min(self.most_steps, trials * steps)
        goes_on = min(executed, trials * (steps + 1) / 2) if self.roll_in == "student" else 0
        tried = self.attempts * steps  # and from each step some ways again, of about as many actions
        again = min(self.most_steps, 2 * tried * steps)
        return StudentsPart(self.answers + trials + self.attempts, self.answers * steps + goes_on + tried, executed + again)

    def lacks(self, environment: Environment) -> str:
        if self.roll_in != "expert" or ((tutor := environment.tutor) is not None and tutor.plays):
            return ""
        return f"{environment.name} has no scripted expert; set teacher.roll_in: student."

    @model_validator(mode="after")
    def _has_answers_to_go_on_with(self) -> Self:
        if self.rolls > (plain := self.answers - self.answers // 2):
            raise ValueError(f"rolls: {self.rolls} trials of an action need as many answers without privilege; here are {plain}")
        return self


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
    state: Literal["environment", "extracted", "hindsight"] = Field(
        default="environment",
        description="Privileged state as the environment tells it, as the model reads it from demonstrations, or what is known "
        "of the episode once it is over: its course, its score, and another one that solved the task.",
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Longest prompt, in tokens; the oldest steps are left out of longer ones. For models at endpoints three "
        "characters count as one. Null: as the model's context allows, or an endpoint's refusal tells.",
    )
    serve: ServeConfig | None = Field(
        default=None,
        description="ray: replicas on the run's Ray cluster answer for a model of `vllm/`, not a server on this machine.",
    )

    @model_validator(mode="after")
    def _can_be_served(self) -> Self:
        if self.serve is not None and split_name(self.model)[0] != "vllm":
            raise ValueError(f"serve: vLLM serves weights, so the model is vllm/NAME, not {self.model}")
        return self

    def check(self) -> Ask | None:
        """See `ModelConfig.check`; what serves the model on a cluster is looked for by the executor."""
        return None if self.serve is not None else super().check()

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        return (self,)

    @property
    def label(self) -> str:
        return f"{self.kind} {self.model}"
