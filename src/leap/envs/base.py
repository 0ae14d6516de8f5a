"""The contract of an environment, and the registry. To add an environment, implement `Environment` and `Session` in
your own package and name the class in its entry points:

    [project.entry-points."leap.environments"]
    my_world = "my_package.my_world:MyWorld"

`examples/tiny_world.py` is a complete one in a single file.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from leap.core import Decision, Episode, History, Observation, PrivilegedState, Task
from leap.errors import LeapError, PrerequisiteError, RecipeError, describe_validation_error

ENTRY_POINT_GROUP = "leap.environments"

T = TypeVar("T")


class Outcome(NamedTuple):
    """What came of an action.

    Attributes:
        observation: What is shown now.
        reward: The environment's reward for this action.
        done: Whether the environment has ended the episode.
        success: Whether the task is solved.
        score: The score the episode would get if it ended now, in [0, 1].
        parts: What that score is made of, by name, where the environment can say; the same names after every action of a task.
    """

    observation: Observation
    reward: float = 0.0
    done: bool = False
    success: bool = False
    score: float = 0.0
    parts: Mapping[str, float] = MappingProxyType({})


class Finding(NamedTuple):
    """What a check of data found.

    Attributes:
        ok: Whether it is as it should be.
        text: What was found, for people.
    """

    ok: bool
    text: str


class Session(ABC):
    """One playthrough of one task. Made by `Environment.start`, used once, then closed.

    Class attributes:
        repeats: Whether the same actions always show the same, byte for byte. A replay insists on it where they do.
    """

    repeats: ClassVar[bool] = True

    @abstractmethod
    def observe(self) -> Observation:
        """The first observation, o_0."""

    @abstractmethod
    def act(self, action: str) -> Outcome:
        """Takes an action. Any string is allowed; one that makes no sense costs a step and changes nothing."""

    @abstractmethod
    def privileged(self) -> PrivilegedState:
        """The privileged state at this very moment. Teachers call it; nothing that renders a prompt for students can."""

    def close(self) -> None:  # noqa: B027 - most sessions hold nothing
        """Frees what the session holds. Called once, also after an error."""


class Expert(Protocol):
    """A programmatic policy that plays from what it has seen (an unprivileged expert). Made anew for each episode."""

    def decide(self, history: History) -> Decision:
        """The next reason and action. Histories come in order, each extending the last, but may be of any policy."""
        ...


class EnvironmentConfig(BaseModel):
    """Base of an environment's options in a recipe. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Environment(ABC):
    """A family of tasks. One object serves many sessions at once.

    Class attributes:
        name: Registered name.
        Config: The options a recipe may give under `environment:`.
        test_splits: Splits that no stage may train on or choose models by.
        gold_splits: Splits that together hold every task, for `leap validate`.
        idle_baselines: By name, actions that do nothing for the task and score all the same; where there are any, they are
            evaluated too, and told beside every mean score.
    """

    name: ClassVar[str]
    Config: ClassVar[type[EnvironmentConfig]] = EnvironmentConfig
    test_splits: ClassVar[frozenset[str]] = frozenset()
    gold_splits: ClassVar[tuple[str, ...]] = ("train",)
    idle_baselines: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init__(self, config: Any) -> None:
        self.config = config

    def prepare(self, progress: Any = None) -> None:  # noqa: B027 - most environments have nothing to prepare
        """Makes or checks the data, once per run and idempotently.

        Args:
            progress: Optional callable `(done, total, what)`.

        Raises:
            PrerequisiteError: Data is missing; the message says what to put where.
        """

    def fetch_data(self, progress: Any = None, *, source: str | None = None) -> list[Finding]:
        """Fetches the environment's official data where that is possible and it is missing, and checks what is there.

        Args:
            progress: Optional callable `(done, total, what)`.
            source: Folder or address to take the files from, if not from where their authors keep them.

        Raises:
            PrerequisiteError: There is nothing to fetch, or it cannot be had; the message says what to put where.
        """
        raise PrerequisiteError(f"{self.name} has no data that leap can fetch.")

    @abstractmethod
    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        """The split's tasks in a fixed order; with a limit, a seeded sample without replacement, also in that order.

        Raises:
            PrerequisiteError: The split does not exist or is empty.
        """

    @abstractmethod
    def start(self, task: Task) -> Session:
        """Opens a fresh session of the task."""

    @abstractmethod
    def expert(self) -> Expert:
        """A fresh unprivileged expert: the source of demonstrations and a baseline."""

    def of(self, task: Task) -> Environment:
        """The environment whose grammar, names and prompts are the task's: this one, but in a mixture of several."""
        return self

    @abstractmethod
    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        """The programmatic teacher: what to think and do at the student's state (paper: r~_t, a~_t ~ pi^E(. | h_t, s_t)).

        Args:
            history: The student's own history.
            privileged: The privileged state at that moment.
            privilege: 0..100, how far the privileged state may be used. At 0 it must not matter.

        Returns:
            A decision, or None where nothing can succeed any more.
        """

    def correct_along(
        self, episode: Episode, privilege: int
    ) -> Iterator[tuple[History, PrivilegedState, Decision | None]]:
        """The programmatic teacher on every step of an episode: h_t, s_t, and what `correct` says there.

        An environment whose teacher also looks at what came of the student's own action overrides it.

        Raises:
            LeapError: The episode cannot be replayed.
        """
        with opened(self, episode.task) as session:
            for _, history, privileged in replay(session, episode):
                yield history, privileged, self.correct(history, privileged, privilege)

    def valid(self, action: str, observation: Observation) -> bool:
        """Whether a corrected action may train. The default asks for an admissible one; free-text grammars override."""
        return observation.admissible is None or action in observation.admissible

    @abstractmethod
    def entities(self, text: str) -> set[str]:
        """Names in the text that identify particular things of the world; the leak check compares them."""

    def why_unsolvable(self, task: Task) -> str:
        """Why the gold answer need not succeed on a task, where that is known; empty where it must."""
        return ""

    def close(self) -> None:  # noqa: B027 - most environments hold nothing
        """Frees what the environment holds: servers, boxes. It may be used again all the same."""

    def roll_in(self, history: History, action: str, left: int) -> float:
        """The score that is still in reach once an action is taken at a history's end, as playing it to the end shows.

        Here the privileged plan follows it, in a fresh session; an environment that knows better says so.

        Args:
            history: The student's own.
            action: What to try.
            left: Actions left, that one included.
        """
        with opened(self, history.task) as session:
            for taken in history.actions:
                session.act(taken)
            outcome = session.act(action)
            plan = () if outcome.done else session.privileged().plan or ()
            for following in plan if len(plan) < left else ():
                if not outcome.done:
                    outcome = session.act(following)
        return 1.0 if outcome.success else outcome.score

    def prompt_directory(self) -> Path | None:
        """Folder of the environment's Jinja templates; None for the shipped general ones."""
        return None

    def prompts_of(self, task: Task) -> Path | None:
        """Folder of the Jinja templates of a task's prompts."""
        return self.of(task).prompt_directory()

    def vocabulary(self) -> Sequence[str]:
        """Texts that hold every word a scratch student should know beyond those of the demonstrations."""
        return ()

    def names(self) -> Sequence[str]:
        """Names of several words that a scratch student's tokenizer keeps whole, so that copying one is copying one token."""
        return ()

    def versions(self) -> dict[str, str]:
        """What produced an episode: engine, dialect, data."""
        return {}


def replay(session: Session, episode: Episode) -> Iterator[tuple[int, History, PrivilegedState]]:
    """Walks a fresh session along an episode's original actions.

    Yields:
        For each step t: t, h_t as logged, and the privileged state there, before a_t is taken.

    Raises:
        LeapError: A session that repeats shows something else than was logged, so it is not the world the episode was
            played in.
    """
    shown = session.observe()
    for t, step in enumerate(episode.steps):
        if session.repeats and shown.text != step.observation.text:
            raise LeapError(
                f"replaying task {episode.task.id}: step {t} shows {shown.text[:80]!r}, but the episode logged "
                f"{step.observation.text[:80]!r}. The games or the engine changed since the rollout."
            )
        yield t, episode.history(t), session.privileged()
        shown = session.act(step.action).observation


@contextmanager
def opened(environment: Environment, task: Task) -> Iterator[Session]:
    """A session that is closed at the end of the `with` block."""
    session = environment.start(task)
    try:
        yield session
    finally:
        session.close()


def sampled(tasks: Sequence[T], split: str, limit: int | None, seed: int) -> list[T]:
    """A seeded sample without replacement, in the tasks' order; all of them without a limit."""
    if limit is None or limit >= len(tasks):
        return list(tasks)
    chosen = set(random.Random(f"{seed}/{split}").sample(range(len(tasks)), limit))
    return [task for number, task in enumerate(tasks) if number in chosen]


def available_environments() -> dict[str, str]:
    """Names of all registered environments, with the class each entry point loads."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def load_environment(name: str, options: dict[str, Any] | None = None) -> Environment:
    """Makes an environment by its registered name.

    Raises:
        RecipeError: No such environment, or it does not know one of the options.
        PrerequisiteError: Its package is not importable.
    """
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        known = ", ".join(sorted(points)) or "none; is leap installed (pip install -e .)?"
        raise RecipeError(f"there is no environment {name!r}. Registered: {known}.")
    try:
        cls = points[name].load()
    except ImportError as error:
        raise PrerequisiteError(f"environment {name!r} cannot be imported: {error}") from error
    try:
        config = cls.Config.model_validate(options or {})
    except ValidationError as error:
        raise RecipeError(describe_validation_error(error, f"environment {name!r}")) from error
    return cls(config)
