"""A trained student in a world that its run does not name: other data (the official games, say), other splits, another horizon.
Nothing of the run changes; what is played is kept under `iter-i/elsewhere/`, and played once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from leap.core import content_key
from leap.envs.base import load_environment
from leap.errors import RecipeError
from leap.evaluation import Evaluation
from leap.files import as_json
from leap.progress import Bar
from leap.rollouts import Play
from leap.runs.actors import Actors
from leap.runs.playing import score_tasks
from leap.runs.policies import PolicySpec, scripted
from leap.runs.stages import Stages


def evaluate_elsewhere(
    stages: Stages, i: int, options: dict[str, object], splits: Sequence[str], *, horizon: int | None = None
) -> list[Evaluation]:
    """Evaluates pi_i, the unprivileged expert and the teacher without and with privilege on splits of another world.

    Args:
        stages: The run's.
        i: Which pi_i plays.
        options: Of the run's environment, there.
        splits: Splits to play whole.
        horizon: By default the recipe's at evaluation.

    Raises:
        RecipeError: A task of these splits is one the run trained on.
    """
    section = stages.recipe.environment
    recipe = stages.recipe.model_copy(update={"environment": section.model_copy(update={"options": options})})
    horizon = horizon or recipe.test_horizon
    environment = load_environment(recipe.environment.name, options)
    with stages.progress.stage(f"prepare {recipe.environment.name}", notes=True) as bar:
        environment.prepare(bar.update)
    trained_on = {task.id for task in stages.environment.tasks(recipe.environment.train)}
    folder = stages.run.elsewhere(i, content_key(options))
    stages.run.manifest.write(folder / "environment.json", as_json({"name": recipe.environment.name, "options": options}))
    levels = dict.fromkeys((0, recipe.teacher.privilege))
    specs = (scripted(), *map(scripted, levels), PolicySpec("student", f"pi_{i}", iteration=i))

    evaluations = []
    with closing(environment), closing(Actors(recipe, stages.run, environment)) as actors:
        for split in splits:
            tasks = environment.tasks(split)
            if both := sorted(trained_on & {task.id for task in tasks}):
                raise RecipeError(
                    f"{len(both)} tasks of split {split!r} were trained on, for example {both[0]}; choose another."
                )
            for spec in specs:
                play = Play(tasks, horizon, recipe.seed, f"elsewhere-{spec.name}")
                journal = folder / f"{split}-{spec.name}.jsonl"
                shown = partial(_shown, stages, f"evaluate {spec.name} on {split}", journal)
                evaluations.append(score_tasks(spec, play, actors, journal, shown, stages.executor))
    scores = [evaluation.model_dump(mode="json") for evaluation in evaluations]
    stages.run.manifest.write(folder / "evaluation.json", as_json(scores))
    return evaluations


@contextmanager
def _shown(stages: Stages, what: str, journal: Path) -> Iterator[tuple[Bar, Callable[..., None]]]:
    with stages.progress.stage(what) as bar, stages.run.manifest.growing(journal):
        yield bar, lambda **figures: None  # the run's own figures stay as they are
