"""The stage table: what a run of a recipe consists of, each stage with its inputs, its files and how it is made.

Each stage is named by a key of all that it depends on: equal keys, equal files. Keys come from recipes alone, so that what
two runs have in common is known before either starts. Whatever a section of a recipe holds counts, unless it is named here
as something that changes nothing: a key that a recipe gets in future makes stages differ rather than be shared wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING

from leap import __version__, registry
from leap.config import Section
from leap.core import content_key
from leap.envs.base import Environment, load_environment
from leap.errors import LeapError
from leap.models.checkpoints import model_identity
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory, marker
from leap.runs.policies import PolicySpec, baselines_of
from leap.training.method import method_of

if TYPE_CHECKING:
    from leap.runs.stages import Stages

_EVALUATION = {"validation", "validation_tasks", "test", "test_tasks"}
_TRAINING = {"train", "train_tasks"}
_WEIGHTS = {"model", "scratch"}
_AT = RunDirectory(Path())
"""Gives paths relative to a run directory."""
_MAKE: dict[str, Callable[[Stages, int], object]] = {
    "rollout": lambda stages, i: stages.rollout(i) if i else (stages.rollout(0), stages.dataset(0)),
    "base": lambda stages, i: stages.base(),
    "correct": lambda stages, i: (stages.correct(i), stages.dataset(i)),
    "train": lambda stages, i: stages.train(i),
    "evaluate": lambda stages, i: stages.evaluate(i),
}
"""How leap's own kinds of stages are made."""


def _make(kind: str, i: int) -> Callable[[Stages], object]:
    return lambda stages: _MAKE[kind](stages, i)


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage of a run.

    Packages register functions that do as `leap.stages`: given a recipe, an iteration and the stages so far, they return a
    further stage of that iteration, or None where the recipe asks for none.

    Attributes:
        name: What it makes, for people: "rollouts of pi_0". One of a kind in its run.
        kind: rollout, base, correct, train or evaluate; stages that other packages add have kinds of their own.
        iteration: i; -1 outside the loop.
        files: Its files and folders, relative to the run directory; some may be missing.
        marker: The file that is there once it is finished, relative to the run directory.
        make: Makes it in a run, unless it is on file.
        inputs: The stages whose files it reads; in place of one, the key of something that no run makes.
        settings: Whatever else it depends on, as JSON.
    """

    name: str
    kind: str
    iteration: int
    files: Sequence[Path]
    marker: Path
    make: Callable[[Stages], object]
    inputs: Sequence[Stage | str] = ()
    settings: object = None

    @cached_property
    def key(self) -> str:
        """Names it by all that it depends on."""
        inputs = [one if isinstance(one, str) else one.key for one in self.inputs]
        return content_key(__version__, self.kind, self.iteration, inputs, self.settings)

    @property
    def added(self) -> bool:
        """Whether another package adds it."""
        return self.kind not in _MAKE

    def finished(self, run: RunDirectory) -> bool:
        """Whether it is on file."""
        return (run.root / self.marker).exists()

    def begun(self, run: RunDirectory) -> bool:
        """Whether anything of it is on file."""
        return any((run.root / file).exists() for file in (*self.files, self.marker))


def stage_table(recipe: Recipe, environment: Environment | None = None) -> list[Stage]:
    """All stages of a recipe's run, in the order in which they are made. The environment need not be made ready."""
    section = recipe.environment
    environment = environment or _environment(section.name, json.dumps(section.options, sort_keys=True))
    return _Table(recipe, environment).stages


def missing_stages(recipe: Recipe, run: RunDirectory, environment: Environment | None = None) -> list[Stage]:
    """Stages of a run that are not finished."""
    return [stage for stage in stage_table(recipe, environment) if not stage.finished(run)]


class _Table:
    """Builds the table of one recipe, stage by stage."""

    def __init__(self, recipe: Recipe, environment: Environment | None) -> None:
        self.recipe = recipe
        self.stages: list[Stage] = []
        self._student = _values(recipe.student, _WEIGHTS | {"engine"})
        self._student["policy"] = _values(recipe.policy) | recipe.policy.content()
        if (engine := recipe.student.engine.kind) != "hf":  # where it runs, and how large, may change on the way
            self._student["engine"] = engine
        self._acting = {key: value for key, value in self._student.items() if key != "evaluation_temperature"}
        self._tested = [_values(recipe.environment, _TRAINING), recipe.test_horizon, recipe.seed]
        self._method = method_of(recipe.training)
        for spec in baselines_of(recipe, environment):
            self._baseline(spec)
        data = {} if recipe.demonstrations.none else {0: self._demonstrations()}
        base = self._base(list(data.values()))
        weights = base if recipe.demonstrations.none else self._trained(0, base, list(data.values()))
        self._evaluated(0, weights)
        for i in range(1, recipe.iterations + 1):
            rollouts = self._rollouts(i, weights)
            data[i] = self._corrections(i, rollouts, weights, [data[j] for j in sorted(data)])
            start = base if self._method.starts_from(i) == "base" else weights
            weights = self._trained(i, start, [data[j] for j in self._method.reads(i) if j in data])
            self._evaluated(i, weights)

    def _add(self, stage: Stage) -> Stage:
        self.stages.append(stage)
        return stage

    def _baseline(self, spec: PolicySpec) -> None:
        recipe, file = self.recipe, _AT.evaluation(spec.name)
        own: object = {"idle": spec.actions, "teacher": spec.privilege}.get(spec.kind)
        if spec.kind == "model":
            own = [_values(recipe.teacher, {"privilege"}), spec.privilege]
        elif spec.react is not None:
            own = [_values(spec.react), [_values(recipe.demonstrations), recipe.environment.train, recipe.horizon]]
        name, make, settings = f"evaluation of {spec.name}", methodcaller("baseline", spec), [spec.name, own, self._tested]
        self._add(Stage(name, "evaluate", -1, [file.parent], file, make, settings=settings))

    def _demonstrations(self) -> Stage:
        recipe, section = self.recipe, self.recipe.demonstrations
        world = _values(recipe.environment, _EVALUATION | {"train_tasks"})
        settings = [world, recipe.horizon, recipe.seed, _values(section), self._student["prompt"], section.fingerprint]
        files = [_AT.episodes(0), _AT.with_state(), _AT.annotations(), _AT.rows(0)]
        return self._add(Stage("demonstrations", "rollout", 0, files, files[-1], _make("rollout", 0), settings=settings))

    def _base(self, data: Sequence[Stage]) -> Stage | str:
        """The model before any training: a stage where the run makes it, or else its key."""
        student = self.recipe.student
        if not student.from_scratch:
            return content_key(__version__, "base", model_identity(student.model))
        settings = [_values(student.scratch), self.recipe.seed]
        done = marker(_AT.base)
        return self._add(Stage("random weights", "base", -1, [_AT.base], done, _make("base", -1), data, settings))

    def _rollouts(self, i: int, weights: Stage | str) -> Stage:
        recipe, beta = self.recipe, self.recipe.rollouts.beta_at(i)
        alone = beta >= 1  # then the student takes no part, and its weights do not matter
        mixture = [beta, recipe.teacher.privilege if beta else None]
        world = _values(recipe.environment, _EVALUATION)
        settings = [world, recipe.horizon, recipe.seed, mixture, None if alone else self._acting]
        settings += ["tokens"] if recipe.keeps_tokens else []
        name = f"rollouts of {'the teacher' if alone else f'pi_{i - 1}'}"
        inputs = [] if alone else [weights]
        # Episodes on file may be some of them; rows are made from all.
        done = _AT.rows(i)
        return self._add(Stage(name, "rollout", i, [_AT.episodes(i)], done, _make("rollout", i), inputs, settings))

    def _corrections(self, i: int, rollouts: Stage, weights: Stage | str, earlier: Sequence[Stage]) -> Stage:
        recipe, by_student = self.recipe, self.recipe.teacher.uses_student
        acting = self._acting if by_student else None
        settings = [_values(recipe.teacher), acting, self._student["prompt"], recipe.horizon, recipe.seed]
        files = [_AT.expert_play(i), _AT.states(i), _AT.corrections(i), _AT.rows(i)]
        inputs = [rollouts, *([weights] if by_student else [])]
        inputs += earlier if getattr(recipe.teacher, "state", "") == "hindsight" else []  # whose episodes it may be told
        make = _make("correct", i)
        return self._add(Stage(f"corrections for pi_{i}", "correct", i, files, files[-1], make, inputs, settings))

    def _trained(self, i: int, start: Stage | str, data: Sequence[Stage]) -> Stage:
        settings, out = [self._method.settings(i), self.recipe.seed], _AT.checkpoint(i)
        files = [_AT.privileged(i - 1), out] if i else [out]
        if i and self.recipe.training.by_value:
            settings += [_values(self.recipe.value), self._acting]
        return self._add(Stage(f"pi_{i}", "train", i, files, marker(out), _make("train", i), [start, *data], settings))

    def _evaluated(self, i: int, weights: Stage | str) -> None:
        """The evaluation of pi_i, and what other packages make of iteration i."""
        file = _AT.evaluation(f"pi_{i}")
        files, settings = [_AT.played(f"pi_{i}", "").parent, file], [self._student, self._tested]
        self._add(Stage(f"evaluation of pi_{i}", "evaluate", i, files, file, _make("evaluate", i), [weights], settings))
        for name in registry.stage.names():
            if (stage := registry.stage.get(name)(self.recipe, i, tuple(self.stages))) is not None:
                self.stages.append(stage)


def _values(section: Section, without: set[str] | None = None) -> dict[str, object]:
    """What a section says, with the models that are loaded here named by what they hold."""
    return {name: _by_content(value, name) for name, value in section.model_dump(mode="json", exclude=without).items()}


def _by_content(values: object, key: str = "") -> object:
    if isinstance(values, dict):
        return {name: _by_content(value, str(name)) for name, value in values.items()}
    if isinstance(values, list):
        return [_by_content(value) for value in values]
    return model_identity(values) if key == "model" and isinstance(values, str) else values


@lru_cache(maxsize=64)
def _environment(name: str, options: str) -> Environment | None:
    """An environment that is not made ready; None where it cannot be made here."""
    try:
        return load_environment(name, json.loads(options))
    except LeapError:
        return None
