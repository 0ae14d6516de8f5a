"""Who plays the demonstrations, D_0: one class for each source that a recipe can name.

To add a source, register a class like these (`leap.demonstrations` is its entry-point group), with a `Config` of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

from leap.core import Actor, Decision, Task
from leap.demonstrations.config import (
    DemonstrationConfig,
    FileDemonstrationConfig,
    ModelDemonstrationConfig,
    NoDemonstrationConfig,
    TutorDemonstrationConfig,
)
from leap.demonstrations.file import Recorded, read_decisions
from leap.envs.base import Environment
from leap.errors import LeapError, PrerequisiteError
from leap.models.base import Model
from leap.models.config import ModelConfig
from leap.policies.base import ExpertPolicy, Policy, TeacherPolicy
from leap.policies.model import ModelPolicy
from leap.policies.rendering import PromptConfig, Renderer

C = TypeVar("C", bound=DemonstrationConfig)


class Source(ABC, Generic[C]):
    """A source of demonstrations.

    Args:
        config: Its own keys of the recipe.
        environment: Where the demonstrations are played.
        split: The training split.

    Class attributes:
        Config: The keys that a recipe may give.
    """

    Config: ClassVar[type[DemonstrationConfig]]

    def __init__(self, config: C, environment: Environment, split: str) -> None:
        self.config = config
        self.environment = environment
        self.split = split

    def check(self) -> None:
        """Finds out whether there can be demonstrations, before anything is played.

        Raises:
            PrerequisiteError: There cannot; the message says what to do.
        """

    def tasks(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Those of some training tasks that can be demonstrated."""
        return tasks

    @property
    @abstractmethod
    def actor(self) -> Actor:
        """Who plays, for the record."""

    @abstractmethod
    def policy(self, open_model: Callable[[ModelConfig], Model]) -> Policy:
        """Makes the player.

        Args:
            open_model: Opens a model; who opens it closes it.
        """


class FromTutor(Source[TutorDemonstrationConfig]):
    """The environment's scripted expert, or its privileged teacher."""

    Config = TutorDemonstrationConfig

    def check(self) -> None:
        """Refuses an environment without such scripts."""
        tutor = self.environment.tutor
        if tutor is None or not (tutor.corrects if self.config.privilege else tutor.plays):
            raise PrerequisiteError(
                f"{self.environment.name} has no scripted expert to play demonstrations. Set demonstrations.from: none, and "
                "start from a model that can already act; or from: model, or from: file."
            )

    @property
    def actor(self) -> Actor:
        """The expert, or the teacher at its privilege."""
        return self._policy().actor

    def policy(self, open_model: Callable[[ModelConfig], Model]) -> Policy:
        """The expert, or the teacher at its privilege."""
        return self._policy()

    def _policy(self) -> Policy:
        level = self.config.privilege
        return TeacherPolicy(self.environment, level) if level else ExpertPolicy(self.environment)


class FromModel(Source[ModelDemonstrationConfig]):
    """A language model that plays without fine-tuning and without the privileged state."""

    Config = ModelDemonstrationConfig

    @property
    def actor(self) -> Actor:
        """The model, by its name."""
        return Actor(name=self.config.model)

    def policy(self, open_model: Callable[[ModelConfig], Model]) -> Policy:
        """The model, shown the rules of the world and the candidates."""
        model = open_model(self.config)
        whole = Renderer(
            PromptConfig(renderer="paper"), self.environment.prompts_of, grammar_of=self.environment.grammar_of
        )
        return ModelPolicy(model, whole.limited(model.room, model.length), self.actor)


class FromFile(Source[FileDemonstrationConfig]):
    """Decisions on file, played again."""

    Config = FileDemonstrationConfig

    def check(self) -> None:
        """Reads the file."""
        _ = self._decisions

    def tasks(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """The tasks of which the file holds decisions."""
        return [task for task in tasks if task.id in self._decisions]

    @property
    def actor(self) -> Actor:
        """The file, by its contents."""
        return Actor(name="file", checkpoint=self.config.fingerprint[:16])

    def policy(self, open_model: Callable[[ModelConfig], Model]) -> Policy:
        """Who takes the decisions of the file."""
        return Recorded(self._decisions, self.actor)

    @cached_property
    def _decisions(self) -> dict[str, list[Decision]]:
        """The decisions on file by task id, read once."""
        return read_decisions(self.config.path, self.environment, self.split)


class FromNowhere(Source[NoDemonstrationConfig]):
    """No D_0: pi_0 is the base model."""

    Config = NoDemonstrationConfig

    @property
    def actor(self) -> Actor:
        """Nobody plays."""
        raise LeapError("demonstrations.from: none has nobody play.")

    def policy(self, open_model: Callable[[ModelConfig], Model]) -> Policy:
        """Nobody plays."""
        raise LeapError("demonstrations.from: none has nobody play.")
