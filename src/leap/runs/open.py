"""Opening a run directory: for work, under a lock and for one recipe; or to be read, which needs neither."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import ValidationError

from leap.config import UNKNOWN_KIND
from leap.core.message import sendable
from leap.errors import RecipeError, RunError, describe_validation_error
from leap.files import append_line, as_json, read_json
from leap.models.checkpoints import model_identity
from leap.progress import Progress
from leap.recipe import Recipe, dump_recipe, read_mapping, resolved
from leap.runs.directory import RunDirectory, marker
from leap.runs.former import from_0_1
from leap.runs.manifest import refusal
from leap.runs.preflight import Ready, check_prerequisites
from leap.runs.provenance import provenance, starts, this_leap
from leap.runs.stages import Stages
from leap.runs.table import missing_stages

log = logging.getLogger(__name__)

_FREE = re.compile(
    r"(budget|calls|prices|executor|lost_share|value|training\.(sft\.)?(logging|processes|accelerate)"
    r"|student\.engine\.(?!kind$)\w+"
    r"|(teacher|demonstrations\.annotate|baselines\.react\.\d+)\.endpoint|teacher\.serve)(\.|$)"
)
"""What may change while a run goes on: what may be spent, where a model is reached, who logs, where episodes are played and
students trained; and value models, whose own keys tell what was made by other settings."""


def check_run(root: Path, recipe: Recipe) -> Ready:
    """Looks for all that a recipe needs, unless its run is finished.

    Raises:
        LeapError: Something is missing, or another process works on the run.
    """
    if RunDirectory(root).lock.exists():
        with RunDirectory(root).locked():  # before workers are started that would wait for those of the other process
            pass
    return check_prerequisites(recipe, Progress()) if missing_stages(recipe, RunDirectory(root)) else Ready()


@contextmanager
def open_run(root: Path, recipe: Recipe | None = None, ready: Ready | None = None) -> Iterator[Stages]:
    """The stages of a recipe (by default the one that the directory holds) in its run directory, locked. The directory is made
    if it is not there. `ready` is what `check_run` found.

    Raises:
        RunError: The directory belongs to another recipe, is not a run directory, or is in use.
    """
    recipe = recipe or recipe_of(root)
    run = RunDirectory(root)
    if sendable(str(root)) != str(root):  # tokenizers, among others, take no such path
        raise RunError(f"the path {str(root)!r} is not UTF-8 text; choose another --run-dir.")
    if root.exists() and not root.is_dir():
        raise RunError(f"{root} is a file; choose another --run-dir.")
    if root.exists() and any(root.iterdir()) and not run.recipe.exists() and not run.lock.exists():
        raise RunError(f"{root} is not empty and is not a run directory; choose another --run-dir.")
    with run.locked():
        if run.recipe.exists():
            check_same(run, recipe)
        _mend(run, recipe)
        run.manifest.write(run.recipe, dump_recipe(recipe))
        with run.manifest.growing(run.provenance):
            append_line(run.provenance, json.dumps(provenance()).encode() + b"\n")
        with closing(Stages(recipe, run, Progress(), ready.environment if ready else None)) as stages:
            for name, answer in ready.paid if ready else ():
                with stages.actors.ledger.stage("check"):
                    stages.actors.ledger.book("", name, answer, latency=0.0)  # no key: it answers no request of a stage
            _settle_precision(stages)
            try:
                yield stages
            except SystemExit as stop:  # a script, or the shell, would take it for a good end
                lines = "".join(traceback.format_exception(stop)).rstrip()
                raise RunError(f"sys.exit({stop.code!r}) is called by code that is not leap's\n{lines}") from stop


def _settle_precision(stages: Stages) -> None:
    """Notes once, when a run begins, whether this machine is faster in bfloat16, if its recipe leaves types open to that: where
    the run goes on elsewhere, what it computes does not change."""
    run, recipe, student = stages.run, stages.recipe, stages.recipe.student
    if run.precision.exists() or run.iterations():
        return
    asked: list[str] = []
    recipe.training.settled(lambda: bool(asked.append("training")))
    if not asked and not student.from_scratch and student.dtype == "auto" and student.model.startswith("hf/"):
        from leap.models.checkpoints import model_dtype

        asked += {"bfloat16", "float16"} & {model_dtype(stages.actors.base)}
    if asked:
        run.manifest.write(run.precision, as_json({"bf16": stages.actors.bf16_pays()}))


def _mend(run: RunDirectory, recipe: Recipe) -> None:
    """Looks whether the files of a run are what they were when they were written. What is gone is made again when it is needed,
    and what other files give at once.

    Raises:
        RunError: Another file is damaged.
    """
    refused = []
    for path, told in run.manifest.damage():
        if path == run.recipe:
            if not path.exists() and not run.manifest.expects(path, dump_recipe(recipe)):
                refused.append((path, told))  # one that is there is looked at when it is read
        elif not path.exists() and path != run.calls:
            log.warning("%s is missing; what is needed of it is made again", path)
            if path.suffix == ".jsonl":  # rows on file may not fit what comes out now
                path.with_name(run.rows(0).name).unlink(missing_ok=True)
        elif path.name in (run.rows(0).name, run.evaluation("pi_0").name):
            log.warning("%s is damaged; it is made again", path)
            path.unlink(missing_ok=True)
        else:
            refused.append((path, told))
    if refused:
        raise refusal(refused)


def recipe_of(root: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that a run directory holds, with `dotted.key=value` settings in place of its own. Takes no lock and writes
    nothing: the run may be under way or read-only.

    Raises:
        RunError: There is no run directory, or its recipe is not one that this version of leap can read.
        RecipeError: An override is wrong, or the recipe is damaged.
    """
    run = RunDirectory(root)
    if not run.recipe.exists():
        run.manifest.check(run.recipe)
        raise RunError(f"{root} is not a run directory.")
    try:
        values = from_0_1(read_mapping(run.recipe, "recipe"))
    except RecipeError:
        run.manifest.check(run.recipe)
        raise
    try:
        kept = Recipe.model_validate(values)
    except ValidationError as error:
        lines = describe_validation_error(error, str(run.recipe)).splitlines()
        if error.errors(include_url=False)[0]["type"] == UNKNOWN_KIND:
            raise RunError(
                f"{root} names something that is not registered here ({lines[1].strip()}). Import the module that "
                "registers it before the run is opened, or install its package."
            ) from error
        damaged = "".join(f" Unless that is so: {told}" for _, told in run.manifest.damage(run.recipe))
        first = f"{lines[1].strip()}{f', and {len(lines) - 2} more' if len(lines) > 2 else ''}"
        raise RunError(
            f"{root} holds a recipe that this version of leap ({this_leap()}) cannot read ({first}). Go on with "
            f"{_maker(run)}, or start a new run.{damaged}"
        ) from error
    run.manifest.check(run.recipe)
    return resolved(values, f"recipe {run.recipe}", overrides) if overrides else kept


def _maker(run: RunDirectory) -> str:
    """Version and commit of leap that last worked on a run, where that is on file."""
    for last in starts(run.provenance)[-1:]:
        return f"leap {last.get('leap', '')} {last.get('commit', '')}".strip() + ", which made it"
    return "the version that made it"


def check_same(run: RunDirectory, recipe: Recipe) -> None:
    """Looks whether a run is of a recipe.

    Raises:
        RunError: It is of another.
    """
    kept = recipe_of(run.root)
    old, new = _flat(kept.model_dump(mode="json")), _flat(recipe.model_dump(mode="json"))
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and not _FREE.match(key))
    if "student.model" in differing and _same_base(run, recipe):
        differing.remove("student.model")
    if not differing or (differing == ["iterations"] and recipe.iterations >= kept.iterations):
        return  # more of the same, or the same with more to spend
    shown = "; ".join(f"{key}: {old.get(key)!r} there, {new.get(key)!r} here" for key in differing[:4])
    raise RunError(
        f"{run.root} belongs to another recipe ({shown}{'; ...' if len(differing) > 4 else ''}). "
        "Choose another --run-dir or name, or remove that directory."
    )


def _same_base(run: RunDirectory, recipe: Recipe) -> bool:
    """Whether a recipe's student is what the students of a run were trained from, which lay elsewhere then."""
    noted = [marker(run.checkpoint(i)) for i in range(recipe.iterations + 1)]
    base = next((read_json(one).get("base") for one in noted if one.exists()), None)
    return base is not None and base == model_identity(recipe.student.model)


def _flat(values: object, prefix: str = "") -> dict[str, object]:
    if isinstance(values, list) and any(isinstance(value, dict) for value in values):
        values = dict(enumerate(values))
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        name: found
        for key, value in values.items()
        for name, found in _flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }
