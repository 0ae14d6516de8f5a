"""NL2Bash's 200 tasks and their splits.

| split | tasks | |
|---|---|---|
| train, test | 113, 87 | the paper's text: file systems 1 and 2 to train on, 3 and 4 to test on |
| train_rest, train_valid | 90, 23 | of train: every fifth task to choose models by, the others to train on |
| code-0.7-train, code-0.7-test | 140, 60 | the paper's released code: the leading 70 % of all four, one after another |
| all | 200 | for what is only measured, as upstream's own tables are |
"""

from __future__ import annotations

from dataclasses import dataclass

from leap.errors import PrerequisiteError
from leap_worlds.intercode.data import FILE_SYSTEMS, IntercodeData

SPLITS = ("train", "test", "train_rest", "train_valid", "code-0.7-train", "code-0.7-test", "all")
TEST_SPLITS = frozenset({"test", "code-0.7-test", "all"})


@dataclass(frozen=True, slots=True)
class BashTask:
    """One task.

    Attributes:
        file_system: 1 to 4; the name of a generated one.
        index: Upstream's index within the file system.
        query: What is asked.
        gold: The command that answers it.
    """

    file_system: int | str
    index: int
    query: str
    gold: str

    @property
    def id(self) -> str:
        """fs_1/0 and so on."""
        return f"fs_{self.file_system}/{self.index}"

    @property
    def kind(self) -> str:
        """The group that results are reported by: the file system."""
        return f"fs_{self.file_system}"


def load_tasks(data: IntercodeData) -> list[BashTask]:
    """All tasks, file system by file system."""
    return [
        BashTask(number, index, record.query, record.gold)
        for number in FILE_SYSTEMS
        for index, record in enumerate(data.bash(number))
    ]


def split_tasks(tasks: list[BashTask], split: str) -> list[BashTask]:
    """The tasks of a split, in upstream's order.

    Raises:
        PrerequisiteError: There is no such split.
    """
    paper = [task for task in tasks if task.file_system in (1, 2)]
    leading = int(0.7 * len(tasks))
    splits = {
        "train": paper,
        "test": [task for task in tasks if task.file_system in (3, 4)],
        "train_rest": [task for number, task in enumerate(paper) if number % 5],
        "train_valid": paper[::5],
        "code-0.7-train": tasks[:leading],
        "code-0.7-test": tasks[leading:],
        "all": tasks,
    }
    if split not in splits:
        raise PrerequisiteError(f"there is no split {split!r} of NL2Bash; there are: {', '.join(SPLITS)}.")
    return splits[split]


NOT_REPEATABLE = {
    "fs_1/30": "counts the files below /, those of the processes of the moment in /proc among them",
    "fs_1/55": "searches /proc and /sys too, which differ from moment to moment",
    "fs_2/36": "df: free space changes between the two runs",
    "fs_2/42": "the gold writes the time of day",
    "fs_2/49": "the gold downloads from the network",
    "fs_2/52": "the host name's address in /etc/hosts",
    "fs_3/2": "changed within the last hour: depends on when the image was made",
    "fs_3/3": "read within the last hour: depends on what was read before",
    "fs_3/33": "ls -al of a path that the quoting cuts: lists the root with its times",
    "fs_3/44": "df: free space changes between the two runs",
    "fs_3/50": "df: free space changes between the two runs",
    "fs_4/0": "the build number of the host's kernel",
    "fs_4/1": "dig: the network, and the time of day in its answer",
    "fs_4/4": "env: the host name",
    "fs_4/5": "pstree: the processes of the moment",
    "fs_4/12": "dig: the network",
    "fs_4/16": "df: the file system of the box",
    "fs_4/25": "the load average of the moment",
}
"""Golds that depend on the clock, on free space, on the network or on the host, by cause. Most still score 1.0 against
themselves; where one does not, this is why. Their observations differ from those published."""
