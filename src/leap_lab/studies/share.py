"""Stages that another run has finished are taken from there instead of being made again."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import ValidationError

from leap.files import atomic_directory
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.table import Stage, stage_table


class Taken(NamedTuple):
    """A stage and the run it came from."""

    stage: Stage
    source: Path


def holders(root: Path, *, but: Path | None = None) -> dict[str, Path]:
    """Returns, by a stage's key, a run that has finished it.

    Args:
        root: Folder of all studies' runs, STUDY/ARM-SEED/.
        but: A run that does not count.
    """
    found: dict[str, Path] = {}
    for run in sorted(path for path in root.glob("*/*") if path != but and RunDirectory(path).recipe.exists()):
        try:
            recipe = Recipe.model_validate(yaml.safe_load(RunDirectory(run).recipe.read_text(encoding="utf-8")))
        except (ValidationError, yaml.YAMLError, OSError, UnicodeDecodeError):
            continue  # of another version of leap: nothing can be taken from it
        for stage in stage_table(recipe):
            if stage.finished(RunDirectory(run)):
                found.setdefault(stage.key, run)
    return found


def take(root: Path, recipe: Recipe, run: RunDirectory) -> list[Taken]:
    """Brings into a run all stages that it lacks and another has finished. What it has begun itself it goes on with.

    Args:
        root: Folder of all studies' runs.
        recipe: The run's recipe.
        run: Its directory, locked by the caller.
    """
    known = holders(root, but=run.root)
    taken = [Taken(one, known[one.key]) for one in stage_table(recipe) if one.key in known and not one.begun(run)]
    for stage, source in taken:
        for file in sorted(stage.files, key=lambda name: name == stage.marker):  # the marker last
            _bring(source / file, run.root / file)
    if taken:
        with run.shared.open("a", encoding="utf-8") as file:
            for stage, source in taken:
                line = {"part": stage.name, "iteration": stage.iteration, "key": stage.key, "from": source.name}
                file.write(json.dumps(line) + "\n")
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
