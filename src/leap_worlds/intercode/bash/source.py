"""Where a Bash environment's tasks come from: NL2Bash, or (in `generated.family`) a generated family.

NL2Bash's splits:

| split | tasks | |
|---|---|---|
| train, test | 113, 87 | the paper's text: file systems 1 and 2 to train on, 3 and 4 to test on |
| train_rest, train_valid | 90, 23 | of train: every fifth task to choose models by, the others to train on |
| code-0.7-train, code-0.7-test | 140, 60 | the paper's released code: the leading 70 % of all four, one after another |
| all | 200 | for what is only measured, as upstream's own tables are |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from leap.envs.base import Progress
from leap.envs.tutor import Expert
from leap_worlds.intercode.base import Boxes, leading_splits, named_split, with_validation
from leap_worlds.intercode.bash.expert import BashExpert
from leap_worlds.intercode.bash.images import ImageKind, upstream_boxes
from leap_worlds.intercode.bash.tasks import BashTask
from leap_worlds.intercode.bash.teacher import Coach
from leap_worlds.intercode.data import FILE_SYSTEMS, IntercodeData


class Source(ABC):
    """Tasks, the boxes that they are done in, and the scripted knowledge of them.

    Attributes:
        benchmark: What numbers on these tasks are of.
        coach: The scripted teacher of these tasks.
        gold_splits: Splits that together hold every task.
    """

    benchmark: ClassVar[str]
    coach: ClassVar[type[Coach]] = Coach
    gold_splits: tuple[str, ...] = ("all",)

    @abstractmethod
    def split(self, name: str) -> Sequence[BashTask]:
        """The tasks of a split; raises `PrerequisiteError` where there is none, or its data is missing."""

    @abstractmethod
    def open_boxes(self, sandbox: str, image: ImageKind, progress: Progress | None) -> Boxes:
        """Boxes of the tasks' file systems; raises `PrerequisiteError` where there can be none."""

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
    """NL2Bash's 200 tasks, from upstream's data in a folder, or where `IntercodeData` looks by itself."""

    benchmark: ClassVar[str] = "intercode-bash"

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._tasks: list[BashTask] | None = None

    def split(self, name: str) -> Sequence[BashTask]:
        if self._tasks is None:
            self._tasks = load_tasks(IntercodeData(self._path))
        return split_tasks(self._tasks, name)

    def open_boxes(self, sandbox: str, image: ImageKind, progress: Progress | None) -> Boxes:
        return upstream_boxes(sandbox, IntercodeData(self._path), image, progress)

    def expert(self) -> BashExpert:
        return BashExpert()


def load_tasks(data: IntercodeData) -> list[BashTask]:
    """All tasks, file system by file system."""
    return [
        BashTask(number, index, record.query, record.gold)
        for number in FILE_SYSTEMS
        for index, record in enumerate(data.bash(number))
    ]


def split_tasks(tasks: Sequence[BashTask], split: str) -> Sequence[BashTask]:
    """The tasks of a split, in upstream's order; raises `PrerequisiteError` where there is no such split."""
    released = leading_splits(tasks)
    splits = {
        **with_validation([task for task in tasks if task.file_system in (1, 2)]),
        "test": [task for task in tasks if task.file_system in (3, 4)],
        "code-0.7-train": released["train"],
        "code-0.7-test": released["test"],
        "all": tasks,
    }
    return named_split(splits, split, "NL2Bash")
