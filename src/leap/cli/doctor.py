"""`leap doctor`: what is here and what is missing, with the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from leap import __version__, registry
from leap.errors import LeapError, PrerequisiteError, RecipeError
from leap.extras import DISTRIBUTION, extras
from leap.models.prices import dollars
from leap.paths import cache_dir
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.provenance import version_of
from leap.runs.selftest import try_teacher
from leap.runs.stages import Stages
from leap.teachers.config import ModelTeacherConfig

LOOKED_AT = (registry.environment, registry.sandbox, registry.model, registry.executor)
"""Kinds of things that may offer `doctor()`, a class method that returns findings about this machine."""


def print_doctor() -> dict[str, object]:
    """Prints the findings, and returns them."""
    console = Console()
    try:
        cache = cache_dir()
        free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free / 2**30
        kept = f"{cache} ({free:.0f} GiB free)"
    except LeapError as error:
        kept = f"none: {error}"
    machine = {"leap": __version__, "python": platform.python_version(), "platform": platform.platform()}
    machine |= {"cores": os.cpu_count(), "accelerator": _accelerator(), "cache": kept}
    console.print(f"leap {machine['leap']}, Python {machine['python']}, {machine['platform']}")
    console.print(f"CPU cores: {machine['cores']}, {machine['accelerator']}")
    console.print(f"cache: {kept}", soft_wrap=True)
    found = [_extra(extra, packages) for extra, packages in extras().items() if extra != "all"]
    found += [finding for kind in LOOKED_AT for finding in _findings(kind)]
    for ok, what, text in found:
        line = f"{'ok' if ok else 'no'}  {what}{': ' if text else ''}{text}"
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return {**machine, "findings": [{"ok": ok, "what": what, "text": text} for ok, what, text in found]}


def print_trial(recipe: Recipe) -> dict[str, object]:
    """Tries a recipe's model teacher out, prints what came of it and what it cost, and returns that. Nothing is left on file.

    Raises:
        RecipeError: The recipe's teacher is no model.
        PrerequisiteError: Something is missing, or nothing of the teacher's answers can be used.
    """
    if not isinstance(recipe.teacher, ModelTeacherConfig):
        raise RecipeError(f"the recipe's teacher is {recipe.teacher.label}; only one of teacher.kind: model can be tried.")
    recipe = recipe.model_copy(
        update={"calls": recipe.calls.model_copy(update={"self_test": True}), "iterations": max(recipe.iterations, 1)}
    )
    with TemporaryDirectory() as folder, closing(Stages(recipe, RunDirectory(Path(folder)), Progress())) as stages:
        trial = try_teacher(stages)
        if trial is None:
            raise PrerequisiteError("the teacher could not be tried; the warning above says why.")
        total = stages.actors.ledger.total()
        Console().print(f"usable, with {len(trial.problems)} warnings" if trial.problems else "usable", highlight=False)
        if total.calls:
            cost = f", {dollars(total.cost)}" if total.cost else ""
            Console().print(f"{total.calls} calls, {total.tokens_in:,} + {total.tokens_out:,} tokens{cost}", highlight=False)
        spent = {"calls": total.calls, "tokens_in": total.tokens_in, "tokens_out": total.tokens_out, "usd": total.cost}
        return {"usable": True, "warnings": list(trial.problems), **spent}


def _extra(extra: str, packages: list[str]) -> tuple[bool, str, str]:
    found = {package: version_of(package) for package in packages}
    here = ", ".join(f"{package} {number}" for package, number in found.items() if number)
    missing = ", ".join(package for package, number in found.items() if not number)
    if not missing:
        return True, f"extra {extra}", here
    told = f"{missing} missing: pip install '{DISTRIBUTION}[{extra}]'"
    return False, f"extra {extra}", f"{told} (here: {here})" if here else told


def _findings(kind: registry.Registry) -> Iterator[tuple[bool, str, str]]:
    """What each registered thing of a kind says: whether all is well, who says so, and the text; those that say the same share
    theirs."""
    names: dict[tuple[tuple[bool, str], ...], list[str]] = {}
    for name in kind.names():
        try:
            offered = getattr(kind.get(name), "doctor", tuple)()
        except LeapError as error:
            offered = [(False, str(error))]
        except Exception as error:  # of another's package; all else is still to be told
            offered = [(False, f"{kind.where()[name]} raises {type(error).__name__}: {error}")]
        names.setdefault(tuple(offered), []).append(name)
    for findings, alike in names.items():
        told = f"{kind.noun} {', '.join(alike)}"
        yield from [(ok, told, text) for ok, text in findings] or [(True, told, "")]


def _accelerator() -> str:
    if find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    if torch.cuda.is_available():
        return f"GPU: {torch.cuda.get_device_name(0)} ({torch.cuda.mem_get_info(0)[1] / 2**30:.0f} GiB)"
    return "no GPU: training and generation run on the CPU"
