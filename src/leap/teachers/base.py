"""What every teacher is, what it is built from, and how many episodes are corrected at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from leap.core import Correction, Episode, PrivilegedState, Rejection, Task
from leap.core.record import Record
from leap.envs.base import Environment
from leap.envs.live import Live, states_along
from leap.models.base import Model
from leap.models.breaker import CircuitBreaker, check_lost
from leap.models.providers import ModelConfig
from leap.policies.base import Policy
from leap.policies.rendering import Renderer
from leap.sync import work_through
from leap.teachers.asking import Asker, failed_calls
from leap.teachers.config import PromptedTeacherConfig, TeacherConfig
from leap.teachers.verdict import Verdict

C = TypeVar("C", bound=TeacherConfig)

OnEpisode = Callable[[Episode, list[Correction]], None]
"""Called with each corrected episode and its corrections, as soon as it is done."""


class Corrected(Record):
    """What a teacher made of one episode.

    Attributes:
        episode: The episode's key.
        corrections: Of its steps.
        error: What the last failed call said, of an episode of which a question stays without an answer for that.
        dropped, cut_off: Steps left out of prompts, and answers cut off, since the episode before was done.
    """

    episode: str
    corrections: tuple[Correction, ...]
    error: str = ""
    dropped: int = 0
    cut_off: int = 0

    @property
    def key(self) -> str:
        """The episode's."""
        return self.episode

    @property
    def useful(self) -> bool:
        """Whether the teacher gave any answer that can be used."""
        return any(one.rejected is not Rejection.TEACHER_ERROR for one in self.corrections)


@dataclass(frozen=True, slots=True)
class StudentContext:
    """The student whose episodes are corrected, as its teacher may use it.

    Attributes:
        open: Gives the model with the student's present weights.
        renderer: Makes the student's prompts.
        constrained: Whether the student's answers hold admissible actions alone.
        policy: Gives the student as it acts in rollouts, but for a temperature that is at least so high.
    """

    open: Callable[[], Model]
    renderer: Renderer
    constrained: bool = False
    policy: Callable[[float], Policy] | None = None


@dataclass(frozen=True, slots=True)
class TeacherContext:
    """What a teacher is built from, beside its own options.

    Attributes:
        environment: Where the episodes were played.
        seed: The recipe's seed.
        open_model: Opens the model that a section names. In a run its calls are booked, counted against the budget and never
            paid for twice, and it stays open as long as the run does.
        student: The student whose episodes are corrected, where there is one.
        states: Texts of privileged states by task key, where they were read from logs; of a teacher in hindsight, accounts of
            episodes that solved the task. None where the environment tells all that is hidden.
        attempts: How often a model is asked for a correction that is missing.
        episodes: How many episodes are corrected in the stage at hand, where that is known.
    """

    environment: Environment
    seed: int = 0
    open_model: Callable[[ModelConfig], Model] = ModelConfig.open
    student: StudentContext | None = None
    states: Mapping[str, str] | None = None
    attempts: int = 3
    episodes: int | None = None

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
        cut_off: Answers of its model so far that ended for want of tokens, before all that was asked for could be read.
        last_answer: Text of the last one.
    """

    Config: ClassVar[type[TeacherConfig]] = TeacherConfig
    name: str
    concurrency: int = 1
    waves: bool = False
    _asker: Asker

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
        return self._asker.dropped if hasattr(self, "_asker") else 0

    @property
    def cut_off(self) -> int:
        """Answers of its model so far that ended too early."""
        return self._asker.cut_off if hasattr(self, "_asker") else 0

    @property
    def last_answer(self) -> str:
        """Text of its model's last answer."""
        return self._asker.last if hasattr(self, "_asker") else ""

    def _asking(self, model: Model, limit: int | None = None) -> Asker:
        """Takes as many episodes at once as a model that it asks; returns what asks it."""
        self.concurrency, self.waves = model.concurrency, model.in_process
        return Asker(model, limit=limit, attempts=self.context.attempts, seed=self.context.seed)

    @abstractmethod
    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step of the episode, kept or rejected, each rejection with its reason.

        Raises:
            LeapError: The episode cannot be replayed, or the budget is spent.
        """

    async def states(self, episode: Episode) -> list[PrivilegedState]:
        """The privileged state before each step of an episode, from a replay in a fresh session; see `states_along`."""
        return await states_along(self.context.environment, episode)

    async def correct_all(
        self,
        episodes: Iterable[Episode],
        on_episode: OnEpisode,
        *,
        done: Container[str] = frozenset(),
        lost_share: float = 1.0,
    ) -> None:
        """Corrects many episodes at once.

        An episode that is done makes room for the next; but a model in this process answers all open conversations in one batch,
        so there episodes go in waves, and a wave that was interrupted is done again whole, as in rollouts. Corrections without
        a usable answer are held back until any has one: a teacher that never answers in the form asked for ends the stage early,
        and leaves nothing on file that hinders another try. So are those of episodes of which a question stays without an answer
        since calls failed, until all is corrected.

        Args:
            episodes: What to correct, in order.
            on_episode: Gets each episode's corrections.
            done: Keys of episodes on file already; they are not handed on again.
            lost_share: The share of the episodes that may be lost to failed calls; they are handed on, too, where no more are.

        Raises:
            LeapError: What ended the work, after the episodes under way: the budget, a world that is another, a teacher of which
                nothing can be used or that has stopped answering, too many episodes that are lost.
        """
        episodes = list(episodes)
        by_key = {episode.key: episode for episode in episodes}
        keeper = Keeper(
            self.name, len(episodes), lambda made: on_episode(by_key[made.key], [*made.corrections]), lost_share
        )
        await self.correct_each(episodes, keeper.take, done=done)
        keeper.end()

    async def correct_each(
        self, episodes: Sequence[Episode], hand_on: Callable[[Corrected], None], *, done: Container[str] = frozenset()
    ) -> None:
        """Corrects many episodes at once and hands on each as soon as it is done, whatever came of it; see `correct_all`."""
        breaker, told = CircuitBreaker(self.name), (self.dropped, self.cut_off)

        async def correct(episode: Episode) -> None:
            nonlocal told
            with failed_calls() as failed:
                corrections = await self.correct(episode)
            if episode.key in done:
                return
            error, before, told = failed[-1] if failed else "", told, (self.dropped, self.cut_off)
            dropped, cut_off = told[0] - before[0], told[1] - before[1]
            made = Corrected(
                episode=episode.key, corrections=tuple(corrections), error=error, dropped=dropped, cut_off=cut_off
            )
            hand_on(made)
            breaker.count(error)

        await work_through(
            episodes, correct, self.concurrency, waves=self.waves, wanted=lambda episode: episode.key not in done
        )


class Keeper:
    """Corrections as they come, from whatever process, until they may be kept; see `Teacher.correct_all`.

    Args:
        who: The teacher.
        of: How many episodes are to be corrected in all.
        keep: Takes those that may be kept.
        lost_share: The share of the episodes that may be lost to failed calls.
    """

    def __init__(self, who: str, of: int, keep: Callable[[Corrected], None], lost_share: float) -> None:
        self._who, self._of, self._keep, self._lost_share = who, of, keep, lost_share
        self._breaker = CircuitBreaker(who)
        self._held, self._lost = list[Corrected](), list[Corrected]()

    def take(self, made: Corrected) -> None:
        """Takes what was made of one episode."""
        (self._lost if made.error else self._held).append(made)
        if made.useful or self._breaker.any_useful:
            self._hand_on()
        self._breaker.count(made.error, useful=made.useful if made.corrections else None)

    def end(self) -> None:
        """All are corrected: hands on what was held back.

        Raises:
            ModelError: More are lost than may be.
        """
        check_lost(self._who, [made.error for made in self._lost], self._of, self._lost_share)
        self._held += self._lost
        self._hand_on()

    def _hand_on(self) -> None:
        ready, self._held = self._held, []
        for made in ready:
            self._keep(made)
