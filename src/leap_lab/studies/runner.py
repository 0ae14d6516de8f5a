"""Runs a study's arms, one after the other, each in a run directory of its own, resumably. Nothing that two have in
common is made twice: stages that another run has finished are taken from there."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from leap.errors import LeapError, RecipeError
from leap.files import atomic_directory, read_json
from leap.loop import leap
from leap.recipe import Recipe, load_recipe
from leap.runs.directory import RunDirectory
from leap.runs.open import open_run
from leap.runs.table import Stage, missing_stages, stage_table
from leap_lab.studies.results import RunResults, Runs
from leap_lab.studies.schema import LoopStudy, arm_recipe, run_name


class Arm(NamedTuple):
    """One run of a study."""

    name: str
    seed: int
    recipe: Recipe
    run: Path


class Taken(NamedTuple):
    """A stage and the run it came from."""

    stage: Stage
    source: Path


class Choice(NamedTuple):
    """What a user wants of a study: some arms only, other seeds than the study's, changes of every arm."""

    arms: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    changes: Mapping[str, object] | None = None


EVERYTHING = Choice()


def arms_of(study: LoopStudy, base: Recipe, root: Path, choice: Choice = EVERYTHING) -> list[Arm]:
    """Returns the runs of a study on a base recipe, below the folder of all studies' runs, seed by seed, so that a study cut
    short has all arms of its first seeds.

    Raises:
        RecipeError: There is no such arm, or an arm is no valid recipe.
    """
    known = study.changes()
    unknown = [arm for arm in choice.arms or () if arm not in known]
    if unknown:
        raise RecipeError(f"study {study.name} has no arm {unknown[0]!r}; it has {', '.join(known)}")
    return [
        Arm(arm, seed, arm_recipe(study, base, arm, seed, choice.changes or {}), root / study.name / run_name(arm, seed))
        for seed in (study.seeds if choice.seeds is None else choice.seeds)
        for arm in known
        if choice.arms is None or arm in choice.arms
    ]


def run_arms(
    arms: Sequence[Arm], root: Path, *, tell: Callable[[Arm, list[Taken]], None] = lambda arm, taken: None
) -> None:
    """Runs what is not finished of some arms, in order; whatever a run below `root` has finished is taken from there.
    `tell` is told of each arm that begins or goes on, and of what it was given."""
    for arm in arms:
        run = RunDirectory(arm.run)
        if run.recipe.exists() and not missing_stages(arm.recipe, run):
            continue
        with open_run(arm.run, arm.recipe) as stages:
            tell(arm, take(root, arm.recipe, stages.run))
            leap(stages)


def results_of(arms: Sequence[Arm], split: str) -> Runs:
    """Returns what the runs say, by arm and seed."""
    found: dict[str, dict[int, RunResults]] = {}
    for arm in arms:
        found.setdefault(arm.name, {})[arm.seed] = RunResults(arm.recipe, arm.run, split)
    return found


class Planned(NamedTuple):
    """A stage of an arm that is to be made, and the run that it is taken from, None where it is made here."""

    arm: Arm
    stage: Stage
    source: Path | None


def plan(arms: Sequence[Arm], root: Path) -> Iterator[Planned]:
    """Yields what running these arms would do, stage by stage, without what is finished."""
    known = holders(root)
    for arm in arms:
        for stage in missing_stages(arm.recipe, RunDirectory(arm.run)):
            source = known.setdefault(stage.key, arm.run)
            yield Planned(arm, stage, None if source == arm.run else source)


def pace(arms: Sequence[Arm]) -> dict[tuple[str, str, int], float]:
    """Returns how many seconds a stage took by its arm, kind and iteration, on average over the runs that have made such; under
    the arm "" over those of all arms."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for arm in arms:
        run, took = RunDirectory(arm.run), Counter[tuple[str, int]]()
        for one in read_json(run.stages) if run.stages.exists() else ():
            took[one["stage"], one["iteration"]] += one["seconds"]
        made = Counter((stage.kind, stage.iteration) for stage in stage_table(arm.recipe) if stage.finished(run))
        for (kind, i), seconds in took.items():
            for name in (arm.name, ""):
                found.setdefault((name, kind, i), []).append(seconds / max(1, made[kind, i]))
    return {key: sum(each) / len(each) for key, each in found.items()}


def holders(root: Path, *, but: Path | None = None) -> dict[str, Path]:
    """Returns, by a stage's key, a run STUDY/ARM-SEED below `root` that has finished it, other than the run `but`."""
    found: dict[str, Path] = {}
    for path in sorted(root.glob(str(RunDirectory(Path("*/*")).recipe))):
        run = RunDirectory(path.parent)
        try:
            stages = stage_table(load_recipe(path)) if run.root != but else []
        except LeapError:
            continue  # of another version of leap: nothing can be taken from it
        for stage in stages:
            if stage.finished(run) and not any(run.manifest.damage(*(run.root / file for file in stage.files))):
                found.setdefault(stage.key, run.root)
    return found


def take(root: Path, recipe: Recipe, run: RunDirectory) -> list[Taken]:
    """Brings into a run, locked by the caller, all stages that it lacks and another below `root` has finished. What it
    has begun itself it goes on with."""
    known = holders(root, but=run.root)
    taken = [Taken(one, known[one.key]) for one in stage_table(recipe) if one.key in known and not one.begun(run)]
    for stage, source in taken:
        for file in sorted(stage.files, key=lambda name: name == stage.marker):  # the marker last
            _bring(source / file, run.root / file)
    if taken:
        with run.manifest.growing(run.shared), run.shared.open("a", encoding="utf-8") as file:
            for stage, source in taken:
                line = {"part": stage.name, "iteration": stage.iteration, "key": stage.key, "from": source.name}
                file.write(json.dumps(line) + "\n")
            file.flush()
    return taken


def _bring(source: Path, target: Path) -> None:
    """Copies a file or a folder in one step."""
    if source.is_dir():
        with atomic_directory(target) as temporary:
            shutil.copytree(source, temporary, copy_function=_copy, dirs_exist_ok=True)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.copy2(source, temporary)
        temporary.replace(target)


def _copy(source: str, target: str) -> None:
    """Copies a file; weights, which nothing ever writes into, are linked where the file system can."""
    if source.endswith(".safetensors"):
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)
