"""D_0: which demonstrations are cloned, with whose reasons, and steps that show the student a privileged state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from leap import datasets
from leap.core import Episode, PrivilegedState, StopReason, Task
from leap.datasets import Row
from leap.demonstrations.sources import AnnotatorConfig, PlayedConfig
from leap.envs.live import states_along
from leap.errors import RunError
from leap.models.breaker import check_lost
from leap.rollouts import Play
from leap.runs.correcting import up_to_labels
from leap.runs.policies import scripted
from leap.sync import run_sync
from leap.teachers.hindsight import account, known
from leap.teachers.prompts import PrivilegedRenderer

if TYPE_CHECKING:
    from leap.runs.stages import Stages


def demonstrated_tasks(stages: Stages) -> list[Task]:
    """The training tasks that are demonstrated."""
    drawn = stages.tasks(stages.recipe.environment.train, _section(stages).episodes, "demonstrations")
    return list(stages.actors.demonstrations.tasks(drawn))


def by_task(episode: Episode) -> tuple[str, str]:
    """What episodes are sorted by: a journal's own order is that in which they happened to finish."""
    return episode.task.split, episode.task.id


def _section(stages: Stages) -> PlayedConfig:
    """The recipe's demonstrations, where there are any."""
    section = stages.recipe.demonstrations
    assert isinstance(section, PlayedConfig)
    return section


def demonstrations(stages: Stages) -> list[Episode]:
    """The episodes to clone, with reasons.

    Raises:
        RunError: None is good enough, or the model that is to give reasons fails too often.
    """
    episodes, section = stages.in_order(0), _section(stages)
    wanted = [e for e in episodes if section.keeps(e) and e.stop is not StopReason.ENVIRONMENT_ERROR]
    if not any(episode.steps for episode in wanted):
        raise RunError(
            f"none of {len(episodes)} demonstrations by {section.who} is good enough to be cloned. Give a longer "
            f"horizon or more demonstrations.episodes, or change what is kept: {section.kept_by}."
        )
    return _annotated(stages, up_to_labels(section.labels, wanted, stages.recipe.seed, "labels-0"), section.annotate)


def _annotated(stages: Stages, demonstrations: list[Episode], section: AnnotatorConfig | None) -> list[Episode]:
    """The demonstrations, where the recipe asks for it with the reasons of a model."""
    if section is None or (not section.replace and all(step.reason for e in demonstrations for step in e.steps)):
        return demonstrations
    annotated, annotator = list[Episode](), stages.actors.annotator(section)
    under_way = stages.timed("correct", 0, "reasons for demonstrations", stages.run.annotations())
    with under_way as (bar, _), stages.booked("annotate"):

        def keep(episode: Episode) -> None:
            annotated.append(episode)
            bar.update(len(annotated), len(demonstrations), stages.actors.spent)

        run_sync(annotator.annotate_all(demonstrations, keep))
        check_lost(annotator.model.name, annotator.lost, len(demonstrations), stages.recipe.lost_share)
    return sorted(annotated, key=by_task)


def privileged_rows(stages: Stages) -> Iterator[Row]:
    """Where the recipe asks for it, steps with the privileged state behind the prompt, as the self teacher will render it: of
    the environment's teacher on the tasks of the demonstrations, and of demonstrations that solved them, in hindsight."""
    recipe, student = stages.recipe, stages.actors.whole_renderer
    section = recipe.demonstrations

    def shown(privilege: int, episode: Episode, states: Sequence[PrivilegedState]) -> Iterator[Row]:
        return datasets.privileged_rows(episode, states, PrivilegedRenderer(student, privilege).render, student)

    if privilege := getattr(section, "with_state", 0):
        play = Play(demonstrated_tasks(stages), recipe.horizon, recipe.seed, "rollout-with-state")
        journal = stages.journal(stages.run.with_state(), Episode)
        for episode in stages.play(0, scripted(privilege), play, journal, f"teacher's play at privilege {privilege}"):
            if section.keeps(episode) and episode.stop is not StopReason.ENVIRONMENT_ERROR:
                yield from shown(privilege, episode, run_sync(states_along(stages.environment, episode)))
    if privilege := getattr(section, "in_hindsight", 0):
        for episode in demonstrations(stages):
            if episode.success:
                yield from shown(privilege, episode, [known(account(episode))] * len(episode.steps))
