"""The run directory: where each file of a run lies, and the lock that keeps other processes out of it."""

from __future__ import annotations

import fcntl
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import IO, NamedTuple

from leap.errors import RunError
from leap.files import sweep
from leap.runs.manifest import Manifest


class Played(NamedTuple):
    """A journal of episodes.

    Attributes:
        path: The file.
        iteration: i of the iteration whose folder it is in; -1 of a baseline's.
        kind: `episodes`, `with-state` or `expert`, played for training; or an evaluation, `elsewhere` in another world.
        policy: Whose evaluation it is, `pi_3` or a baseline's name.
        split: What was played in it.
        part: Where it is one of several that are not yet taken in, which.
    """

    path: Path
    iteration: int
    kind: str
    policy: str
    split: str
    part: str


_PLAYED = re.compile(
    r"(?:iter-(?P<i>\d+)/(?:(?P<kind>episodes|with-state|expert)|(?P<where>evaluation|elsewhere)(?:/\w+)?/(?P<split>[^/]+?))"
    r"|baselines/(?P<policy>[^/]+)/(?P<on>[^/]+?))(?:\.parts/(?P<part>[^/]+))?\.jsonl"
)


def _told(found: re.Match[str]) -> tuple[int, str, str, str, str]:
    i, kind, policy = int(found["i"] or -1), found["kind"] or found["where"] or "evaluation", found["policy"] or ""
    policy = f"pi_{i}" if kind == "evaluation" and not policy else policy
    return i, kind, policy, found["split"] or found["on"] or "", found["part"] or ""


def best_of_name(i: int, n: int | str) -> str:
    """Name of pi_i as a policy of its own where the best of n answers is taken."""
    return f"pi_{i}-best-{n}"


class RunDirectory:
    """Where each file of a run lies. Nobody else writes a path of a run directory.

    Args:
        root: The directory; an empty path gives every path relative to it.

    Attributes:
        manifest: What the finished files were when they were written.
        recipe: The resolved recipe: every default written out.
        provenance: Versions, git commit and machine of each start, a line each.
        stages: Time and tokens of each finished stage.
        precision: Whether the machine on which the run began is faster in bfloat16, where the recipe leaves types open.
        calls: The ledger: every call to an endpoint, its answer and its cost.
        shared: Which stages were taken from other runs of a study, a line each.
        report: The report's folder.
        base: A scratch student before any training: weights and tokenizer.
        baselines: Episodes and scores of the policies outside the loop, a folder each.
        jobs: Where executors keep files of their own, which are no part of the run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = Manifest(root)
        self.recipe = root / "recipe.yaml"
        self.provenance = root / "provenance.jsonl"
        self.stages = root / "stages.json"
        self.precision = root / "precision.json"
        self.calls = root / "calls.sqlite"
        self.shared = root / "shared.jsonl"
        self.report = root / "report"
        self.lock = root / ".lock"
        self.base = root / "base"
        self.baselines = root / "baselines"
        self.jobs = root / "jobs"

    # ---- iterations ------------------------------------------------------------------------------------------------

    def iteration(self, i: int, name: str = "") -> Path:
        """A file of iteration i, or the folder of all of them."""
        return self.root / f"iter-{i}" / name

    episodes = partialmethod(iteration, name="episodes.jsonl")
    """Journal of the demonstrations (i = 0), or of pi_{i-1}'s rollouts."""
    with_state = partialmethod(iteration, 0, "with-state.jsonl")
    """Journal of the teacher's play that demonstrations with the privileged state come from."""
    annotations = partialmethod(iteration, 0, "annotations.jsonl")
    """Journal of the reasons that a model wrote for demonstrations."""
    expert_play = partialmethod(iteration, name="expert.jsonl")
    """Journal of the expert's play of the tasks to correct, from which a model reads privileged states."""
    states = partialmethod(iteration, name="states.jsonl")
    """Journal of the privileged states that a model read."""
    corrections = partialmethod(iteration, name="corrections.jsonl")
    """Journal of the corrections of iteration i's episodes."""
    privileged = partialmethod(iteration, name="privileged.jsonl")
    """Journal of pi_i's play of validation tasks with the privileged state in its prompt: what it has to teach."""
    rows = partialmethod(iteration, name="rows.jsonl")
    """D_i, the training rows."""
    training = partialmethod(iteration, name="training")
    """What an unfinished training goes on from."""
    losses = partialmethod(iteration, name="training/losses.log")
    """Its losses so far; those of a finished one stand in the checkpoint's marker."""
    checkpoint = partialmethod(iteration, name="checkpoint")
    """pi_i's weights and tokenizer."""

    def value(self, i: int, name: str) -> Path:
        """A file of pi_i's value models. `replay`, `returns` and `planner` are their checkpoints, by the labels they learnt from;
        with `.jsonl` behind it the labels, with `.json` what was measured, with `.training` what an unfinished training goes on
        from. `episodes.jsonl` and `held-out.jsonl` are the episodes, on training and on validation tasks."""
        return self.iteration(i, "value") / name

    compared = partialmethod(iteration, name="compared.jsonl")
    """Journal of pi_{i-1}'s answers at the steps of iteration i's episodes, compared by its value model."""

    def best_of(self, i: int, name: str) -> Path:
        """A file of pi_i's evaluation with the best of N answers: `SPLIT-attempts.jsonl`, whole attempts, and `scores.json`. What
        was played so stands with the baselines, under `best_of_name`."""
        return self.iteration(i, "best-of") / name

    def iterations(self) -> list[int]:
        """Every i of which episodes are on file."""
        return sorted(int(path.parent.name.removeprefix("iter-")) for path in self.root.glob("iter-*/episodes.jsonl"))

    def played_files(self) -> list[Played]:
        """Every journal of episodes that is on file."""
        names = ("iter-*/*", "iter-*/evaluation/*", "iter-*/elsewhere/*/*", "baselines/*/*")
        paths = {path for name in names for tail in ("", ".parts/*") for path in self.root.glob(f"{name}{tail}.jsonl")}
        found = ((path, _PLAYED.fullmatch(path.relative_to(self.root).as_posix())) for path in paths)
        files = [Played(path, *_told(match)) for path, match in found if match]
        return sorted(files, key=lambda one: (one.iteration % 1_000_000, one.path))

    def elsewhere(self, i: int, world: str) -> Path:
        """Folder of pi_i's evaluation in another world than the run's."""
        return self.iteration(i) / "elsewhere" / world

    # ---- parts of a stage, written by processes of their own -----------------------------------------------------------

    def part(self, journal: Path, k: int, n: int) -> Path:
        """Where part k of n of a stage keeps what it adds to a journal."""
        return journal.with_suffix(".parts") / f"{k}-of-{n}.jsonl"

    def parts(self, journal: Path) -> list[Path]:
        """Those that are there, of whatever n."""
        return sorted(journal.with_suffix(".parts").glob("*.jsonl"))

    # ---- evaluations -----------------------------------------------------------------------------------------------

    def evaluation(self, policy: str) -> Path:
        """Scores of a policy, on each split: of a student (`pi_3`) or a baseline (`expert`)."""
        i = _student(policy)
        return (self.baselines / policy if i is None else self.iteration(i)) / "evaluation.json"

    def played(self, policy: str, split: str) -> Path:
        """Journal of the episodes in which a student (`pi_3`) or a baseline (`expert`) was evaluated on a split."""
        i = _student(policy)
        return (self.baselines / policy if i is None else self.iteration(i, "evaluation")) / f"{split}.jsonl"

    def evaluated_baselines(self) -> list[str]:
        """Names of the baselines that are on file."""
        return sorted(path.name for path in self.baselines.iterdir()) if self.baselines.is_dir() else []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of this run. What killed ones have left half written goes.

        Raises:
            RunError: Another process works on it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with self.lock.open("w") as file:
            if not _lock(file, fcntl.LOCK_EX):
                raise RunError(f"another process is working on {self.root}; wait for it or stop it.")
            sweep(self.root)
            for left in self.root.glob(".part-*.lock"):
                left.unlink(missing_ok=True)
            yield

    @contextmanager
    def locked_for_part(self, k: int, n: int, *, patience: float = 0.0) -> Iterator[None]:
        """Lets processes that work on other parts of a stage into this run, and keeps out those that work on part k of n or on
        the whole. `patience` is how many seconds one that begins the run is waited for.

        Raises:
            RunError: Another process works on it.
        """
        if not self.recipe.exists():
            raise RunError(f"{self.root} is not a run directory.")
        until = time.monotonic() + patience
        with self.lock.open("a+") as whole, self.root.joinpath(f".part-{k}-of-{n}.lock").open("w") as part:
            while not _lock(whole, fcntl.LOCK_SH):
                if time.monotonic() > until:
                    raise RunError(f"another process is working on the whole of {self.root}; wait for it or stop it.")
                time.sleep(0.1)
            if not _lock(part, fcntl.LOCK_EX):
                raise RunError(f"another process is working on part {k} of {n} of {self.root}; wait for it or stop it.")
            yield


def _lock(file: IO[str], how: int) -> bool:
    """Locks a file as long as it is open; False where another process has it."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _student(policy: str) -> int | None:
    """i of a policy named `pi_i`; None of any other."""
    found = re.fullmatch(r"pi_(\d+)", policy)
    return int(found[1]) if found else None


def marker(checkpoint: Path) -> Path:
    """The file that is written last into a checkpoint: its key, its iteration and what training noted."""
    return checkpoint / "leap.json"
