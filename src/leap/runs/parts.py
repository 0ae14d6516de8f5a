"""Parts of a stage for a batch system of one's own: part k of n works on every n-th shard, in a process that shares nothing with
the others but the run directory, and keeps what it makes in a journal of its own. Whoever opens the run for work takes all of
that in, by key; so n may change on the way, and what no part has made is made then.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from leap.core.record import Record
from leap.errors import RecipeError, RunError
from leap.files import Journal
from leap.progress import Bar, Progress
from leap.recipe import Recipe
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.runs.executors import Executor, LocalConfig, LocalExecutor
from leap.runs.manifest import refusal
from leap.runs.open import check_same, open_run, recipe_of
from leap.runs.policies import PolicySpec
from leap.runs.shards import Shard
from leap.runs.stages import Stages
from leap.teachers.config import ModelTeacherConfig

R = TypeVar("R", bound=Record)

_PATIENCE = 10.0
"""Seconds in which a run may be begun by another part."""


@dataclass(frozen=True, slots=True)
class Part:
    """Part k of n, from 1."""

    k: int
    n: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Reads `k/n`.

        Raises:
            RecipeError: It is not of that form.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise RecipeError(f"--shard {text!r}: give k/n with k from 1 to n, for example 1/8.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"part {self.k} of {self.n}"


def open_for(root: Path, shard: str | None, recipe: Recipe | None = None) -> AbstractContextManager[Stages]:
    """The stages of a run, or where a command says `--shard k/n` those of that part; see `open_run` and `open_part`."""
    return open_run(root, recipe) if shard is None else open_part(root, Part.parse(shard), recipe)


@contextmanager
def open_part(root: Path, part: Part, recipe: Recipe | None = None) -> Iterator[Stages]:
    """The stages of a run for one part of their work. Other parts may be worked on meanwhile, but the run as a whole may not. The
    run is begun, if that is still to be done and a recipe is given.

    Raises:
        RunError: The run is worked on as a whole, or the same part is; the directory belongs to another recipe or is damaged.
    """
    run, waited = RunDirectory(root), time.monotonic() + _PATIENCE
    while recipe is not None and not run.recipe.exists():
        try:
            with open_run(root, recipe):
                pass
        except RunError:
            if not run.recipe.exists() and (not run.lock.exists() or time.monotonic() > waited):
                raise
            time.sleep(0.1)  # another part begins it
    with run.locked_for_part(part.k, part.n, patience=_PATIENCE):
        if recipe is not None:
            check_same(run, recipe)
        if damaged := [(path, told) for path, told in run.manifest.damage() if path.exists()]:
            raise refusal(damaged)
        with closing(PartStages(part, recipe or recipe_of(root), run, Progress())) as stages:
            yield stages


class PartStages(Stages):
    """The stages of a run, of which only a part is worked on, and whose files stay as they are.

    Args:
        part: Which part.
        *arguments: As of `Stages`.
    """

    def __init__(self, part: Part, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.part = part

    @cached_property
    def executor(self) -> Executor:
        config = self.recipe.executor
        executor = _Some(self.part, config if isinstance(config, LocalConfig) else None)
        self._opened.callback(executor.close)
        return executor

    def journal(self, path: Path, record: type[R]) -> Journal[R]:
        """A journal of the run with what all parts have made so far, which adds to this part's."""
        return _PartJournal(path, record, self.run.parts(path), self.run.part(path, self.part.k, self.part.n))

    def adopt(self, path: Path) -> None:
        """Notes are for whoever works on the run as a whole."""

    @contextmanager
    def booked(self, stage: str) -> Iterator[None]:
        yield

    @contextmanager
    def timed(
        self, stage: str, iteration: int, what: str, *journals: Path
    ) -> Iterator[tuple[Bar, Callable[..., None]]]:
        with self.progress.stage(f"{what}, {self.part}") as bar:
            yield bar, lambda **figures: None

    def correct_episodes(self, student: int, episodes: Any, journal: Any, iteration: int) -> None:
        section = self.recipe.teacher
        if isinstance(section, ModelTeacherConfig) and section.state == "extracted":
            raise _refused("teacher.state: extracted, for which a model reads logs first,")
        super().correct_episodes(student, episodes, journal, iteration)

    def _evaluate(self, spec: PolicySpec) -> list[Any]:
        """Plays; scores come from all parts together."""
        for split, tasks in self.evaluation_tasks().items():
            self._evaluated(spec, split, tasks)
        return []


class _PartJournal(Journal[R]):
    """A journal that adds to a part's own file and is read with all others beside it."""

    def __init__(self, path: Path, record: type[R], parts: Sequence[Path], own: Path) -> None:
        super().__init__(own, record)
        self._others = [Journal(other, record) for other in (path, *parts) if other != own]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[R]:
        seen = set[str]()
        for record in chain(super().__iter__(), *self._others):
            if (key := record.key) not in seen:  # type: ignore[attr-defined]
                seen.add(key)
                yield record

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or any(key in other for other in self._others)

    def get(self, key: str) -> R | None:
        return next((one for other in self._others if (one := other.get(key)) is not None), None) or super().get(key)


class _Some(LocalExecutor):
    """Works on every n-th shard."""

    whole = False

    def __init__(self, part: Part, config: LocalConfig | None) -> None:
        super().__init__(config)
        self._part = part

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        if shards[0].pays:
            raise _refused("work that asks models at endpoints")
        if own := [shard for shard in shards if shard.number % self._part.n == self._part.k - 1]:
            async for record in super().map(own, here):
                yield record


def _refused(what: str) -> RunError:
    return RunError(
        f"{what} is not shared out by --shard, for one process keeps ledger and budget; give the command without --shard: "
        "it asks about many episodes at once."
    )
