"""The self-test of a run's model teacher: a few calls about one training task, before anything is spent."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from leap.core import Episode, Task, seed_of
from leap.envs.base import listed
from leap.errors import ContractError, EnvironmentFault, PrerequisiteError
from leap.files import Journal
from leap.policies.base import ExpertPolicy
from leap.rollouts import Play, rollout
from leap.runs.stages import Stages
from leap.sync import run_sync
from leap.teachers.base import TeacherContext
from leap.teachers.config import ModelTeacherConfig
from leap.teachers.onfile import ExtractedState, StateExtractor
from leap.teachers.trial import Trial
from leap.teachers.trial import try_teacher as tried

log = logging.getLogger(__name__)


def try_teacher(stages: Stages) -> Trial | None:
    """Tries a run's model teacher out on one training task; says what came of it. None where there is nothing to try: another
    kind of teacher, one that has corrected already, or a recipe that asks for no self-test.

    Raises:
        PrerequisiteError: Nothing of its answers can be used.
    """
    recipe, run, environment = stages.recipe, stages.run, stages.environment
    section, corrected = recipe.teacher, range(1, recipe.iterations + 1)
    if not isinstance(section, ModelTeacherConfig) or not recipe.calls.self_test:
        return None
    if not corrected or any(file.exists() for i in corrected for file in (run.corrections(i), run.rows(i))):
        return None
    task = listed(environment, recipe.environment.train, limit=1, seed=seed_of(recipe.seed, "self-test"))[0]
    with stages.booked("self-test"), stages.progress.stage("self-test of the teacher"):
        try:
            states = _states(stages, task, section) if section.state == "extracted" else None
            context = TeacherContext(environment, seed=recipe.seed, states=states)
            trial = run_sync(tried(section, context, task, lambda: section.open(stages.actors.ledger)))
        except (EnvironmentFault, ContractError) as error:  # one task may fail where a share of them may
            log.warning("the teacher is not tried: %s", error)
            return None
    for line in trial.table:
        stages.progress.say(line)
    if not trial.usable:
        raise PrerequisiteError(
            f"nothing of the teacher's answers can be used: {' '.join(trial.problems)} (calls.self_test: false goes on "
            "all the same.)"
        )
    for problem in trial.problems:
        log.warning("self-test: %s", problem)
    return trial


def _states(stages: Stages, task: Task, section: ModelTeacherConfig) -> dict[str, str]:
    """The privileged state of one task, as the teacher's model reads it from the expert's play."""
    recipe, environment, played = stages.recipe, stages.environment, list[Episode]()
    rollout(
        environment, ExpertPolicy(environment), Play([task], recipe.horizon, recipe.seed, "self-test"), played.append
    )
    if not played[0].success:
        raise EnvironmentFault(
            f"the expert does not solve task {task.id}, so that there is no log to read a state from"
        )
    with TemporaryDirectory() as folder, closing(section.open(stages.actors.ledger)) as model:
        known = Journal(Path(folder) / "states.jsonl", ExtractedState)
        extractor = StateExtractor(environment, model, known, limit=section.limit, seed=recipe.seed)
        return run_sync(extractor.extract_all(played))
