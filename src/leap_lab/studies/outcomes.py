"""What the runs of a study say: for each policy and seed, each test task's outcome."""

from __future__ import annotations

import json
from pathlib import Path

from leap.core import Episode
from leap.errors import RunError
from leap.evaluation import Evaluation
from leap.files import Journal, read_json
from leap.loop import best_on_validation
from leap.recipe import Recipe
from leap.runs.baselines import folder_name
from leap.runs.directory import RunDirectory
from leap.runs.table import missing_stages
from leap_lab.measures import IterationMeasures, read_measures
from leap_lab.measures.stage import measures_file


class Outcome(dict[str, Episode]):
    """Episodes by task key, of one policy in one run.

    Attributes:
        resolved: Which policy it was: `best` is some pi_i.
    """

    def __init__(self, episodes: dict[str, Episode], resolved: str) -> None:
        super().__init__(episodes)
        self.resolved = resolved

    def success(self) -> dict[str, float]:
        """1 where solved."""
        return {key: float(episode.success) for key, episode in self.items()}

    def actions(self) -> dict[str, float]:
        """Number of actions; a failure counts as the horizon."""
        return {key: float(episode.actions) for key, episode in self.items()}


class RunResults:
    """One finished run of a study.

    Args:
        recipe: The run's recipe.
        root: The run directory.
        split: The test split.
    """

    def __init__(self, recipe: Recipe, root: Path, split: str) -> None:
        self.recipe = recipe
        self.run = RunDirectory(root)
        self.split = split
        self._known: dict[str, Outcome | None] = {}

    @property
    def finished(self) -> bool:
        """Whether every stage is on file."""
        return not missing_stages(self.recipe, self.run)

    def outcome(self, policy: str) -> Outcome | None:
        """The episodes of a policy (with `@KIND`, of that kind) on the test split; None where there are none."""
        policy, _, kind = policy.partition("@")
        resolved = self.resolve(policy)
        if resolved not in self._known:
            self._known[resolved] = self._read(resolved)
        whole = self._known[resolved]
        if whole is None or not kind:
            return whole
        of_kind = {key: episode for key, episode in whole.items() if episode.task.kind == kind}
        return Outcome(of_kind, resolved) if of_kind else None

    def resolve(self, policy: str) -> str:
        """Returns which pi_i or baseline a policy's name means in this run."""
        if policy == "best":
            return f"pi_{self.best()}"
        if policy == "last":
            return f"pi_{self.recipe.iterations}"
        if policy == "react" and self.recipe.baselines.react:
            return folder_name(f"react-{self.recipe.baselines.react[0].model}")
        return f"teacher-{self.recipe.teacher.privilege}" if policy == "teacher" else policy

    def best(self) -> int:
        """i of the pi_i that did best on validation tasks."""
        students = [
            [Evaluation.model_validate(one) for one in read_json(self.run.evaluation(f"pi_{i}"))]
            for i in range(self.recipe.iterations + 1)
        ]
        return best_on_validation(students, self.recipe.environment.validation)

    def measures(self, i: int) -> IterationMeasures | None:
        """Leakage and realizability of iteration i, if measured."""
        return read_measures(measures_file(self.run, i))

    def makers(self) -> set[str]:
        """Versions and commits of leap that made this run."""
        lines = self.run.provenance.read_text(encoding="utf-8").splitlines() if self.run.provenance.exists() else []
        starts = [json.loads(line) for line in lines]
        return {f"leap {one['leap']} {one['commit']}, torch {one['packages'].get('torch', '?')}" for one in starts}

    def _read(self, resolved: str) -> Outcome | None:
        path = self.run.played(resolved, self.split)
        if not path.exists():
            return None
        journal = Journal(path, Episode)
        by_task = {episode.task.key: episode for episode in journal}
        if len(by_task) != len(journal):
            raise RunError(f"{path} holds several episodes of one task; remove it and run the study again.")
        return Outcome(by_task, resolved)
