"""What the environments of InterCode have in common: tasks with their golds, sessions that end in a submission, boxes."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from pydantic import Field

from leap.core import Observation, Task
from leap.envs.base import Environment, EnvironmentConfig, Finding, Outcome, Progress, Session, sampled, unknown_split
from leap.envs.grammar import Line
from leap.errors import LeapError, PrerequisiteError
from leap_worlds.intercode.data import IntercodeData
from leap_worlds.intercode.fetch import SOURCE, counted, fetch
from leap_worlds.intercode.text import SUBMIT, shorten_output
from leap_worlds.sandbox.base import Sandbox

T = TypeVar("T")
LEADING = 0.7
"""The share of a list of tasks that upstream trains on."""


class Recorded(Protocol):
    """A task with its gold, and the group that its results are reported by."""

    @property
    def query(self) -> str: ...
    @property
    def kind(self) -> str: ...


C = TypeVar("C", bound=EnvironmentConfig, covariant=True)
R = TypeVar("R", bound=Recorded)


class UpstreamConfig(EnvironmentConfig):
    """Options that the SQL and the Python environment share."""

    path: Path | None = Field(default=None, description="Upstream's data; $INTERCODE_DATA, or leap's cache, if null.")
    observation_limit: int = Field(default=10_000, ge=200, description="Longest observation shown, in characters.")


class IntercodeEnvironment(Environment[C], Generic[C, R]):
    """An environment of tasks with golds, of which a gold is an action that solves its task. `leap data` fetches
    upstream's files to the option `path`.

    Class attributes:
        prompts: The folder of its prompts.
    """

    prompts: ClassVar[str]
    grammar = Line()
    test_splits: ClassVar[frozenset[str]] = frozenset({"test", "all"})
    gold_splits: ClassVar[tuple[str, ...]] = ("all",)

    def __init__(self, config: C | None = None) -> None:
        super().__init__(config)
        self._records: Mapping[str, R] | None = None

    @abstractmethod
    def read_records(self) -> Mapping[str, R]:
        """All tasks with their gold, by id, from the data."""

    @property
    def benchmark(self) -> str:
        """The benchmark's name in records."""
        return self.name

    def records(self) -> Mapping[str, R]:
        """All tasks with their gold, by id."""
        if self._records is None:
            self._records = self.read_records()
        return self._records

    def record(self, task: Task) -> R:
        """The task with its gold; raises `PrerequisiteError` where it is not in the data at hand."""
        record = self.records().get(task.id)
        if record is None or record.query != task.instruction:
            raise PrerequisiteError(f"task {task.id!r} ({task.instruction[:60]!r}) is not in the data at hand.")
        return record

    def split(self, name: str) -> Sequence[tuple[str, R]]:
        """The tasks of a split by id."""
        return named_split(leading_splits(list(self.records().items())), name, self.name)

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        return [
            Task(env=self.benchmark, split=split, id=name, instruction=record.query, kind=record.kind)
            for name, record in sampled(self.split(split), split, limit, seed)
        ]

    def prompt_directory(self) -> Path:
        return Path(__file__).parent / "prompts" / self.prompts

    @classmethod
    def doctor(cls) -> Sequence[Finding]:
        try:
            return [counted(IntercodeData())]
        except LeapError as error:
            return [Finding(False, str(error))]

    def fetch_data(self, progress: Progress | None = None, *, source: str | None = None) -> list[Finding]:
        folder = fetch(getattr(self.config, "path", None), source=source or SOURCE, progress=progress)
        return [counted(IntercodeData(folder))]


def leading_splits(tasks: Sequence[T]) -> dict[str, Sequence[T]]:
    """A list's splits as the paper's released code divides it: `train` the leading 70 %, `test` the rest, and `all`."""
    cut = int(LEADING * len(tasks))
    return {**with_validation(tasks[:cut]), "test": tasks[cut:], "all": tasks}


def with_validation(train: Sequence[T]) -> dict[str, Sequence[T]]:
    """The split `train`, and of it `train_valid`, every fifth, to choose models by, and `train_rest`, the others."""
    rest = [task for number, task in enumerate(train) if number % 5]
    return {"train": train, "train_rest": rest, "train_valid": train[::5]}


def named_split(splits: Mapping[str, Sequence[T]], name: str, owner: str) -> Sequence[T]:
    """A split by its name; raises `PrerequisiteError` where there is no such split."""
    if name not in splits:
        raise unknown_split(owner, name, splits)
    return splits[name]


class IntercodeSession(Session):
    """One task being worked on, until something is submitted: by upstream's rule, whatever begins with the word.

    Class attributes:
        first: What is shown at the beginning.
    """

    first: ClassVar[str]

    def __init__(self, observation_limit: int) -> None:
        self._observation_limit = observation_limit

    @abstractmethod
    def run(self, action: str) -> None:
        """Takes an action that is no submission."""

    @abstractmethod
    def shown(self) -> str:
        """The whole text that came of the last action."""

    @abstractmethod
    def value(self, submission: str) -> float:
        """The reward of a submission now."""

    def observe(self) -> Observation:
        return Observation(text=self.first)

    def act(self, action: str) -> Outcome:
        if action == "skip":
            return Outcome(Observation(text="skipped"), done=True)
        if action.startswith(SUBMIT):
            value = self.value(action)
            return Outcome(self.observation(), reward=value, done=True, success=value == 1, score=value)
        self.run(action)
        return Outcome(self.observation())

    def observation(self) -> Observation:
        """What is shown of the last action."""
        return Observation(text=shorten_output(self.shown(), self._observation_limit))


@dataclass(frozen=True)
class Boxes:
    """Makes boxes of file systems, from any number of threads at once."""

    open: Callable[[int | str], Sandbox]  # makes a fresh box of a file system
    description: str  # what makes them, for the record
    close: Callable[[], None] = lambda: None  # frees what makes them


class BoxedEnvironment(IntercodeEnvironment[C, R]):
    """One whose actions run in boxes, which are made when they are needed; or those that were set."""

    def __init__(self, config: C | None = None) -> None:
        super().__init__(config)
        self._preparing = threading.Lock()
        self._boxes: Boxes | None = None

    @abstractmethod
    def open_boxes(self, progress: Progress | None) -> Boxes:
        """Finds a sandbox that works and makes the images that are not there yet."""

    def prepare(self, progress: Progress | None = None) -> None:
        """Reads the tasks and opens the boxes."""
        self.records()
        with self._preparing:
            if self._boxes is None:
                self._boxes = self.open_boxes(progress)

    @property
    def boxes(self) -> Boxes:
        """Where commands run."""
        boxes = self._boxes
        while boxes is None:
            self.prepare()
            boxes = self._boxes
        return boxes

    @boxes.setter
    def boxes(self, boxes: Boxes) -> None:
        self._boxes = boxes

    def versions(self) -> dict[str, str]:
        return {self.benchmark: f"sandbox {self.boxes.description}"}

    def close(self) -> None:
        boxes, self._boxes = self._boxes, None
        if boxes is not None:
            boxes.close()


class Pool(Generic[T]):
    """Lends out things that one thread at a time can use. Nobody waits: where none is free another is made."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], None]) -> None:
        self._make, self._close = make, close
        self._lock = threading.Lock()
        self._free: list[tuple[Hashable, T]] = []

    @contextmanager
    def lent(self, use: Hashable = None) -> Iterator[T]:
        """Lends one thing for the time of the `with` block: that which had the same use last, if it is free, else the
        one that was not used for longest. One that was being used when something went wrong is thrown away."""
        with self._lock:
            uses = [last for last, _ in self._free]
            found = self._free.pop(uses.index(use) if use in uses else 0)[1] if uses else None
        thing = self._make() if found is None else found
        try:
            yield thing
        except BaseException:
            self._close(thing)
            raise
        with self._lock:
            self._free.append((use, thing))

    def close(self) -> None:
        """Closes what is not lent out."""
        with self._lock:
            free, self._free = self._free, []
        for _, thing in free:
            self._close(thing)
