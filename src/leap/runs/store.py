"""The run directory: where each file of a run lies, and the lock that keeps other processes out of it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leap.errors import RunError


class RunDirectory:
    """Where a recipe's work is kept; DESIGN: runs/<name>/iter-<i>/{episodes,corrections,rows}.jsonl, checkpoint/, ...

    Args:
        root: The directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def recipe(self) -> Path:
        """The resolved recipe: every default written out."""
        return self.root / "recipe.yaml"

    @property
    def provenance(self) -> Path:
        """Versions, git commit and machine of each start."""
        return self.root / "provenance.jsonl"

    @property
    def stages(self) -> Path:
        """Time and tokens of each finished stage."""
        return self.root / "stages.json"

    @property
    def calls(self) -> Path:
        """The ledger: every call to an endpoint, its answer and its cost."""
        return self.root / "calls.sqlite"

    @property
    def baselines(self) -> Path:
        """Episodes and scores of the policies outside the loop: expert and teachers."""
        return self.root / "baselines"

    @property
    def report(self) -> Path:
        """The report's folder."""
        return self.root / "report"

    def iteration(self, i: int) -> Path:
        """Everything of iteration i."""
        return self.root / f"iter-{i}"

    def checkpoint(self, i: int) -> Path:
        """pi_i's weights and tokenizer."""
        return self.iteration(i) / "checkpoint"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of this run.

        Raises:
            RunError: Another process works on it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(f"another process is working on {self.root}; wait for it or stop it.") from error
            yield
