"""leap from Python: run a recipe, look at a run, play and score tasks. Works in scripts and in notebooks.

What `leap/__init__.py` names is public; `leap.run` and its companions are defined here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from leap import registry
from leap.config import under_kind
from leap.core import Correction, Episode, Task
from leap.core.record import Record
from leap.datasets import Row, read_rows
from leap.envs.base import Environment, listed
from leap.errors import PrerequisiteError, RecipeError, RunError
from leap.evaluation import Evaluation, evaluate_episodes, read_evaluations
from leap.files import Journal
from leap.loop import best_on_validation
from leap.loop import leap as leap_loop
from leap.policies.base import Decide, FunctionPolicy, Policy
from leap.recipe import Recipe, put, read_mapping, resolved
from leap.recipes import find_recipe
from leap.report import write_report
from leap.rollouts import Play
from leap.rollouts import rollout as play_tasks
from leap.runs.directory import RunDirectory
from leap.runs.open import check_run, open_run, recipe_of
from leap.teachers.base import Teacher
from leap.teachers.config import TeacherConfig
from leap.teachers.function import TeacherFunction, teacher_class

if TYPE_CHECKING:
    import pandas

R = TypeVar("R", bound=Record)


class Records(list[R], Generic[R]):
    """Records of one kind in a list, which can be had as a table."""

    def df(self) -> pandas.DataFrame:
        """Returns one row per record: plain fields as columns, nested ones under dotted names; of an episode's steps their
        number, of an evaluation the scores over all tasks.

        Raises:
            PrerequisiteError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise PrerequisiteError("a table needs pandas: pip install pandas") from error
        return pandas.json_normalize([_row(record) for record in self])


class Run:
    """A run directory, to be read. It may be under way elsewhere: nothing is locked, and nothing but the report is written.

    Args:
        path: The run directory.

    Raises:
        RunError: There is no run directory, or it was made by a version that this one cannot read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = recipe_of(self.path)
        self._files = RunDirectory(self.path)

    def __repr__(self) -> str:
        return f"<leap run {self.path}>"

    def episodes(self, i: int) -> Records[Episode]:
        """Returns the episodes of iteration i: demonstrations (i = 0), or the rollouts of pi_{i-1}."""
        return Records(Journal(self._sound(self._files.episodes(i)), Episode))

    def corrections(self, i: int) -> Records[Correction]:
        """Returns the teacher's corrections of iteration i (from 1), rejected ones included."""
        return Records(Journal(self._sound(self._files.corrections(i)), Correction))

    def rows(self, i: int) -> Records[Row]:
        """Returns the training rows of D_i."""
        return Records(read_rows(self._sound(self._files.rows(i))))

    def evaluations(self) -> Records[Evaluation]:
        """Returns what has been evaluated so far, on each split: baselines, then pi_0, pi_1 and so on."""
        self._sound(self._files.baselines)  # one may be gone
        names = [*self._files.evaluated_baselines(), *(f"pi_{i}" for i in range(self.recipe.iterations + 1))]
        return Records(one for name in names for one in self._evaluations(name))

    def played(self, policy: str, split: str) -> Records[Episode]:
        """Returns the evaluation episodes of a policy such as `pi_1` or `expert` on a split."""
        return Records(Journal(self._sound(self._files.played(policy, split)), Episode))

    @property
    def best(self) -> int:
        """i of the pi_i that did best on validation tasks, of those evaluated so far.

        Raises:
            RunError: None has been evaluated.
        """
        students = [self._evaluations(f"pi_{i}") for i in range(self.recipe.iterations + 1)]
        evaluated = [evaluations for evaluations in students if evaluations]
        if not evaluated:
            raise RunError(f"no student of {self.path} has been evaluated yet.")
        return best_on_validation(evaluated, self.recipe.environment.validation)

    def checkpoint(self, i: int | None = None) -> Path:
        """Returns the folder of pi_i's weights; of the best student by default."""
        return self._files.checkpoint(self.best if i is None else i)

    def report(self) -> Path:
        """Writes the report and returns its page."""
        return write_report(self.recipe, self._files)

    def _evaluations(self, policy: str) -> list[Evaluation]:
        return read_evaluations(self._sound(self._files.evaluation(policy)))

    def _sound(self, path: Path) -> Path:
        """A file that is still what its stage wrote."""
        self._files.manifest.check(path)
        return path


def run(
    recipe: str | Path | Mapping[str, object] | Recipe,
    *,
    environment: Environment | None = None,
    teacher: str | type[Teacher[Any]] | TeacherFunction | None = None,
    set: Mapping[str, object] | None = None,
    run_dir: str | Path | None = None,
) -> Run:
    """Runs a recipe from nothing to a report. The same call goes on after any interruption.

    Args:
        recipe: A shipped recipe's name, a YAML file, a mapping of its keys and values, or a recipe.
        environment: The environment, in place of the one that the recipe names: its class and its config. Workers of other
            processes make it anew from these.
        teacher: A function that corrects: it takes what a teacher may know of a step and returns a decision, or None where
            there is nothing to teach; or a teacher's class or registered name. It replaces the recipe's teacher.
        set: Values that replace the recipe's, by dotted key: `{"iterations": 1}`.
        run_dir: Where everything is kept; `runs/NAME` by default.

    Returns:
        The finished run.

    Raises:
        RecipeError: The recipe is not valid.
        PrerequisiteError: Something that it needs is missing; the message says what.
        RunError: The directory belongs to another recipe or is in use.
    """
    resolved = _recipe(recipe, environment, teacher, set or {})
    root = Path(run_dir) if run_dir is not None else Path("runs") / resolved.name
    with open_run(root, resolved, check_run(root, resolved)) as stages:
        leap_loop(stages)
    done = Run(root)
    done.report()
    return done


def rollout(
    environment: Environment,
    policy: Policy | Decide,
    tasks: Sequence[Task],
    *,
    horizon: int = 30,
    seed: int = 0,
    stream: str = "rollout",
) -> Records[Episode]:
    """Plays every task once and returns the episodes, in the order of the tasks.

    Args:
        environment: Where to play.
        policy: Who plays: a policy, or a function from a history to an action or a decision.
        tasks: What to play.
        horizon: Largest number of actions per episode.
        seed: The one source of randomness.
        stream: Name of the random stream, so that different rollouts draw differently.
    """
    who = policy if not callable(policy) else FunctionPolicy(policy)
    episodes: list[Episode] = []
    play_tasks(environment, who, Play(tasks, horizon, seed, stream), episodes.append)
    found = {episode.task.key: episode for episode in episodes}
    return Records(found[task.key] for task in tasks)


def evaluate(
    environment: Environment,
    policy: Policy | Decide,
    split: str,
    *,
    limit: int | None = None,
    horizon: int = 30,
    seed: int = 0,
) -> Evaluation:
    """Plays a split's tasks and returns the scores, with n and 95 % intervals.

    Args:
        environment: Where to play.
        policy: Who plays.
        split: Which tasks.
        limit: A seeded sample of so many tasks; all by default.
        horizon: Largest number of actions per episode.
        seed: The one source of randomness.
    """
    tasks = listed(environment, split, limit=limit, seed=seed)
    played = rollout(environment, policy, tasks, horizon=horizon, seed=seed, stream=f"evaluate-{split}")
    return evaluate_episodes(played, policy=played[0].actor.name)


def _recipe(
    recipe: str | Path | Mapping[str, object] | Recipe,
    environment: Environment | None,
    teacher: str | type[Teacher[Any]] | TeacherFunction | None,
    settings: Mapping[str, object],
) -> Recipe:
    """A recipe from what `run` was given."""
    if isinstance(recipe, Recipe):
        values: dict[str, Any] = recipe.model_dump(mode="json")
    elif isinstance(recipe, Mapping):
        try:
            values = json.loads(json.dumps(dict(recipe)))
        except (TypeError, ValueError, RecursionError) as error:
            raise RecipeError(f"the recipe may hold what YAML holds: mappings, lists, texts and numbers ({error}).") from error
    else:
        values = read_mapping(find_recipe(str(recipe)), "recipe")
    if not isinstance(settings, Mapping):
        raise RecipeError("set must be a mapping of dotted keys to values, such as {'iterations': 1}.")
    if environment is not None and not isinstance(environment, Environment):
        raise RecipeError(
            f"environment must be an environment, such as MyEnvironment(), not {environment!r}; one that is registered is "
            "chosen by set={'environment.name': ...}."
        )
    if environment is not None:
        options = environment.config.model_dump(mode="json", exclude_defaults=True)
        name = _registered(registry.environment, type(environment))
        values["environment"] = values.get("environment", {}) | {"name": name, "options": options}
    if teacher is not None:
        teacher_class(teacher)  # refuses what is none
        name = teacher if isinstance(teacher, str) else _registered(registry.teacher, teacher)
        values["teacher"] = under_kind(registry.teacher, TeacherConfig, values.get("teacher", {}), name)
    for key, value in settings.items():
        put(values, key, copy.deepcopy(value))
    return resolved(values, "the recipe")


def _registered(kind: registry.Registry, thing: Any) -> str:
    """The name that an environment's class or a teacher is registered by; it is registered by its own name if it is not."""
    name = getattr(thing, "__dict__", {}).get("name") or getattr(thing, "__name__", type(thing).__name__).strip("<>")
    if name not in kind.names() or kind.get(name) is not thing:
        kind(name)(thing)
    return name


def _row(record: Record) -> dict[str, object]:
    """A record as one row of a table, with nested fields."""
    if isinstance(record, Evaluation):
        return record.model_dump(mode="json", include={"policy", "split", "horizon"}) | record.overall.model_dump(mode="json")
    row = record.model_dump(mode="json")
    if isinstance(record, Correction):
        row["kept"] = record.kept
    if isinstance(record, Episode):
        row |= {"steps": len(record.steps), "actions": record.actions}
    return row
