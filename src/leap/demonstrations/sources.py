"""Where the demonstrations D_0 come from: one class for each source that a recipe can name, with the keys that it takes.

To add a source, register a class like these (`leap.demonstrations` is its entry-point group), with a `Config` of its own.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Generic, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from leap.config import Section
from leap.core import Actor, Decision, Episode, History, Task
from leap.demonstrations.files import files_of, read_decisions
from leap.envs.base import Environment
from leap.errors import LeapError, PrerequisiteError
from leap.models.base import Model
from leap.models.providers import ModelConfig, ModelSampling
from leap.policies.base import UNPARSED, Act, ExpertPolicy, Peek, Player, Policy, TeacherPolicy
from leap.policies.model import ModelPolicy
from leap.policies.rendering import PromptConfig, Renderer

Level = Annotated[int, Field(ge=0, le=100)]


class DemonstrationConfig(Section):
    """What every source of demonstrations is told.

    Class attributes:
        none: Whether there is no D_0, so that pi_0 is the base model.
        player: Who plays, for people; may name attributes of the section.
        kept_by: The key that says which episodes are cloned.
    """

    none: ClassVar[bool] = False
    player: ClassVar[str] = "{0.source}"
    kept_by: ClassVar[str] = ""

    source: str = Field(default="tutor", alias="from", description="tutor, model, file or none.")

    @model_serializer(mode="wrap")
    def _by_its_key(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        """The section as a recipe states it: `from` is a word of Python's and can be no attribute."""
        return {("from" if name == "source" else name): value for name, value in dump(self).items()}

    @property
    def who(self) -> str:
        """Who plays, for people."""
        return self.player.format(self)

    @property
    def fingerprint(self) -> str:
        """Names what D_0 depends on beside these keys; empty where there is nothing."""
        return ""

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The models that are asked; their calls may be paid for."""
        return ()

    def keeps(self, episode: Episode) -> bool:
        """Whether an episode is cloned."""
        return False


class AnnotatorSampling(ModelSampling):
    """How a model that writes reasons answers: for a whole demonstration at once."""

    max_tokens: int = Field(default=4096, ge=1, description="Longest answer, in tokens; some 50 per step.")


class AnnotatorConfig(ModelConfig):
    """A model that writes reasons into demonstrations."""

    sampling: AnnotatorSampling = Field(default_factory=AnnotatorSampling, description="How it answers.")  # type: ignore[assignment]
    replace: bool = Field(
        default=False, description="Write them at every step, in place of the scripted expert's own (the paper: actions alone)."
    )


class PlayedConfig(DemonstrationConfig):
    """Options of all sources but `none`."""

    episodes: int | None = Field(default=None, ge=1, description="How many training tasks are played; all by default.")
    labels: int | None = Field(
        default=None, ge=1, description="Clone at most so many steps, of whole episodes; all by default."
    )
    annotate: AnnotatorConfig | None = Field(
        default=None, description="A model that writes reasons at steps that have none; none does if null."
    )
    in_hindsight: Level = Field(
        default=0,
        exclude_if=operator.not_,
        description="Above 0, D_0 also holds each demonstration that solved its task with an account of it in the prompt, at "
        "that privilege: what a student that never saw one needs to be its own teacher in hindsight.",
    )

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        return (self.annotate,) if self.annotate else ()


class ScoredConfig(PlayedConfig):
    """Options of sources that may play badly."""

    kept_by: ClassVar[str] = "demonstrations.min_score"

    min_score: float = Field(default=1.0, ge=0, le=1, description="Clone only episodes of at least this score.")

    def keeps(self, episode: Episode) -> bool:
        return episode.score >= self.min_score


class TutorDemonstrationConfig(PlayedConfig):
    """The environment's scripted expert plays D_0."""

    player: ClassVar[str] = "the expert"
    kept_by: ClassVar[str] = "demonstrations.successes_only"

    successes_only: bool = Field(default=True, description="Clone only episodes that solved their task.")
    privilege: Level = Field(
        default=0,
        description="Above 0 the environment's privileged teacher plays them (the paper's rebuttal baseline).",
    )
    with_state: Level = Field(
        default=0,
        description="Above 0, D_0 also holds the environment's teacher's play of the same tasks at that privilege, the "
        "privileged state in the prompt: what a student that never saw one needs to be its own teacher.",
    )

    def keeps(self, episode: Episode) -> bool:
        return episode.success or not self.successes_only


class ModelDemonstrationConfig(ScoredConfig, ModelConfig):
    """A language model plays D_0, without the privileged state."""

    player: ClassVar[str] = "{0.model}"

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        return (self, *super().models)


class FileDemonstrationConfig(ScoredConfig):
    """Decisions on file are played again."""

    player: ClassVar[str] = "file {0.path.name}"

    path: Path = Field(
        description="JSON Lines, or a folder: episodes of leap's, chats, trajectories in ATIF (docs/demonstrations.md)."
    )

    @property
    def fingerprint(self) -> str:
        files = [file.read_bytes() for file in files_of(self.path)] if self.path.exists() else []
        return hashlib.sha256(b"\0".join(files)).hexdigest() if files else ""


class NoDemonstrationConfig(DemonstrationConfig):
    """No D_0."""

    none: ClassVar[bool] = True


C = TypeVar("C", bound=DemonstrationConfig)


@dataclass(eq=False)
class Source(Generic[C]):
    """A source of demonstrations.

    Attributes:
        Config: The keys that a recipe may give.
        config: Its own keys of the recipe.
        environment: Where the demonstrations are played.
        split: The training split.
    """

    Config: ClassVar[type[DemonstrationConfig]]

    config: C
    environment: Environment
    split: str

    def check(self) -> None:
        """Finds out whether there can be demonstrations, before anything is played.

        Raises:
            PrerequisiteError: There cannot; the message says what to do.
        """

    def tasks(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Those of some training tasks that can be demonstrated."""
        return tasks

    @property
    def actor(self) -> Actor:
        """Who plays, for the record."""
        raise LeapError(f"demonstrations.from: {self.config.source} has nobody play.")

    def policy(self, open_model: Callable[[ModelConfig], Model]) -> Policy:
        """Makes the player; whoever gives `open_model` closes what it opens."""
        raise LeapError(f"demonstrations.from: {self.config.source} has nobody play.")


class FromTutor(Source[TutorDemonstrationConfig]):
    """The environment's scripted expert, or its teacher at a privilege above 0."""

    Config = TutorDemonstrationConfig

    def check(self) -> None:
        tutor = self.environment.tutor
        if tutor is None or not (tutor.corrects if self.config.privilege else tutor.plays):
            raise PrerequisiteError(
                f"{self.environment.name} has no scripted expert to play demonstrations. Set demonstrations.from: none, and "
                "start from a model that can already act; or from: model, or from: file."
            )

    @property
    def actor(self) -> Actor:
        return self._policy.actor

    def policy(self, open_model: Callable[[ModelConfig], Model]) -> Policy:
        return self._policy

    @property
    def _policy(self) -> Policy:
        level = self.config.privilege
        return TeacherPolicy(self.environment, level) if level else ExpertPolicy(self.environment)


class FromModel(Source[ModelDemonstrationConfig]):
    """A language model that plays without fine-tuning and without the privileged state, shown the rules and the candidates."""

    Config = ModelDemonstrationConfig

    @property
    def actor(self) -> Actor:
        return Actor(name=self.config.model)

    def policy(self, open_model: Callable[[ModelConfig], Model]) -> Policy:
        model, environment = open_model(self.config), self.environment
        whole = Renderer(PromptConfig(renderer="paper"), environment.prompts_of, grammar_of=environment.grammar_of)
        return ModelPolicy(model, whole.limited(model.room, model.length), self.actor, untrained=True)


class FromFile(Source[FileDemonstrationConfig]):
    """Decisions on file, played again (docs/demonstrations.md). What a chat's assistant said is read by the environment's
    grammar, and what the environment shows then is what is trained on: a demonstration cannot disagree with the world."""

    Config = FileDemonstrationConfig

    def check(self) -> None:
        _ = self._decisions

    def tasks(self, tasks: Sequence[Task]) -> Sequence[Task]:
        return [task for task in tasks if task.id in self._decisions]

    @property
    def actor(self) -> Actor:
        return Actor(name="file", checkpoint=self.config.fingerprint[:16])

    def policy(self, open_model: Callable[[ModelConfig], Model]) -> Policy:
        return Recorded(self._decisions, self.actor)

    @cached_property
    def _decisions(self) -> dict[str, list[Decision]]:
        """The decisions on file by task id, read once."""
        return read_decisions(self.config.path, self.environment, self.split)


class FromNowhere(Source[NoDemonstrationConfig]):
    """No D_0: pi_0 is the base model."""

    Config = NoDemonstrationConfig


# ---- a file of demonstrations ---------------------------------------------------------------------------------------


@dataclass
class Recorded:
    """A policy that takes the decisions of a file (by task id), each in its task's episode at its step."""

    decisions: Mapping[str, list[Decision]]
    actor: Actor
    privileged: bool = False
    waves: bool = False
    concurrency: int = 16

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        yield self

    async def decide(self, history: History) -> Act:
        """The decision on file for this step; behind the last one, an action that does nothing."""
        decisions, t = self.decisions[history.task.id], len(history.actions)
        return Act(decisions[t]) if t < len(decisions) else Act(Decision(reason="", action=UNPARSED), parsed=False)
