"""What every teacher is, what it is built from, and how many episodes are corrected at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Generic, TypeVar

from leap.core import Correction, Episode, PrivilegedState, Rejection, Task
from leap.envs.base import Environment
from leap.envs.live import Live, states_along
from leap.models.base import Model
from leap.models.config import ModelConfig
from leap.policies.rendering import Renderer
from leap.sync import side_by_side
from leap.teachers.asking import UselessAnswers
from leap.teachers.config import PromptedTeacherConfig, TeacherConfig
from leap.teachers.verdict import Verdict

C = TypeVar("C", bound=TeacherConfig)

OnEpisode = Callable[[Episode, list[Correction]], None]
"""Called with each corrected episode and its corrections, as soon as it is done."""


def open_unbooked(section: ModelConfig) -> Model:
    """Opens a model whose calls are booked nowhere."""
    return section.open()


@dataclass(frozen=True, slots=True)
class StudentContext:
    """The student whose episodes are corrected, as its teacher may use it.

    Attributes:
        open: Gives the model with the student's present weights.
        renderer: Makes the student's prompts.
        constrained: Whether the student's answers hold admissible actions alone.
    """

    open: Callable[[], Model]
    renderer: Renderer
    constrained: bool = False


@dataclass(frozen=True, slots=True)
class TeacherContext:
    """What a teacher is built from, beside its own options.

    Attributes:
        environment: Where the episodes were played.
        seed: The recipe's seed.
        open_model: Opens the model that a section names. In a run its calls are booked, counted against the budget and never
            paid for twice, and it stays open as long as the run does.
        student: The student whose episodes are corrected, where there is one.
        states: Texts of privileged states by task key, where they were read from logs; None where the environment tells them.
        attempts: How often a model is asked for a correction that is missing.
    """

    environment: Environment
    seed: int = 0
    open_model: Callable[[ModelConfig], Model] = open_unbooked
    student: StudentContext | None = None
    states: Mapping[str, str] | None = None
    attempts: int = 3

    def opened(self, task: Task) -> Live:
        """A fresh session of a task, to be used with `async with`: for a teacher that tries what comes of an action."""
        return Live(self.environment, task)


class Teacher(ABC, Generic[C]):
    """Maps the student's episodes to corrections.

    Args:
        config: The teacher's own options.
        context: What else it is built from.

    Class attributes:
        Config: The options a recipe may give under `teacher`.

    Attributes:
        name: Name of the teacher, for the record.
        privilege: How far it may use the privileged state, 0..100.
        verdict: Decides which corrections may train. Every correction must come from it.
        concurrency: How many episodes it corrects at once.
        waves: Whether its answers depend, in the last bits, on what else is in their batch; see `leap.policies.Policy`.
        dropped: Steps left out of prompts so far, which would have been too long; over all answered calls.
    """

    Config: ClassVar[type[TeacherConfig]] = TeacherConfig
    name: str
    concurrency: int = 1
    waves: bool = False

    def __init__(self, config: C, context: TeacherContext) -> None:
        self.config = config
        self.context = context
        self.privilege = config.privilege
        self.verdict = Verdict(
            context.environment,
            self.name,
            config.privilege,
            drop_leaks=config.drop_leaks,
            verify=isinstance(config, PromptedTeacherConfig) and config.verify,
        )

    @property
    def dropped(self) -> int:
        """Steps left out of prompts so far."""
        return 0

    @abstractmethod
    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step of the episode, kept or rejected, each rejection with its reason.

        Raises:
            LeapError: The episode cannot be replayed, or the budget is spent.
        """

    async def states(self, episode: Episode) -> list[PrivilegedState]:
        """The privileged state before each step of an episode, from a replay in a fresh session.

        Raises:
            LeapError: The world is no longer the one that the episode was played in.
        """
        return await states_along(self.context.environment, episode)

    async def correct_all(
        self, episodes: Iterable[Episode], on_episode: OnEpisode, *, done: Container[str] = frozenset()
    ) -> None:
        """Corrects many episodes at once.

        An episode that is done makes room for the next; but a model in this process answers all open conversations in one batch,
        so there episodes go in waves, and a wave that was interrupted is done again whole, as in rollouts.

        Args:
            episodes: What to correct, in order.
            on_episode: Gets each episode's corrections.
            done: Keys of episodes on file already; they are not handed on again.

        Raises:
            LeapError: What ended the work: the budget, a world that is another, a teacher of which nothing can be used.
                Episodes under way at that moment are finished and handed on first.
        """
        delivery = _Delivery(on_episode, done, self.name)

        async def correct(episode: Episode) -> None:
            delivery.add(episode, await self.correct(episode))

        if self.waves:
            source = iter(episodes)
            while wave := list(islice(source, self.concurrency)):
                if any(episode.key not in done for episode in wave):
                    await side_by_side(wave, correct, len(wave))
        else:
            await side_by_side((e for e in episodes if e.key not in done), correct, self.concurrency)
        delivery.close()


class _Delivery:
    """Hands corrections on, but holds back those of episodes without a usable answer until one has any: a teacher that
    never answers in the form asked for ends the stage early, and leaves nothing on file that hinders another try."""

    def __init__(self, on_episode: OnEpisode, done: Container[str], teacher: str) -> None:
        self._on_episode = on_episode
        self._done = done
        self._answers = UselessAnswers(teacher)
        self._held: list[tuple[Episode, Sequence[Correction]]] = []

    def add(self, episode: Episode, corrections: Sequence[Correction]) -> None:
        """Takes an episode's corrections.

        Raises:
            ModelError: Nothing could be used of several episodes.
        """
        if corrections:
            self._answers.count(any(one.rejected is not Rejection.TEACHER_ERROR for one in corrections))
        if corrections and not self._answers.any_useful:
            self._held.append((episode, corrections))
            return
        if self._answers.any_useful:
            self.close()
        self._hand_on(episode, corrections)

    def close(self) -> None:
        """Hands on what is still held back."""
        held, self._held = self._held, []
        for episode, corrections in held:
            self._hand_on(episode, corrections)

    def _hand_on(self, episode: Episode, corrections: Sequence[Correction]) -> None:
        if episode.key not in self._done:
            self._on_episode(episode, list(corrections))


def plan_length(state: PrivilegedState) -> int | None:
    """Actions left on an optimal plan; None where none is known."""
    return len(state.plan) if state.plan is not None else None
