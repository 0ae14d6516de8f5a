"""Where a Bash environment's tasks come from: NL2Bash's, or (in `generated.source`) a generated family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from leap.envs.base import Progress
from leap.envs.tutor import Expert
from leap_worlds.intercode.bash.boxes import Boxes
from leap_worlds.intercode.bash.expert import BashExpert
from leap_worlds.intercode.bash.images import ImageKind, open_boxes
from leap_worlds.intercode.bash.tasks import BashTask, load_tasks, split_tasks
from leap_worlds.intercode.bash.teacher import Coach
from leap_worlds.intercode.data import IntercodeData


class Source(ABC):
    """Tasks, the boxes that they are done in, and the scripted knowledge of them.

    Class attributes:
        benchmark: What numbers on these tasks are of.
        coach: The scripted teacher of these tasks.
    """

    benchmark: ClassVar[str]
    coach: ClassVar[type[Coach]]

    @property
    @abstractmethod
    def gold_splits(self) -> tuple[str, ...]:
        """Splits that together hold every task."""

    @abstractmethod
    def tasks(self) -> Sequence[BashTask]:
        """All tasks.

        Raises:
            PrerequisiteError: Data is missing.
        """

    @abstractmethod
    def split(self, name: str) -> Sequence[BashTask]:
        """The tasks of a split.

        Raises:
            PrerequisiteError: There is no such split.
        """

    @abstractmethod
    def open_boxes(self, sandbox: str, image: ImageKind, progress: Progress | None) -> Boxes:
        """Boxes of the tasks' file systems.

        Raises:
            PrerequisiteError: No sandbox works here, or an image cannot be made.
        """

    @abstractmethod
    def expert(self) -> Expert:
        """A fresh unprivileged expert."""

    def vocabulary(self) -> Sequence[str]:
        """Texts that hold every word of the tasks that a scratch student should know."""
        return ()

    def names(self) -> Sequence[str]:
        """Names that a scratch student's tokenizer keeps whole."""
        return ()

    def versions(self) -> Mapping[str, str]:
        """What produced the tasks."""
        return {}


class Nl2Bash(Source):
    """NL2Bash's 200 tasks.

    Args:
        path: Upstream's data; None for where `IntercodeData` looks by itself.
    """

    benchmark: ClassVar[str] = "intercode-bash"
    coach: ClassVar[type[Coach]] = Coach

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._tasks: list[BashTask] | None = None

    @property
    def gold_splits(self) -> tuple[str, ...]:
        return ("all",)

    def tasks(self) -> list[BashTask]:
        if self._tasks is None:
            self._tasks = load_tasks(IntercodeData(self._path))
        return self._tasks

    def split(self, name: str) -> list[BashTask]:
        return split_tasks(self.tasks(), name)

    def open_boxes(self, sandbox: str, image: ImageKind, progress: Progress | None) -> Boxes:
        return open_boxes(sandbox, IntercodeData(self._path), image, progress)

    def expert(self) -> BashExpert:
        return BashExpert()
