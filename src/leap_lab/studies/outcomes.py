"""What the runs of a study say: for each policy and seed, each test task's outcome."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from leap.api import Run
from leap.core import Episode
from leap.errors import RunError
from leap.recipe import Recipe
from leap.runs.baselines import folder_name
from leap.runs.directory import RunDirectory
from leap.runs.table import missing_stages
from leap_lab.measures import IterationMeasures, read_measures
from leap_lab.measures.stage import measures_file


@dataclass(frozen=True)
class Outcome:
    """The episodes of one policy in one run.

    Attributes:
        resolved: Which policy it was: `best` is some pi_i.
        episodes: By task key.
    """

    resolved: str
    episodes: dict[str, Episode]

    def __len__(self) -> int:
        return len(self.episodes)

    def success(self) -> dict[str, float]:
        """1 where solved."""
        return {key: float(episode.success) for key, episode in self.episodes.items()}

    def actions(self) -> dict[str, float]:
        """Number of actions; a failure counts as the horizon."""
        return {key: float(episode.actions) for key, episode in self.episodes.items()}


class RunResults:
    """One run of a study, finished or not.

    Args:
        recipe: The run's recipe.
        root: The run directory.
        split: The test split.
    """

    def __init__(self, recipe: Recipe, root: Path, split: str) -> None:
        self.recipe = recipe
        self.files = RunDirectory(root)
        self.split = split
        self._played = cache(self._read)

    @cached_property
    def _run(self) -> Run:
        return Run(self.files.root)

    @property
    def finished(self) -> bool:
        """Whether every stage is on file."""
        return not missing_stages(self.recipe, self.files)

    def outcome(self, policy: str) -> Outcome | None:
        """The episodes of a policy (with `@KIND`, of that kind) on the test split; None where there are none."""
        policy, _, kind = policy.partition("@")
        resolved = self.resolve(policy)
        episodes = {key: one for key, one in self._played(resolved).items() if kind in ("", one.task.kind)}
        return Outcome(resolved, episodes) if episodes else None

    def resolve(self, policy: str) -> str:
        """Returns which pi_i or baseline a policy's name means in this run."""
        if policy == "best":
            return f"pi_{self._run.best}"
        if policy == "last":
            return f"pi_{self.recipe.iterations}"
        if policy == "react" and self.recipe.baselines.react:
            return folder_name(f"react-{self.recipe.baselines.react[0].model}")
        return f"teacher-{self.recipe.teacher.privilege}" if policy == "teacher" else policy

    def measures(self) -> IterationMeasures | None:
        """Leakage and realizability of the last iteration, if measured."""
        return read_measures(measures_file(self.files, self.recipe.iterations))

    def makers(self) -> set[str]:
        """Versions and commits of leap that made this run."""
        path = self.files.provenance
        starts = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        return {f"leap {one['leap']} {one['commit']}, torch {one['packages'].get('torch', '?')}" for one in starts}

    def _read(self, policy: str) -> dict[str, Episode]:
        played = self._run.played(policy, self.split)
        by_task = {episode.task.key: episode for episode in played}
        if len(by_task) != len(played):
            path = self.files.played(policy, self.split)
            raise RunError(f"{path} holds several episodes of one task; remove it and run the study again.")
        return by_task
