"""The common base of the SQL and the Python environment: one list of tasks with their golds, of which splits take a leading
share, and sessions in which a submission is scored by what was shown last, or defined.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from pydantic import Field

from leap.core import Observation, Task
from leap.envs.base import Environment, EnvironmentConfig, Finding, Outcome, Progress, Session, sampled
from leap.envs.grammar import Line
from leap.errors import PrerequisiteError
from leap_worlds.intercode.fetch import data_here, fetch_all
from leap_worlds.intercode.splits import TEST_SPLITS, leading_split
from leap_worlds.intercode.text import SUBMIT, shorten_output


class Recorded(Protocol):
    """A task of the data with its gold."""

    query: str
    gold: str


class RecordedConfig(EnvironmentConfig):
    """Options that the SQL and the Python environment share."""

    path: Path | None = Field(default=None, description="Upstream's data; $INTERCODE_DATA, or leap's cache, if null.")
    observation_limit: int = Field(default=10_000, ge=200, description="Longest observation shown, in characters.")


C = TypeVar("C", bound=RecordedConfig)
R = TypeVar("R", bound=Recorded)


class RecordedEnvironment(Environment[C], Generic[C, R]):
    """An environment whose tasks are one list."""

    test_splits: ClassVar[frozenset[str]] = TEST_SPLITS
    grammar = Line()
    gold_splits: ClassVar[tuple[str, ...]] = ("all",)

    def __init__(self, config: C | None = None) -> None:
        super().__init__(config)
        self._records: Mapping[str, R] | None = None

    @abstractmethod
    def read_records(self) -> Mapping[str, R]:
        """All tasks with their gold, by id, from the data."""

    @abstractmethod
    def kind_of(self, record: R) -> str:
        """The group that results are reported by."""

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
        """The task with its gold.

        Raises:
            PrerequisiteError: It is not in the data at hand.
        """
        record = self.records().get(task.id)
        if record is None or record.query != task.instruction:
            raise PrerequisiteError(
                f"task {task.id!r} ({task.instruction[:60]!r}) is not in the InterCode data at hand."
            )
        return record

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        chosen: Sequence[tuple[str, R]] = sampled(
            leading_split(list(self.records().items()), split), split, limit, seed
        )
        return [
            Task(env=self.benchmark, split=split, id=name, instruction=record.query, kind=self.kind_of(record))
            for name, record in chosen
        ]

    @classmethod
    def doctor(cls) -> list[Finding]:
        return data_here()

    def fetch_data(self, progress: Progress | None = None, *, source: str | None = None) -> list[Finding]:
        return fetch_all(self.config.path, source, progress)


class RecordedSession(Session):
    """One task being worked on, until something is submitted.

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
            return Outcome(self._show(), reward=value, done=True, success=value == 1, score=value)
        self.run(action)
        return Outcome(self._show())

    def _show(self) -> Observation:
        return Observation(text=shorten_output(self.shown(), self._observation_limit))
