"""Stages that another run has finished are taken from there instead of being made again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
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


class Pool:
    """The runs of all studies below one folder, by what they have finished.

    Args:
        root: Holds STUDY/ARM-SEED/, each a run directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def holders(self, *, but: Path | None = None) -> dict[str, Path]:
        """By a stage's key, a run that has finished it."""
        found: dict[str, Path] = {}
        for run in sorted(path for path in self.root.glob("*/*") if RunDirectory(path).recipe.exists()):
            if run == but:
                continue
            try:
                recipe = Recipe.model_validate(yaml.safe_load(RunDirectory(run).recipe.read_text(encoding="utf-8")))
            except (ValidationError, yaml.YAMLError, OSError, UnicodeDecodeError):
                continue  # of another version of leap: nothing can be taken from it
            for stage in stage_table(recipe):
                if stage.finished(RunDirectory(run)):
                    found.setdefault(stage.key, run)
        return found

    def take(self, recipe: Recipe, run: RunDirectory) -> list[Taken]:
        """Brings into a run all stages that it lacks and another has finished. What it has begun itself it goes on with.

        Args:
            recipe: The run's recipe.
            run: Its directory, locked by the caller.
        """
        holders = self.holders(but=run.root)
        taken = []
        for stage in stage_table(recipe):
            source = holders.get(stage.key)
            if source is None or stage.begun(run):
                continue
            for file in sorted(stage.files, key=lambda name: name == stage.marker):  # the marker last
                _bring(source / file, run.root / file)
            taken.append(Taken(stage, source))
        if taken:
            with run.shared.open("a", encoding="utf-8") as file:
                for stage, source in taken:
                    line = {"part": stage.name, "iteration": stage.iteration, "key": stage.key, "from": source.name}
                    file.write(json.dumps(line) + "\n")
        return taken


def _bring(source: Path, target: Path) -> None:
    """Copies a file or a folder in one step; weights, which nothing ever writes into, are linked."""
    if source.is_dir():
        with atomic_directory(target) as temporary:
            for file in _files(source):
                own = temporary / file.relative_to(source)
                own.parent.mkdir(parents=True, exist_ok=True)
                if file.suffix == ".safetensors":
                    _link(file, own)
                else:
                    shutil.copy2(file, own)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.copy2(source, temporary)
        temporary.replace(target)


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
