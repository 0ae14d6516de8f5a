"""Who plays in a run, by name alone; and who is evaluated beside the students: one list for the stages, the table, the report
and the studies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from leap.envs.base import Environment
from leap.recipe import ReActSection, Recipe


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """Who plays: with the recipe and the run directory, all that another process needs to make the policy.

    Attributes:
        kind: demonstrator: who plays D_0. rollout: who plays the training tasks of an iteration. student: pi_i as it is
            evaluated. expert, teacher: the environment's own scripts, executing their own corrections. idle: actions that do
            nothing for the task. model: the teacher's model playing itself. react: a model prompted with worked examples.
        name: Of a baseline, in tables and as a folder.
        actor: Its name in episodes.
        iteration: i of a rollout or a student.
        privilege: How far it may use the privileged state; None for those that never see it, as students but for one that is
            to be its own teacher.
        actions: Of an idle one.
        react: The recipe's section of a prompted one.
    """

    kind: Literal["demonstrator", "rollout", "student", "expert", "teacher", "idle", "model", "react"]
    name: str = ""
    actor: str = ""
    iteration: int = -1
    privilege: int | None = None
    actions: tuple[str, ...] = ()
    react: ReActSection | None = None


def scripted(privilege: int | None = None) -> PolicySpec:
    """The environment's teacher at a privilege, or its expert."""
    name = "expert" if privilege is None else f"teacher-{privilege}"
    return PolicySpec("expert" if privilege is None else "teacher", name, name, privilege=privilege)


def baselines_of(recipe: Recipe, environment: Environment | None) -> list[PolicySpec]:
    """The baselines of a recipe, in the order in which they are evaluated.

    Args:
        recipe: The recipe.
        environment: Its environment, which need not be made ready: scripted ones exist only where its tutor has scripts. None
            where it is not known; it is then taken to have an expert and a teacher.
    """
    teacher, tutor = recipe.teacher, environment.tutor if environment is not None else None
    found: list[PolicySpec] = []
    if environment is None or (tutor is not None and tutor.plays):
        found.append(scripted())
    found += idle_baselines(environment)
    if environment is None or (tutor is not None and tutor.corrects):
        found += [scripted(level) for level in dict.fromkeys((0, teacher.privilege, 100))]
    if recipe.baselines.teacher_model:
        for level in dict.fromkeys((0, teacher.privilege)):
            actor = f"{teacher.models[0].model}-{level}"
            found.append(PolicySpec("model", folder_name(actor), actor, privilege=level))
    for react in recipe.baselines.react:
        actor = f"react-{react.model}"
        found.append(PolicySpec("react", folder_name(actor), actor, react=react))
    return found


def idle_baselines(environment: Environment | None) -> list[PolicySpec]:
    """Those that do nothing for their tasks, where the environment has such: what every mean score stands beside."""
    tutor = environment.tutor if environment is not None else None
    idle = tutor.idle if tutor is not None else {}
    return [PolicySpec("idle", name, name, actions=tuple(script)) for name, script in idle.items()]


def teacher_acting(recipe: Recipe, privilege: int | None = None) -> str:
    """Name of the baseline in which the actions of the teacher that corrects are executed, at the recipe's privilege or at
    another. A model's is evaluated only where the recipe has `baselines.teacher_model`, a self teacher's never."""
    teacher = recipe.teacher
    at = teacher if privilege is None else teacher.model_copy(update={"privilege": privilege})
    return folder_name(at.acting)


def folder_name(name: str) -> str:
    """A policy's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
