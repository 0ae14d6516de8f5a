"""A trained student in a world that its run does not name: other data, other splits, another horizon.

The official games after training on generated ones, say. Nothing of the run changes; what is played is kept under
`iter-i/elsewhere/`, and played once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from leap.core import Episode, content_key
from leap.envs.base import load_environment
from leap.errors import RecipeError
from leap.evaluation import Evaluation, evaluate_episodes
from leap.files import Journal, write_json
from leap.progress import Bar
from leap.runs.actors import Actors, Role
from leap.runs.executors import Play
from leap.runs.play import play_tasks
from leap.runs.stages import Stages


def evaluate_elsewhere(
    stages: Stages, i: int, options: dict[str, Any], splits: Sequence[str], *, horizon: int | None = None
) -> list[Evaluation]:
    """Evaluates pi_i, the unprivileged expert and the teacher without and with privilege on splits of another world.

    Args:
        stages: The run's.
        i: Which pi_i plays.
        options: The environment's options there; the environment is the run's.
        splits: Splits to play whole.
        horizon: Largest number of actions; the recipe's at evaluation by default.

    Raises:
        RecipeError: A task of these splits is one the run trained on.
    """
    recipe = stages.recipe
    horizon = horizon or recipe.test_horizon
    environment = load_environment(recipe.environment.name, options)
    environment.prepare()
    trained_on = {task.id for task in stages.environment.tasks(recipe.environment.train)}
    folder = stages.run.elsewhere(i, content_key(options))
    write_json(folder / "environment.json", {"name": recipe.environment.name, "options": options})
    levels = dict.fromkeys((0, recipe.teacher.privilege))
    roles = {"expert": Role("expert")} | {f"teacher-{level}": Role("teacher", privilege=level) for level in levels}
    roles[f"pi_{i}"] = Role("student", i)

    @contextmanager
    def shown(what: str) -> Iterator[tuple[Bar, Callable[..., None]]]:
        with stages.progress.stage(what) as bar:
            yield bar, lambda **figures: None  # the run's own figures stay as they are

    evaluations = []
    with closing(environment), closing(Actors(recipe, stages.run, environment)) as actors:
        for split in splits:
            tasks = environment.tasks(split)
            if both := sorted(trained_on & {task.id for task in tasks}):
                raise RecipeError(
                    f"{len(both)} tasks of split {split!r} were trained on, for example {both[0]}; choose another."
                )
            for name, role in roles.items():
                play = Play(role, tuple(tasks), horizon, f"elsewhere-{name}")
                journal = Journal(folder / f"{split}-{name}.jsonl", Episode)
                played = play_tasks(play, actors, journal, partial(shown, f"evaluate {name} on {split}"))
                evaluations.append(evaluate_episodes(played, policy=name))
    write_json(folder / "evaluation.json", [evaluation.model_dump(mode="json") for evaluation in evaluations])
    return evaluations
