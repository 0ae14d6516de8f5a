"""The splits of a list of tasks by a leading share, as the paper's released code divides what it has one list of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from leap.errors import PrerequisiteError

T = TypeVar("T")

LEADING = 0.7
TEST_SPLITS = frozenset({"test", "all"})


def leading_split(tasks: Sequence[T], split: str) -> list[T]:
    """The tasks of a split, in upstream's order: `train` the leading 70 %, `test` the rest; of `train`, `train_valid` every
    fifth and `train_rest` the others; `all`.

    Raises:
        PrerequisiteError: There is no such split.
    """
    cut = int(LEADING * len(tasks))
    train = tasks[:cut]
    splits = {
        "train": train,
        "test": tasks[cut:],
        "train_rest": [task for number, task in enumerate(train) if number % 5],
        "train_valid": train[::5],
        "all": tasks,
    }
    if split not in splits:
        raise PrerequisiteError(f"there is no split {split!r}; there are: {', '.join(splits)}.")
    return list(splits[split])
