"""Who is evaluated beside the students: the one list of names, for the stages, the table, the report and the studies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from leap.envs.base import Environment
from leap.recipe import ReActSection, Recipe


@dataclass(frozen=True, slots=True)
class Baseline:
    """A policy outside the loop that is evaluated on the same tasks as the students.

    Attributes:
        name: Its name in tables, and of its folder.
        actor: Its name in episodes.
        kind: idle: actions that do nothing for the task. expert: the environment's expert. teacher: the environment's scripted
            teacher executing its own corrections. model: the teacher's model playing itself. react: a model prompted with
            worked examples.
        privilege: How far it may use the privileged state; None for those that never see it.
        actions: Of an idle one.
        react: The recipe's section of a prompted one.
    """

    name: str
    actor: str
    kind: Literal["idle", "expert", "teacher", "model", "react"]
    privilege: int | None = None
    actions: tuple[str, ...] = ()
    react: ReActSection | None = None


def baselines_of(recipe: Recipe, environment: Environment | None) -> list[Baseline]:
    """The baselines of a recipe, in the order in which they are evaluated.

    Args:
        recipe: The recipe.
        environment: Its environment, which need not be made ready: scripted ones exist only where its tutor has scripts. None
            where it is not known; it is then taken to have an expert and a teacher.
    """
    teacher, tutor = recipe.teacher, environment.tutor if environment is not None else None
    found: list[Baseline] = []
    if environment is None or (tutor is not None and tutor.plays):
        found.append(Baseline("expert", "expert", "expert"))
    found += idle_baselines(environment)
    if environment is None or (tutor is not None and tutor.corrects):
        levels = dict.fromkeys((0, teacher.privilege, 100))
        found += [Baseline(f"teacher-{level}", f"teacher-{level}", "teacher", level) for level in levels]
    if recipe.baselines.teacher_model:
        for level in dict.fromkeys((0, teacher.privilege)):
            actor = f"{teacher.models[0].model}-{level}"
            found.append(Baseline(folder_name(actor), actor, "model", level))
    for react in recipe.baselines.react:
        actor = f"react-{react.model}"
        found.append(Baseline(folder_name(actor), actor, "react", react=react))
    return found


def idle_baselines(environment: Environment | None) -> list[Baseline]:
    """Those that do nothing for their tasks, where the environment has such: what every mean score stands beside."""
    tutor = environment.tutor if environment is not None else None
    idle = tutor.idle if tutor is not None else {}
    return [Baseline(name, name, "idle", actions=tuple(script)) for name, script in idle.items()]


def teacher_acting(recipe: Recipe, privilege: int | None = None) -> str:
    """Name of the baseline in which the actions of the teacher that corrects are executed, at the recipe's privilege or at
    another. A model's is evaluated only where the recipe has `baselines.teacher_model`, a self teacher's never."""
    teacher = recipe.teacher
    at = teacher if privilege is None else teacher.model_copy(update={"privilege": privilege})
    return folder_name(at.acting)


def folder_name(name: str) -> str:
    """A policy's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
