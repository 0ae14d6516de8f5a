"""A trained student in a world that its run does not name: other data, other splits, another horizon.

The official games after training on generated ones, say. Nothing of the run changes; what is played is kept under
`iter-i/elsewhere/`, and played once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from leap.core import Actor, Episode, content_key
from leap.envs.base import load_environment
from leap.errors import RecipeError
from leap.evaluation import Evaluation, evaluate_episodes
from leap.files import Journal, write_json
from leap.policies.base import ExpertPolicy, Policy, TeacherPolicy
from leap.progress import Bar
from leap.runs.play import play_tasks
from leap.runs.stages import Stages


def evaluate_elsewhere(
    stages: Stages, i: int, options: dict[str, Any], splits: Sequence[str], *, horizon: int | None = None
) -> list[Evaluation]:
    """pi_i, the unprivileged expert and the teacher without and with privilege on splits of another world.

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
    folder = stages.run.iteration(i) / "elsewhere" / content_key(options)
    write_json(folder / "environment.json", {"name": recipe.environment.name, "options": options})
    policies: list[Policy] = [ExpertPolicy(environment)]
    policies += [TeacherPolicy(environment, level) for level in dict.fromkeys((0, recipe.teacher.privilege))]
    players: dict[str, tuple[Actor, Callable[[], Policy]]] = {
        policy.actor.name: (policy.actor, lambda policy=policy: policy) for policy in policies
    }
    players[f"pi_{i}"] = stages.cast.student_actor(i), lambda: stages.cast.evaluated_student(i)

    @contextmanager
    def shown(what: str) -> Iterator[tuple[Bar, Callable[..., None]]]:
        with stages.progress.stage(what) as bar:
            yield bar, lambda **figures: None  # the run's own figures stay as they are

    evaluations = []
    for split in splits:
        tasks = environment.tasks(split)
        if both := sorted(trained_on & {task.id for task in tasks}):
            raise RecipeError(f"{len(both)} tasks of split {split!r} were trained on, for example {both[0]}; choose another.")
        for name, (actor, policy) in players.items():
            played = play_tasks(
                environment,
                actor,
                policy,
                tasks,
                Journal(folder / f"{split}-{name}.jsonl", Episode),
                horizon=horizon,
                seed=recipe.seed,
                stream=f"elsewhere-{name}",
                under_way=partial(shown, f"evaluate {name} on {split}"),
            )
            evaluations.append(evaluate_episodes(played, policy=name))
    write_json(folder / "evaluation.json", [evaluation.model_dump(mode="json") for evaluation in evaluations])
    return evaluations
