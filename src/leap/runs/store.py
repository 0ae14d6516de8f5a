"""The run directory: where each file of a run lies, and the lock that keeps other processes out of it."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leap.errors import RunError


class RunDirectory:
    """Where each file of a run lies. Nobody else writes a path of a run directory.

    Args:
        root: The directory; an empty path gives every path relative to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    # ---- the run as a whole ----------------------------------------------------------------------------------------

    @property
    def recipe(self) -> Path:
        """The resolved recipe: every default written out."""
        return self.root / "recipe.yaml"

    @property
    def provenance(self) -> Path:
        """Versions, git commit and machine of each start, a line each."""
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
    def shared(self) -> Path:
        """Which stages were taken from other runs of a study, a line each."""
        return self.root / "shared.jsonl"

    @property
    def report(self) -> Path:
        """The report's folder."""
        return self.root / "report"

    @property
    def lock(self) -> Path:
        """Held by the process that works on the run."""
        return self.root / ".lock"

    @property
    def base(self) -> Path:
        """A scratch student before any training: weights and tokenizer."""
        return self.root / "base"

    # ---- iterations ------------------------------------------------------------------------------------------------

    def iteration(self, i: int) -> Path:
        """Everything of iteration i."""
        return self.root / f"iter-{i}"

    def iterations(self) -> list[int]:
        """Every i of which episodes are on file."""
        return sorted(int(path.parent.name.removeprefix("iter-")) for path in self.root.glob("iter-*/episodes.jsonl"))

    def episodes(self, i: int) -> Path:
        """Journal of the demonstrations (i = 0), or of pi_{i-1}'s rollouts."""
        return self.iteration(i) / "episodes.jsonl"

    def with_state(self) -> Path:
        """Journal of the teacher's play that demonstrations with the privileged state come from."""
        return self.iteration(0) / "with-state.jsonl"

    def annotations(self) -> Path:
        """Journal of the reasons that a model wrote for demonstrations."""
        return self.iteration(0) / "annotations.jsonl"

    def expert_play(self, i: int) -> Path:
        """Journal of the expert's play of the tasks to correct, from which a model reads privileged states."""
        return self.iteration(i) / "expert.jsonl"

    def states(self, i: int) -> Path:
        """Journal of the privileged states that a model read."""
        return self.iteration(i) / "states.jsonl"

    def corrections(self, i: int) -> Path:
        """Journal of the corrections of iteration i's episodes."""
        return self.iteration(i) / "corrections.jsonl"

    def rows(self, i: int) -> Path:
        """D_i, the training rows."""
        return self.iteration(i) / "rows.jsonl"

    def training(self, i: int) -> Path:
        """What an unfinished training goes on from."""
        return self.iteration(i) / "training"

    def checkpoint(self, i: int) -> Path:
        """pi_i's weights and tokenizer."""
        return self.iteration(i) / "checkpoint"

    # ---- evaluations -----------------------------------------------------------------------------------------------

    def evaluation(self, policy: str) -> Path:
        """Scores of a policy, on each split: of a student (`pi_3`) or a baseline (`expert`)."""
        return (self._of(policy) if is_student(policy) else self._of(policy) / policy) / "evaluation.json"

    def played(self, policy: str, split: str) -> Path:
        """Journal of the episodes in which a student (`pi_3`) or a baseline (`expert`) was evaluated on a split."""
        return self._of(policy) / ("evaluation" if is_student(policy) else policy) / f"{split}.jsonl"

    def elsewhere(self, i: int, world: str) -> Path:
        """Folder of pi_i's evaluation in another world than the run's."""
        return self.iteration(i) / "elsewhere" / world

    @property
    def baselines(self) -> Path:
        """Episodes and scores of the policies outside the loop, a folder each."""
        return self.root / "baselines"

    def evaluated_baselines(self) -> list[str]:
        """Names of the baselines that are on file."""
        return sorted(path.name for path in self.baselines.iterdir()) if self.baselines.is_dir() else []

    def _of(self, policy: str) -> Path:
        return self.iteration(int(policy.removeprefix("pi_"))) if is_student(policy) else self.baselines

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of this run.

        Raises:
            RunError: Another process works on it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with self.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(f"another process is working on {self.root}; wait for it or stop it.") from error
            yield


def is_student(policy: str) -> bool:
    """Whether a policy's name is that of some pi_i."""
    return re.fullmatch(r"pi_\d+", policy) is not None


def marker(checkpoint: Path) -> Path:
    """The file that is written last into a checkpoint: its key, its iteration and what training noted."""
    return checkpoint / "leap.json"
