"""The contract of an environment. To add one, implement `Environment` and `Session` and register the class by
`@leap.registry.environment("my-world")`, or in your own package's entry points:

    [project.entry-points."leap.environments"]
    my-world = "my_package.my_world:MyWorld"

`examples/tiny_world.py` is a complete one in a single file.
"""

from __future__ import annotations

import random
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from leap import registry
from leap.config import Section
from leap.core import Observation, PrivilegedState, Task
from leap.envs.grammar import FreeText, Grammar
from leap.errors import (
    ContractError,
    EnvironmentFault,
    LeapError,
    PrerequisiteError,
    RecipeError,
    suggest,
)

if TYPE_CHECKING:
    from leap.envs.tutor import Tutor

T = TypeVar("T")

Progress = Callable[[int, int, str], None]
"""Called with what is done, the total, and what it is."""


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
    """What a check found, for people, and whether it is as it should be."""

    ok: bool
    text: str


class Session(ABC):
    """One playthrough of one task. Made by `Environment.start`, used once, then closed. Any of its methods may be `async def`.

    Class attributes:
        repeats: Whether the same actions always show the same, byte for byte. A replay insists on it where they do.
        blocking: Whether plain methods take their time (a server, a box, a sleep), so that they run in a thread of the session's
            own. A session that answers at once, from memory, says False and is called directly, which is faster.
    """

    repeats: ClassVar[bool] = True
    blocking: ClassVar[bool] = True

    @abstractmethod
    def observe(self) -> Observation | Awaitable[Observation]:
        """The first observation, o_0."""

    @abstractmethod
    def act(self, action: str) -> Outcome | Awaitable[Outcome]:
        """Takes an action. Any string is allowed; one that makes no sense costs a step and changes nothing."""

    @abstractmethod
    def privileged(self) -> PrivilegedState | Awaitable[PrivilegedState | None] | None:
        """The privileged state now, or None where nothing is hidden. Nothing that renders a student's prompt calls it."""

    def copy(self) -> Session | Awaitable[Session | None] | None:
        """A session of its own in the same state, for who tries what comes of several actions there; None where there can be
        none, and the actions so far are taken again in a fresh session instead. It is used in another thread than this one."""
        return None

    def explain(self) -> Sequence[tuple[str, str, str]] | Awaitable[Sequence[tuple[str, str, str]]]:
        """What the score would be made of if the episode ended now, for people: name, value and reason of each part."""
        return ()

    def close(self) -> Awaitable[None] | None:  # noqa: B027 - most sessions hold nothing
        """Frees what the session holds. Called once, also after an error."""


class EnvironmentConfig(Section):
    """Base of an environment's options in a recipe. Unknown keys are errors."""


C = TypeVar("C", bound=EnvironmentConfig, covariant=True)


class Environment(ABC, Generic[C]):
    """A family of tasks. One object serves many sessions at once. Required are `tasks` and `start`.

    Class attributes:
        name: Registered name; by default the name of the class.
        Config: The options a recipe may give under `environment:`.
        blocking: Whether `start` may take its time, so that it runs in the new session's thread, several at once.
        test_splits: Splits that no stage may train on or choose models by.
        gold_splits: Splits that together hold every task, for `leap validate`.
        shorthand: The option that may be given behind a slash in the name, as in `textarena/Hangman-v0`; empty for none.
        grammar: How actions are written and read: free text of any length, or from the list where observations have one.
    """

    name: ClassVar[str]
    Config: ClassVar[type[EnvironmentConfig]] = EnvironmentConfig
    blocking: ClassVar[bool] = True
    test_splits: ClassVar[frozenset[str]] = frozenset()
    gold_splits: ClassVar[tuple[str, ...]] = ("train",)
    shorthand: ClassVar[str] = ""
    grammar: Grammar = FreeText()

    def __init_subclass__(cls, **more: object) -> None:
        super().__init_subclass__(**more)
        named = next((base for base in cls.__mro__ if "name" in vars(base)), None)
        if named is None or (named is not cls and named.name == named.__name__):
            cls.name = cls.__name__

    def __init__(self, config: C | None = None) -> None:
        self.config: C = self.Config() if config is None else config  # pyright: ignore[reportAttributeAccessIssue]

    @abstractmethod
    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        """The split's tasks in a fixed order; with a limit, a seeded sample without replacement, also in that order
        (`sampled` draws it).

        Raises:
            PrerequisiteError: The split does not exist (`unknown_split` says so) or is empty.
        """

    @abstractmethod
    def start(self, task: Task) -> Session | Awaitable[Session]:
        """Opens a fresh session of the task. May be `async def`."""

    @property
    def tutor(self) -> Tutor[Environment] | None:
        """Scripted knowledge of this environment, where there is any: an expert, a corrector."""
        return None

    def prepare(self, progress: Progress | None = None) -> None:
        """Makes or checks the data, once per run and idempotently; tells `progress` how far it is.

        Raises:
            PrerequisiteError: Data is missing; the message says what to put where.
        """

    def fetch_data(self, progress: Progress | None = None, *, source: str | None = None) -> list[Finding]:
        """Fetches the environment's official data where that is possible and it is missing, from a folder or an address if not
        from where its authors keep it, and checks what is there.

        Raises:
            PrerequisiteError: There is nothing to fetch, or it cannot be had; the message says what to put where.
        """
        raise PrerequisiteError(f"{self.name} has no data that leap can fetch.")

    @classmethod
    def doctor(cls) -> Sequence[Finding]:
        """What of the environment's data and programs is on this machine, for `leap doctor`."""
        return ()

    def of(self, task: Task) -> Environment:
        """The environment whose grammar, names and prompts are the task's: this one, but in a mixture of several."""
        return self

    def valid(self, action: str, observation: Observation) -> bool:
        """Whether a corrected action may train."""
        return self.grammar.valid(action, observation)

    def entities(self, text: str) -> set[str]:
        """Names in the text that identify particular things of the world; the leak check compares them. None by default."""
        return set()

    def why_unsolvable(self, task: Task) -> str:
        """Why the gold answer need not succeed on a task, where that is known; empty where it must."""
        return ""

    def prove(self, task: Task) -> str | None:
        """Tries a task by a way of the environment's own, for `leap validate`: the gold answer succeeds, doing nothing does not.
        Returns what went wrong, an empty text where nothing did, or None to have the privileged plan played."""
        return None

    def close(self) -> None:
        """Frees what the environment holds: servers, boxes. It may be used again all the same."""

    def prompt_directory(self) -> Path | None:
        """Folder of the environment's Jinja templates; None for the shipped general ones."""
        return None

    def prompts_of(self, task: Task) -> Path | None:
        """Folder of the Jinja templates of a task's prompts."""
        return self.of(task).prompt_directory()

    def grammar_of(self, task: Task) -> Grammar:
        """The grammar of a task's actions."""
        return self.of(task).grammar

    def vocabulary(self) -> Sequence[str]:
        """Texts that hold every word a scratch student should know beyond those of the demonstrations."""
        return ()

    def names(self) -> Sequence[str]:
        """Names of several words that a scratch student's tokenizer keeps whole, so that copying one is copying one token."""
        return ()

    def used(self) -> dict[str, float]:
        """What this process has used so far of what is paid for by use, for the record: `box_seconds` of sandboxes, `box_usd`."""
        return {}

    def versions(self) -> dict[str, str]:
        """What produced an episode: engine, dialect, data."""
        return {}


def opened(environment: Environment, task: Task) -> closing[Any]:
    """A session whose methods are plain ones, closed at the end of the `with` block. `leap.envs.live` opens any."""
    return closing(environment.start(task))  # pyright: ignore[reportArgumentType]


def sampled(tasks: Sequence[T], split: str, limit: int | None, seed: int) -> list[T]:
    """A seeded sample without replacement, in order; all of them without a limit."""
    if limit is None or limit >= len(tasks):
        return list(tasks)
    chosen = set(random.Random(f"{seed}/{split}").sample(range(len(tasks)), limit))
    return [task for number, task in enumerate(tasks) if number in chosen]


def listed(environment: Environment, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
    """An environment's tasks of a split, held to the contract.

    Raises:
        PrerequisiteError: The split does not exist or is empty.
        EnvironmentFault: The environment's own code raised.
        ContractError: Two tasks have one id, or one of them is of another split.
    """
    try:
        tasks = list(environment.tasks(split, limit=limit, seed=seed))
    except LeapError:
        raise
    except (Exception, SystemExit) as error:
        lines = "".join(traceback.format_exception(error)).rstrip()
        raise EnvironmentFault(f"environment {environment.name}: tasks({split!r}) raises\n{lines}") from error
    if not tasks:
        raise PrerequisiteError(f"environment {environment.name}: split {split!r} holds no task.")
    for task in tasks:
        if not isinstance(task, Task) or task.split != split:
            raise ContractError(f"environment {environment.name}: tasks({split!r}) gives {task!r:.200}.")
    if twice := [name for name, count in Counter(task.id for task in tasks).items() if count > 1]:
        raise ContractError(f"environment {environment.name}: tasks({split!r}) gives {twice[0]!r} more than once.")
    return tasks


def unknown_split(environment: str, split: str, known: Iterable[str]) -> PrerequisiteError:
    """The error for a split that an environment does not have."""
    names = list(known)
    return PrerequisiteError(f"{environment} has no split {split!r}; it has {', '.join(names)}.{suggest(split, names)}")


def load_environment(name: str, options: Mapping[str, object] | None = None) -> Environment:
    """Makes an environment by its registered name, or by `NAME/OPTION` for one that has a shorthand.

    Raises:
        RecipeError: No such environment, or it does not know one of the options.
        PrerequisiteError: Its package is not importable.
    """
    name, slash, short = name.partition("/")
    cls = registry.environment.get(name)
    if slash:
        if not cls.shorthand:
            raise RecipeError(f"environment {name!r} is named alone: nothing stands behind it, as {short!r} does.")
        options = {cls.shorthand: short, **(options or {})}
    return cls(cls.Config.from_values(options or {}, f"environment {name!r}"))
