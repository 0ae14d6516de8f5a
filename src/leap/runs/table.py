"""The stage table: what a run of a recipe consists of, each stage with its inputs, its files and how it is made.

Each stage is named by a key of all that it depends on: equal keys, equal files. Keys come from recipes alone, so that what
two runs have in common is known before either starts. Whatever a section of a recipe holds counts, unless it is named here
as something that changes nothing: a key that a recipe gets in future makes stages differ rather than be shared wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap import __version__, registry
from leap.core import content_key
from leap.envs.base import Environment, load_environment
from leap.errors import LeapError
from leap.recipe import Recipe
from leap.runs.baselines import Baseline, baselines_of
from leap.runs.directory import RunDirectory, marker
from leap.training.method import method_of

if TYPE_CHECKING:
    from leap.runs.stages import Stages

_EVALUATION = {"validation", "validation_tasks", "test", "test_tasks"}
_TRAINING = {"train", "train_tasks"}
_WEIGHTS = {"model", "scratch"}
_KINDS = {"rollout", "base", "correct", "train", "evaluate"}
_AT = RunDirectory(Path())
"""Gives paths relative to a run directory."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a run.

    Attributes:
        name: What it makes, for people: "rollouts of pi_0".
        kind: rollout, base, correct, train or evaluate; stages that other packages add have kinds of their own.
        iteration: i; -1 outside the loop.
        key: Names it by all that it depends on.
        inputs: Names of the stages whose files it reads.
        files: Its files and folders, relative to the run directory; some may be missing.
        marker: The file that is there once it is finished, relative to the run directory.
        make: Makes it in a run, unless it is on file.
    """

    name: str
    kind: str
    iteration: int
    key: str
    inputs: tuple[str, ...]
    files: tuple[Path, ...]
    marker: Path
    make: Callable[[Stages], object]

    @property
    def added(self) -> bool:
        """Whether another package adds it."""
        return self.kind not in _KINDS

    def finished(self, run: RunDirectory) -> bool:
        """Whether it is on file."""
        return (run.root / self.marker).exists()

    def begun(self, run: RunDirectory) -> bool:
        """Whether anything of it is on file."""
        return any((run.root / file).exists() for file in (*self.files, self.marker))


AddStage = Callable[[Recipe, int, Sequence[Stage]], Stage | None]
"""What packages register as `leap.stages`: given a recipe, an iteration and the stages so far, a further stage of that
iteration, or None where the recipe asks for none."""


def stage_table(recipe: Recipe, environment: Environment | None = None) -> list[Stage]:
    """All stages of a recipe's run, in the order in which they are made.

    Args:
        recipe: The recipe.
        environment: Its environment, which need not be made ready; made from the recipe if None.
    """
    section = recipe.environment
    environment = environment or _environment(section.name, json.dumps(section.options, sort_keys=True))
    return _Table(recipe, environment).stages


def missing_stages(recipe: Recipe, run: RunDirectory, environment: Environment | None = None) -> list[Stage]:
    """Stages of a run that are not finished."""
    return [stage for stage in stage_table(recipe, environment) if not stage.finished(run)]


def new_stage(
    name: str,
    kind: str,
    iteration: int,
    make: Callable[[Stages], object],
    files: Sequence[Path],
    finished: Path,
    *,
    inputs: Sequence[Stage | str] = (),
    settings: Any = None,
) -> Stage:
    """Makes a stage with its key.

    Args:
        name: What it makes, for people; one of a kind in its run.
        kind: Its kind.
        iteration: i; -1 outside the loop.
        make: Makes it.
        files: Its files and folders, relative to the run directory.
        finished: The file that is there once it is finished.
        inputs: The stages whose files it reads; in place of one, the key of something that no run makes.
        settings: Whatever else it depends on, as JSON.
    """
    keys = [one if isinstance(one, str) else one.key for one in inputs]
    read = tuple(one.name for one in inputs if isinstance(one, Stage))
    key = content_key(__version__, kind, iteration, keys, settings)
    return Stage(name, kind, iteration, key, read, tuple(files), finished, make)


class _Table:
    """Builds the table of one recipe, stage by stage."""

    def __init__(self, recipe: Recipe, environment: Environment | None) -> None:
        self.recipe = recipe
        self.stages: list[Stage] = []
        deciding = {"policy": recipe.policy.model_dump(mode="json")}
        self._student = recipe.student.model_dump(mode="json", exclude=_WEIGHTS) | deciding
        self._acting = {key: value for key, value in self._student.items() if key != "evaluation_temperature"}
        self._teacher = recipe.teacher.model_dump(mode="json")
        self._method = method_of(recipe.training)
        for baseline in baselines_of(recipe, environment):
            self._baseline(baseline)
        data = {} if recipe.demonstrations.none else {0: self._demonstrations()}
        base = self._base(list(data.values()))
        weights = base if recipe.demonstrations.none else self._trained(0, base, list(data.values()))
        self._evaluated(0, weights)
        self._extend(0)
        for i in range(1, recipe.iterations + 1):
            rollouts = self._rollouts(i, weights)
            data[i] = self._corrections(i, rollouts, weights)
            start = base if self._method.starts_from(i) == "base" else weights
            weights = self._trained(i, start, [data[j] for j in self._method.reads(i) if j in data])
            self._evaluated(i, weights)
            self._extend(i)

    def _add(self, *values: Any, **options: Any) -> Stage:
        self.stages.append(new_stage(*values, **options))
        return self.stages[-1]

    def _extend(self, i: int) -> None:
        """Adds what other packages make of an iteration."""
        for more in _hooks():
            if (stage := more(self.recipe, i, tuple(self.stages))) is not None:
                self.stages.append(stage)

    def _baseline(self, baseline: Baseline) -> None:
        recipe, name = self.recipe, baseline.name
        settings: Any = {"idle": baseline.actions, "teacher": baseline.privilege}.get(baseline.kind)
        if baseline.kind == "model":
            settings = [recipe.teacher.model_dump(mode="json", exclude={"privilege"}), baseline.privilege]
        elif baseline.react is not None:
            shown = [recipe.demonstrations.model_dump(mode="json"), recipe.environment.train, recipe.horizon]
            settings = [baseline.react.model_dump(mode="json"), shown]
        self._add(
            f"evaluation of {name}",
            "evaluate",
            -1,
            lambda stages: stages.baseline(name),
            [_AT.evaluation(name).parent],
            _AT.evaluation(name),
            settings=[name, settings, self._evaluation_settings()],
        )

    def _demonstrations(self) -> Stage:
        recipe = self.recipe
        world = recipe.environment.model_dump(mode="json", exclude=_EVALUATION | {"train_tasks"})
        return self._add(
            "demonstrations",
            "rollout",
            0,
            lambda stages: (stages.rollout(0), stages.dataset(0)),
            [_AT.episodes(0), _AT.with_state(), _AT.annotations(), _AT.rows(0)],
            _AT.rows(0),
            settings=[
                world,
                recipe.horizon,
                recipe.seed,
                recipe.demonstrations.model_dump(mode="json"),
                self._student["prompt"],
                recipe.demonstrations.fingerprint,
            ],
        )

    def _base(self, data: Sequence[Stage]) -> Stage | str:
        """The model before any training: a stage where the run makes it, or else its key."""
        recipe = self.recipe
        if not recipe.student.from_scratch:
            return content_key(__version__, "base", recipe.student.model)
        return self._add(
            "random weights",
            "base",
            -1,
            lambda stages: stages.base(),
            [_AT.base],
            marker(_AT.base),
            inputs=data,
            settings=[recipe.student.scratch.model_dump(mode="json"), recipe.seed],
        )

    def _rollouts(self, i: int, weights: Stage | str) -> Stage:
        recipe, beta = self.recipe, self.recipe.rollouts.beta_at(i)
        alone = beta >= 1  # then the student takes no part, and its weights do not matter
        world = recipe.environment.model_dump(mode="json", exclude=_EVALUATION)
        mixture = [beta, recipe.teacher.privilege if beta else None]
        return self._add(
            f"rollouts of {'the teacher' if alone else f'pi_{i - 1}'}",
            "rollout",
            i,
            lambda stages: stages.rollout(i),
            [_AT.episodes(i)],
            _AT.rows(i),  # episodes on file may be some of them; rows are made from all
            inputs=[] if alone else [weights],
            settings=[world, recipe.horizon, recipe.seed, mixture, None if alone else self._acting],
        )

    def _corrections(self, i: int, rollouts: Stage, weights: Stage | str) -> Stage:
        recipe = self.recipe
        by_student = recipe.teacher.uses_student
        return self._add(
            f"corrections for pi_{i}",
            "correct",
            i,
            lambda stages: (stages.correct(i), stages.dataset(i)),
            [_AT.expert_play(i), _AT.states(i), _AT.corrections(i), _AT.rows(i)],
            _AT.rows(i),
            inputs=[rollouts, *([weights] if by_student else [])],
            settings=[
                self._teacher,
                self._acting if by_student else None,
                self._student["prompt"],
                recipe.horizon,
                recipe.seed,
            ],
        )

    def _trained(self, i: int, start: Stage | str, data: Sequence[Stage]) -> Stage:
        return self._add(
            f"pi_{i}",
            "train",
            i,
            lambda stages: stages.train(i),
            [_AT.checkpoint(i)],
            marker(_AT.checkpoint(i)),
            inputs=[start, *data],
            settings=[self._method.settings(i), self.recipe.seed],
        )

    def _evaluated(self, i: int, weights: Stage | str) -> Stage:
        name = f"pi_{i}"
        return self._add(
            f"evaluation of {name}",
            "evaluate",
            i,
            lambda stages: stages.evaluate(i),
            [_AT.played(name, "").parent, _AT.evaluation(name)],
            _AT.evaluation(name),
            inputs=[weights],
            settings=[self._student, self._evaluation_settings()],
        )

    def _evaluation_settings(self) -> list[Any]:
        recipe = self.recipe
        return [recipe.environment.model_dump(mode="json", exclude=_TRAINING), recipe.test_horizon, recipe.seed]


def _hooks() -> list[AddStage]:
    return [registry.stage.get(name) for name in registry.stage.names()]


@lru_cache(maxsize=64)
def _environment(name: str, options: str) -> Environment | None:
    """An environment that is not made ready; None where it cannot be made here."""
    try:
        return load_environment(name, json.loads(options))
    except LeapError:
        return None
