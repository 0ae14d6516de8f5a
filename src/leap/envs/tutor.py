"""An environment's optional scripted knowledge: an expert that plays without privilege, a teacher that corrects with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar

from leap.core import Decision, Episode, History, PrivilegedState, Task
from leap.envs.base import Environment
from leap.envs.live import Live, states_along
from leap.errors import PrerequisiteError

E = TypeVar("E", bound=Environment, covariant=True)


class Expert(Protocol):
    """A programmatic policy that plays from what it has seen (an unprivileged expert). Made anew for each episode."""

    def decide(self, history: History) -> Decision:
        """The next reason and action. Histories come in order, each extending the last, but may be of any policy."""
        ...


class Taught(NamedTuple):
    """What the scripted teacher says at one step of an episode: h_t, s_t and its decision, None where all is lost."""

    history: History
    privileged: PrivilegedState
    decision: Decision | None


class Tutor(Generic[E]):
    """Scripted knowledge of one environment. A tutor may have an expert, a corrector or both.

    Class attributes:
        blocking: Whether its methods take their time (commands in a box), so that they run in a thread.
        idle: By name, actions that do nothing for the task and score all the same. Where there are any, they are evaluated
            too, and told beside every mean score.
    """

    blocking: ClassVar[bool] = False
    idle: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init__(self, environment: E) -> None:
        self.environment = environment

    @property
    def plays(self) -> bool:
        """Whether there is an unprivileged expert."""
        return type(self).expert is not Tutor.expert

    @property
    def corrects(self) -> bool:
        """Whether there is a scripted teacher."""
        return type(self).correct is not Tutor.correct

    def expert(self, task: Task) -> Expert:
        """A fresh unprivileged expert for a task: the source of demonstrations, and a baseline."""
        raise PrerequisiteError(f"{self.environment.name} has no scripted expert.")

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        """The programmatic teacher: what to think and do at the student's state (paper: r~_t, a~_t ~ pi^E(. | h_t, s_t)).

        Args:
            history: The student's own history.
            privileged: The privileged state at that moment.
            privilege: 0..100, how far the privileged state may be used. At 0 it must not matter.

        Returns:
            A decision, or None where nothing can succeed any more.
        """
        raise PrerequisiteError(f"{self.environment.name} has no scripted teacher.")

    async def correct_along(self, episode: Episode, privilege: int) -> list[Taught]:
        """The programmatic teacher on every step of an episode. A teacher that also looks at what came of the student's own
        action overrides it.

        Raises:
            LeapError: The episode cannot be replayed.
        """
        taught = []
        for t, state in enumerate(await states_along(self.environment, episode)):
            history = episode.history(t)
            taught.append(Taught(history, state, self.correct(history, state, privilege)))
        return taught

    async def roll_in(self, history: History, action: str, left: int) -> float:
        """The score that is still in reach once an action is taken at the end of the student's history, of so many actions left
        with it: what the privileged plan brings from there in a fresh session, if there is one and time for all of it. A tutor
        that knows better overrides it."""
        async with Live(self.environment, history.task) as session:
            for taken in history.actions:
                await session.act(taken)
            outcome = await session.act(action)
            plan = () if outcome.done else (await session.privileged()).plan or ()
            for following in plan if len(plan) < left else ():
                if not outcome.done:
                    outcome = await session.act(following)
        return 1.0 if outcome.success else outcome.score


def scripts(environment: Environment) -> Tutor[Environment]:
    """The tutor of an environment.

    Raises:
        PrerequisiteError: It has none.
    """
    if environment.tutor is None:
        raise PrerequisiteError(f"{environment.name} has no tutor: no scripted expert and no scripted teacher.")
    return environment.tutor


async def roll_in(environment: Environment, history: History, action: str, left: int) -> float:
    """`Tutor.roll_in` of the environment's tutor; where there is none, what following the privileged plan brings."""
    return await (environment.tutor or Tutor(environment)).roll_in(history, action, left)
