"""A trained student in a world that its run does not name: other data, other splits, another horizon.

The official games after training on generated ones, say. Nothing of the run changes; what is played is kept under
`iter-i/elsewhere/`, and played once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from leap.core import Episode, content_key
from leap.core.episode import episode_key
from leap.envs.base import load_environment
from leap.errors import RecipeError
from leap.evaluation import Evaluation, evaluate_episodes
from leap.policies.base import ExpertPolicy, Policy, TeacherPolicy
from leap.rollout import episode_seed, rollout
from leap.stages import Stages
from leap.store import Journal, write_json


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
    policies: dict[str, Callable[[], Policy]] = {"expert": lambda: ExpertPolicy(environment)}
    for level in dict.fromkeys((0, recipe.teacher.privilege)):
        policies[f"teacher-{level}"] = lambda level=level: TeacherPolicy(environment, level)
    policies[f"pi_{i}"] = lambda: stages.cast.evaluated_student(i)
    evaluations = []
    for split in splits:
        tasks = environment.tasks(split)
        if both := sorted(trained_on & {task.id for task in tasks}):
            raise RecipeError(f"{len(both)} tasks of split {split!r} were trained on, for example {both[0]}; choose another.")
        for name, make in policies.items():
            policy, stream = make(), f"elsewhere-{name}"
            journal = Journal(folder / f"{split}-{name}.jsonl", Episode)
            with stages.progress.stage(f"evaluate {name} on {split}") as bar:

                def keep(episode: Episode, journal: Journal[Episode] = journal, bar: Any = bar, n: int = len(tasks)) -> None:
                    journal.append(episode)
                    bar.update(len(journal), n, f"{sum(e.success for e in journal) / len(journal):.0%} solved")

                rollout(
                    environment,
                    policy,
                    tasks,
                    horizon=horizon,
                    seed=recipe.seed,
                    stream=stream,
                    done=journal,
                    on_episode=keep,
                )
            keys = [
                episode_key(task, policy.actor, seed=episode_seed(recipe.seed, stream, task), horizon=horizon)
                for task in tasks
            ]
            played = [episode for key in keys if (episode := journal.get(key)) is not None]
            evaluations.append(evaluate_episodes(played, policy=name))
    write_json(folder / "evaluation.json", [evaluation.model_dump(mode="json") for evaluation in evaluations])
    return evaluations
