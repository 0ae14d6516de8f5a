"""The keys of a recipe's section `demonstrations`, which depend on where D_0 comes from. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from leap.config import Section
from leap.core import Episode
from leap.models.config import ModelConfig


class DemonstrationConfig(Section):
    """What every source of demonstrations is told."""

    source: str = Field(default="tutor", alias="from", description="tutor, model, file or none.")

    @model_serializer(mode="wrap")
    def _by_its_key(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The section as a recipe states it: `from` is a word of Python's and can be no attribute."""
        return {("from" if name == "source" else name): value for name, value in dump(self).items()}

    @property
    def none(self) -> bool:
        """Whether there is no D_0, so that pi_0 is the base model."""
        return False

    @property
    def who(self) -> str:
        """Who plays, for people."""
        return self.source

    @property
    def fingerprint(self) -> str:
        """Names what D_0 depends on beside these keys; empty where there is nothing."""
        return ""

    @property
    def state_level(self) -> int:
        """Privilege at which D_0 is also shown with the privileged state in the prompt; 0 where it is not."""
        return 0

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The models that are asked; their calls may be paid for."""
        return ()

    @property
    def kept_by(self) -> str:
        """The key that says which episodes are cloned."""
        return ""

    def keeps(self, episode: Episode) -> bool:
        """Whether an episode is cloned."""
        return False


class NoDemonstrationConfig(DemonstrationConfig):
    """No D_0."""

    @property
    def none(self) -> bool:
        """True: pi_0 is the base model."""
        return True


class PlayedConfig(DemonstrationConfig):
    """Options of all sources but `none`."""

    episodes: int | None = Field(default=None, ge=1, description="How many training tasks are played; all by default.")
    labels: int | None = Field(
        default=None, ge=1, description="Clone at most so many steps, of whole episodes; all by default."
    )
    annotate: ModelConfig | None = Field(
        default=None, description="A model that writes reasons at steps that have none; none does if null."
    )

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The model that writes reasons, where there is one."""
        return (self.annotate,) if self.annotate else ()


class TutorDemonstrationConfig(PlayedConfig):
    """The environment's scripted expert plays D_0."""

    successes_only: bool = Field(default=True, description="Clone only episodes that solved their task.")
    privilege: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Above 0 the environment's privileged teacher plays them (the paper's rebuttal baseline).",
    )
    with_state: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Above 0, D_0 also holds the environment's teacher's play of the same tasks at that privilege, the "
        "privileged state in the prompt: what a student that never saw one needs to be its own teacher.",
    )

    @property
    def who(self) -> str:
        """The scripted expert."""
        return "the expert"

    @property
    def state_level(self) -> int:
        """Privilege at which D_0 is also shown with the privileged state in the prompt."""
        return self.with_state

    @property
    def kept_by(self) -> str:
        """The key that says which episodes are cloned."""
        return "demonstrations.successes_only"

    def keeps(self, episode: Episode) -> bool:
        """Whether an episode is cloned."""
        return episode.success or not self.successes_only


class ScoredConfig(PlayedConfig):
    """Options of sources that may play badly."""

    min_score: float = Field(default=1.0, ge=0, le=1, description="Clone only episodes of at least this score.")

    @property
    def kept_by(self) -> str:
        """The key that says which episodes are cloned."""
        return "demonstrations.min_score"

    def keeps(self, episode: Episode) -> bool:
        """Whether an episode is cloned."""
        return episode.score >= self.min_score


class ModelDemonstrationConfig(ScoredConfig, ModelConfig):
    """A language model plays D_0, without the privileged state."""

    @property
    def who(self) -> str:
        """The model's name."""
        return self.model

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The model that plays, and the one that writes reasons, where there is one."""
        return (self, *super().models)


class FileDemonstrationConfig(ScoredConfig):
    """Decisions on file are played again."""

    path: Path = Field(description="JSON Lines: episodes of leap's, or chats (docs/demonstrations.md).")

    @property
    def who(self) -> str:
        """The file."""
        return f"file {self.path.name}"

    @property
    def fingerprint(self) -> str:
        """Names the file's contents."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest() if self.path.is_file() else ""
