"""`leap study`, the paper's claims as experiments, and `leap measure`, the stage that measures one iteration of a run."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leap.cli.app import ShardOption
from leap.cli.document import AsJson, document
from leap.errors import RecipeError
from leap.progress import Progress

if TYPE_CHECKING:
    from leap.core.record import Record
    from leap_lab.studies.page import Page
    from leap_lab.studies.runner import Arm, Planned, Taken
    from leap_lab.studies.schema import TheoryStudy


def measure(
    run_dir: Annotated[Path, typer.Argument(help="Run directory.")],
    iteration: Annotated[int, typer.Option("--iteration", "-i", min=0, help="Iteration i (0 is behaviour cloning).")],
    shard: ShardOption = None,
) -> None:
    """Measure leakage and realizability of iteration i, on held-out episodes (recipe: measures.held_out)."""
    from leap.runs.parts import open_for
    from leap_lab.measures.stage import measure as measured
    from leap_lab.measures.stage import measures_file

    with open_for(run_dir, shard) as stages:
        if stages.recipe.measures.held_out is None:
            raise RecipeError("the recipe has no measures.held_out, so nothing is measured; set it and run again.")
        if measured(stages, iteration) is None:
            typer.echo(f"done; `leap measure {run_dir} -i {iteration}` takes all parts together")
        else:
            typer.echo(f"measures: {measures_file(stages.run, iteration)}")


def _studies(begun: str) -> list[str]:
    """Names of studies, for the shell to complete: at once, so without what reads them."""
    names = sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.yaml"))
    return [name for name in ("list", *names) if name.startswith(begun)]


def study(
    name: Annotated[
        str, typer.Argument(help="A study's name or file; `list` lists those there are.", autocompletion=_studies)
    ],
    seeds: Annotated[str | None, typer.Option("--seeds", help="Other seeds than the study's, for example 0,1.")] = None,
    arms: Annotated[str | None, typer.Option("--arms", help="Some arms only, for example sft,dpo.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a recipe's value in every arm.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="The same experiment on another base recipe, for example alfworld-llama3-8b-expert."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="With --recipe: the test split of every number.")] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of all studies' runs.")] = Path("runs/studies"),
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the page; RUNS/NAME/report by default.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print arms, stages and estimated time, then stop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run one of the paper's claims as an experiment, and write its page. The same command goes on after any interruption."""
    with document(as_json) as told:
        told |= _studied(name, _numbers(seeds), arms, overrides, recipe, split, runs, out, dry_run=dry_run)


def _studied(
    name: str,
    numbers: list[int] | None,
    arms: str | None,
    overrides: list[str] | None,
    recipe: str | None,
    split: str | None,
    runs: Path,
    out: Path | None,
    *,
    dry_run: bool,
) -> dict[str, object]:
    """Does what `study` is asked for, and returns what came of it for programs."""
    from leap_lab.studies.schema import LoopStudy, base_recipe, find_study, load_study

    if name == "list":
        return _list()
    path = find_study(name)
    found = load_study(path)
    if split and recipe is None:
        raise RecipeError("--split goes with --recipe; without it the study's file states the split")
    if not isinstance(found, LoopStudy):
        if recipe is not None:
            raise RecipeError(f"study {found.name} has no base recipe: its worlds are in its file")
        found = found.model_copy(update={"seeds": numbers or found.seeds})
        return _theory(found, out or runs / found.name / "report", dry_run=dry_run)
    from leap.recipe import parse_setting
    from leap.recipes import find_recipe
    from leap_lab.studies.page import loop_page
    from leap_lab.studies.results import collect
    from leap_lab.studies.runner import Choice, arms_of, results_of, run_arms

    if recipe is not None:
        found = found.on(find_recipe(recipe), split)
    some = [arm.strip() for arm in arms.split(",")] if arms else None
    choice = Choice(some, numbers, dict(parse_setting(override) for override in overrides or []))
    base = base_recipe(found, path)
    planned = arms_of(found, base, runs, choice)
    if dry_run:
        return _print_plan(planned, arms_of(found, base, runs, Choice(changes=choice.changes)), runs)
    run_arms(planned, runs, tell=_tell)
    made = results_of(arms_of(found, base, runs, choice._replace(arms=None)), found.split)
    makers = {maker for by_seed in made.values() for run in by_seed.values() for maker in run.makers()}
    provenance = _made_by() | {"runs by": "; ".join(sorted(makers))}  # a page may be written by a later commit
    with Progress().stage(f"statistics of {found.name}"):
        results = collect(found, made, command=_command(), provenance=provenance)
    return _write(loop_page(found, results), results, out or runs / found.name / "report")


def _list() -> dict[str, object]:
    from leap.cli.table import print_table
    from leap_lab.studies.schema import available_studies, load_study

    rows = [(name, load_study(path).hypothesis) for name, path in sorted(available_studies().items())]
    print_table(("study", "hypothesis"), rows)
    return {"studies": [{"study": name, "hypothesis": hypothesis} for name, hypothesis in rows]}


def _tell(arm: Arm, taken: Sequence[Taken]) -> None:
    typer.echo(f"## {arm.recipe.name}: arm {arm.name}, seed {arm.seed}")
    for line in _by_source((f"{one.source.parent.name}/{one.source.name}", one.stage.name) for one in taken):
        typer.echo(f"taken from {line}")


def _by_source(taken: Iterable[tuple[str, str]]) -> list[str]:
    """Returns a line for each run that stages are taken from."""
    names: dict[str, list[str]] = {}
    for source, name in taken:
        names.setdefault(source, []).append(name)
    return [f"{source}: {', '.join(own)}" for source, own in names.items()]


def _print_plan(planned: Sequence[Arm], everything: Sequence[Arm], runs: Path) -> dict[str, object]:
    from leap.cli.table import print_table
    from leap_lab.studies.runner import pace, plan

    took, parts = pace(everything), list(plan(planned, runs))

    def minutes(own: Sequence[Planned]) -> str:
        made = [(one.arm.name, one.stage.kind, one.stage.iteration) for one in own if not one.source and one.stage.kind != "base"]
        seconds = [took.get((arm, kind, i), took.get(("", kind, i))) for arm, kind, i in made]
        known = [one for one in seconds if one is not None]
        return f"{sum(known) / 60:.1f}" if len(known) == len(made) else "unknown"

    rows = []
    for arm in planned:
        own = [one for one in parts if one.arm is arm]
        made = ", ".join(one.stage.name for one in own if not one.source)
        given = "\n".join(_by_source((one.source.name, one.stage.name) for one in own if one.source))
        done = "nothing: it is finished" if not own else "nothing: all is given"
        rows.append((str(arm.seed), arm.name, made or done, given, minutes(own)))
    columns = ("seed", "arm", "to be made", "taken from another run", "minutes")
    total = ("", "in all", "", "", minutes(parts))
    print_table(columns, [*rows, total], right=("seed", "minutes"), bold=[len(rows)], width=160)
    typer.echo("Minutes are those that such stages of this study took here so far, unknown before the first is made.")
    typer.echo("With paid models in it, `leap run --dry-run` estimates the cost.")
    told = [(one.arm, one.stage.name, one.source.name if one.source else None) for one in parts]
    return {"stages": [{"seed": arm.seed, "arm": arm.name, "stage": name, "from": source} for arm, name, source in told]}


def _theory(found: TheoryStudy, folder: Path, *, dry_run: bool) -> dict[str, object]:
    from leap_lab.theory.report import measure, theory_page

    if dry_run:
        typer.echo(f"{len(found.seeds)} worlds, {len(found.levels)} privilege levels each: seconds, on one core.")
        return {"stages": []}
    results = measure(found, command=_command(), provenance=_made_by())
    return _write(theory_page(found, results), results, folder)


def _write(page: Page, results: Record, folder: Path) -> dict[str, object]:
    from leap_lab.studies.page import write_page

    for finding in page.findings:
        typer.echo(finding)
    file = write_page(folder, page, results)
    typer.echo(f"page: {file}")
    return {"page": str(file), "findings": list(page.findings), "results": results.model_dump(mode="json", exclude_none=True)}


def _made_by() -> dict[str, object]:
    from leap.runs.provenance import provenance

    known = provenance()
    packages = known["packages"]
    assert isinstance(packages, dict)
    return {
        "leap": f"{known['leap']} {known['commit']}".strip(),
        "python": known["python"],
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "machine": f"{known['platform']}, {os.cpu_count()} cores, {_processor()}",
        "time": known["time"],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _command() -> str:
    return shlex.join(["leap", *sys.argv[1:]])


def _numbers(seeds: str | None) -> list[int] | None:
    if seeds is None:
        return None
    try:
        return [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"--seeds {seeds!r}: give whole numbers with commas between them, for example 0,1"
        ) from error
