"""The commands. Each stage of the loop is one, usable alone on a run directory; `run` walks them all."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from leap.cli.commands import Commands
from leap.cli.document import AsJson, document
from leap.cli.init import init
from leap.cli.recipes import recipes
from leap.paths import documents

app = typer.Typer(
    cls=Commands,
    name="leap",
    help="Train language-model agents to become better than their teacher (LEAP, arXiv 2410.05434).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=f"Documents: {documents()}",
)
app.add_typer(recipes, name="recipes")

RunDir = Annotated[Path, typer.Argument(help="Run directory.")]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="Recipe (name or file) of a run directory that is not there yet.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a recipe's value (dotted key).")
]
EnvironmentOptions = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Environment option (dotted key).")
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="K/N", help="Do part K of N alone. The same command without it takes all parts in and does the rest."
    ),
]
Iteration = Annotated[int, typer.Option("--iteration", "-i", min=0, help="Iteration i (0 is behaviour cloning).")]


def _recipes(begun: str) -> list[str]:
    """Names of recipes, for the shell to complete."""
    from leap.recipes import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(begun)]


def _environments(begun: str) -> list[str]:
    """Names of environments, for the shell to complete."""
    from leap import registry

    return [name for name in registry.environment.names() if name.startswith(begun)]


EnvironmentName = Annotated[str, typer.Argument(help="An environment, by its registered name.", autocompletion=_environments)]


def _print_version(asked: bool) -> None:
    if asked:
        from leap import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (may stand anywhere).")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print leap's version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass  # --debug is taken from the command line before typer sees it


@app.command()
def run(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe's name (`leap recipes` lists them) or its YAML file.", autocompletion=_recipes),
    ],
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Default: runs/<the recipe's name>.")] = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check names and options, estimate time and the cost of paid models, then stop.")
    ] = False,
) -> None:
    """Run a recipe from nothing to a report. The same command goes on after any interruption."""
    from leap.cli.show import print_result
    from leap.loop import leap
    from leap.recipe import load_recipe
    from leap.recipes import find_recipe
    from leap.report import write_report
    from leap.runs.open import check_run, open_run

    resolved = load_recipe(find_recipe(recipe), overrides)
    if dry_run:
        from leap.cli.dry_run import print_estimate

        raise typer.Exit(0 if print_estimate(resolved) else 1)
    root = run_dir or Path("runs") / resolved.name
    ready = check_run(root, resolved)  # before anything is written
    with open_run(root, resolved, ready) as stages:
        result = leap(stages)
        page = write_report(resolved, stages.run)
        print_result(resolved, result)
        typer.echo(f"report: {page}")


@app.command()
def rollout(
    run_dir: RunDir,
    iteration: Iteration,
    recipe: RecipeOption = None,
    overrides: Overrides = None,
    shard: ShardOption = None,
) -> None:
    """Play episodes: the expert's demonstrations (i = 0), or pi_{i-1} on the training tasks."""
    from leap.errors import RunError
    from leap.recipe import load_recipe
    from leap.recipes import find_recipe
    from leap.runs.open import recipe_of
    from leap.runs.parts import open_for

    if recipe is None and not (run_dir / "recipe.yaml").exists():
        raise RunError(f"{run_dir} is not a run directory; give --recipe to start one.")
    resolved = load_recipe(find_recipe(recipe), overrides) if recipe else recipe_of(run_dir, overrides or ())
    with open_for(run_dir, shard, resolved) as stages:
        journal = stages.rollout(iteration)
        solved = sum(episode.success for episode in journal)
        typer.echo(f"{len(journal)} episodes on file, {solved} solved: {journal.path}")


@app.command()
def correct(run_dir: RunDir, iteration: Iteration, shard: ShardOption = None) -> None:
    """Have the teacher correct the episodes of iteration i (from 1), and make the training rows."""
    from leap.runs.parts import open_for

    with open_for(run_dir, shard) as stages:
        if iteration:
            journal = stages.correct(iteration)
            kept = sum(correction.kept for correction in journal)
            typer.echo(f"{len(journal)} corrections on file, {kept} kept: {journal.path}")
        if shard is None:
            typer.echo(f"training rows: {stages.dataset(iteration)}")


@app.command()
def train(run_dir: RunDir, iteration: Iteration) -> None:
    """Train pi_i on the union of D_0..D_i."""
    from leap.runs.open import open_run

    with open_run(run_dir) as stages:
        typer.echo(f"checkpoint: {stages.train(iteration)}")


@app.command()
def evaluate(
    run_dir: RunDir,
    iteration: Iteration,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Play these splits instead; may be given several times.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With --split: environment option unlike the run's."),
    ] = None,
    horizon: Annotated[int | None, typer.Option("--horizon", min=1, help="With --split: actions per episode.")] = None,
    best_of: Annotated[
        list[str] | None,
        typer.Option(
            "--best-of",
            metavar="N",
            help="The best of N answers by pi_i's value model, or of all listed actions (all); may be given several times.",
        ),
    ] = None,
    shard: ShardOption = None,
    as_json: AsJson = False,
) -> None:
    """Score pi_i, without privilege, on the run's validation and test splits, or (--split) in another world."""
    import copy

    from leap.cli.show import print_evaluations
    from leap.recipe import apply_setting
    from leap.runs.parts import open_for
    from leap.runs.policies import idle_baselines
    from leap.runs.transfer import evaluate_elsewhere

    if best_of:
        if option or horizon or shard:
            raise typer.BadParameter("--best-of goes with --split alone.")
        _evaluate_best_of(run_dir, iteration, best_of, split, as_json)
        return
    if not split and (option or horizon):
        raise typer.BadParameter("--set and --horizon go with --split; the run's own evaluation is its recipe's.")
    if split and shard:
        raise typer.BadParameter("--shard does not go with --split.")
    with document(as_json) as told, open_for(run_dir, shard) as stages:
        if split:
            options = copy.deepcopy(stages.recipe.environment.options)
            for setting in option or []:
                apply_setting(options, setting)
            scores = evaluate_elsewhere(stages, iteration, options, split, horizon=horizon)
        else:
            idle = [one for spec in idle_baselines(stages.environment) for one in stages.baseline(spec)]
            scores = [*idle, *stages.evaluate(iteration)]
        told |= {"run": str(run_dir), "iteration": iteration, "evaluations": [one.model_dump(mode="json") for one in scores]}
        if scores:
            print_evaluations(scores)
        else:  # of one part
            typer.echo(f"played; `leap evaluate {run_dir} -i {iteration}` scores all parts together")


def _evaluate_best_of(run_dir: Path, i: int, best_of: list[str], split: list[str] | None, as_json: bool) -> None:
    from leap.cli.value import numbers, print_best_of
    from leap.runs.open import open_run
    from leap.runs.valuing import evaluate_best_of

    with document(as_json) as told, open_run(run_dir) as stages:
        scores = evaluate_best_of(stages, i, numbers(best_of), split)
        told |= {"run": str(run_dir), "iteration": i, "best_of": [one.model_dump(mode="json") for one in scores]}
        print_best_of(scores)


@app.command()
def value(
    run_dir: RunDir,
    iteration: Iteration,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="KIND", help="What it learns from: replay, returns or planner.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the recipe's section `value`."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a model of what actions of pi_i come to, on training tasks, and measure it on validation tasks."""
    from leap.cli.value import print_measured
    from leap.runs.open import open_run, recipe_of
    from leap.runs.valuing import make_value

    settings = [*(option or []), *([f"labels={labels}"] if labels else [])]
    with (
        document(as_json) as told,
        open_run(run_dir, recipe_of(run_dir, [f"value.{one}" for one in settings])) as stages,
    ):
        found = make_value(stages, iteration)
        told |= {"run": str(run_dir), "iteration": iteration, "value": found.model_dump(mode="json")}
        print_measured(found)
        typer.echo(f"value model: {stages.run.value(iteration, found.labels)}")


@app.command()
def report(
    run_dir: RunDir,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; RUN_DIR/report by default.")] = None,
) -> None:
    """Write the HTML report and its JSON twin from what is on file. The run may be under way, or its folder read-only."""
    from leap.report import write_report
    from leap.runs.directory import RunDirectory
    from leap.runs.open import recipe_of

    typer.echo(f"report: {write_report(recipe_of(run_dir), RunDirectory(run_dir), out=out)}")


@app.command()
def view(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN_DIR]...", help="Run directories; all below runs/ by default.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on this machine; any that is free if 0.")] = 0,
) -> None:
    """Look at runs in a browser, finished or under way: progress, curves, every episode, prompts, calls, two side by side."""
    from leap.errors import RunError
    from leap.report.server import Server
    from leap.report.view import RunView

    roots = run_dirs or sorted(path.parent for path in Path("runs").glob("*/recipe.yaml"))
    if not roots:
        raise RunError("there is no run directory below runs/; name one.")
    with Server([RunView(root) for root in roots], port) as server:
        typer.echo(f"{server.url} (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):
            server.serve_forever()


@app.command()
def calls(
    run_dir: RunDir,
    number: Annotated[int | None, typer.Argument(help="Number of the one call to show whole.")] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Of a stage, such as correct, or 'correct 2'.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="About a task: its id, or part of it.")] = None,
    step: Annotated[int | None, typer.Option("--step", min=0, help="About a step.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Of a model: its name, or part of it.")] = None,
    outcome: Annotated[
        str | None, typer.Option("--outcome", metavar="KIND", help="With that outcome: read, unread, empty, cut-off, failed.")
    ] = None,
    last: Annotated[int, typer.Option("--last", min=0, help="The newest so many; all if 0.")] = 20,
    full: Annotated[bool, typer.Option("--full", help="With prompts and answers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line, with prompts and answers.")] = False,
) -> None:
    """Read the prompts and answers of a run's calls to teachers and other models. The run may be under way."""
    from leap.cli.calls import print_calls
    from leap.models.calls import OUTCOMES, CallFilter, Outcome

    known: dict[str, Outcome] = {one: one for one in OUTCOMES}
    chosen = known.get(outcome or "")
    if outcome is not None and chosen is None:
        raise typer.BadParameter(f"--outcome is one of {', '.join(OUTCOMES)}.")
    wanted = CallFilter(number, stage, model, task, step, chosen)
    print_calls(run_dir, wanted, last=last, full=full or number is not None, as_json=as_json)


class Format(StrEnum):
    """What `leap export` writes."""

    PARQUET = "parquet"
    TRL = "trl"
    ATIF = "atif"
    INSPECT = "inspect"


@app.command()
def export(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="parquet: a Hugging Face dataset; trl: JSON lines for TRL's trainers; atif: a trajectory for each episode; "
            "inspect: logs of Inspect AI.",
        ),
    ] = Format.PARQUET,
    privileged: Annotated[
        bool,
        typer.Option(help="Replay episodes for what was hidden from the student: rows `sdft` of trl, a folder apart of logs."),
    ] = True,
) -> None:
    """Write a run's episodes, corrections and training rows for other programs. Datasets load with `datasets`."""
    from leap.runs.directory import RunDirectory
    from leap.runs.export import export_parquet, export_trl
    from leap.runs.logs import export_atif, export_inspect

    run = RunDirectory(run_dir)
    if format is Format.PARQUET:
        counts = export_parquet(run, out)
    else:
        write = {Format.TRL: export_trl, Format.ATIF: export_atif, Format.INSPECT: export_inspect}[format]
        counts = write(run, out, privileged=privileged)
    for kind, splits in counts.items():
        typer.echo(f"{kind}: " + ", ".join(f"{split} {count}" for split, count in splits.items()))
    typer.echo(f"{'dataset' if format in (Format.PARQUET, Format.TRL) else 'logs'}: {out}")


@app.command()
def push(
    run_dir: RunDir,
    iteration: Iteration,
    repo: Annotated[str | None, typer.Argument(help="owner/name on the Hugging Face Hub.")] = None,
    to_folder: Annotated[Path | None, typer.Option("--to-folder", help="A folder instead of the Hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository is seen by everyone.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help="An adapter as a whole checkpoint, its base in it.")] = False,
) -> None:
    """Give pi_i away with a model card: to the Hugging Face Hub, or into a folder."""
    from leap.errors import RecipeError
    from leap.runs.directory import RunDirectory
    from leap.runs.push import push_to_folder, push_to_hub

    if to_folder is not None and repo is None:
        typer.echo(f"model card: {push_to_folder(RunDirectory(run_dir), iteration, to_folder, merge=merge)}")
    elif repo is not None and to_folder is None:
        typer.echo(f"pushed: {push_to_hub(RunDirectory(run_dir), iteration, repo, private=not public, merge=merge)}")
    else:
        raise RecipeError("give either a repository (owner/name) or --to-folder.")


app.command()(init)


@app.command()
def play(
    environment: EnvironmentName,
    task: Annotated[str, typer.Argument(help="The task's id, or its number within the split.")] = "0",
    split: Annotated[
        str | None, typer.Option("--split", help="Split of the task; by default those that hold gold answers.")
    ] = None,
    option: EnvironmentOptions = None,
) -> None:
    """Play a task of an environment yourself, and see the score's parts."""
    from leap.cli.play import play_task

    play_task(environment, task, split, option or [])


@app.command()
def validate(
    environment: EnvironmentName,
    split: Annotated[list[str] | None, typer.Option("--split", help="Split; may be given several times.")] = None,
    option: EnvironmentOptions = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Tasks per split; all by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Play the privileged plan on every task, check the contract of the environment, and list what fails."""
    from leap.cli.validate import validate_environment

    with document(as_json) as told:
        told |= validate_environment(environment, split or [], option or [], limit)
    raise typer.Exit(0 if told["ok"] else 1)


@app.command()
def data(
    environment: Annotated[
        str,
        typer.Argument(
            help="An environment, or what the names of several that share their data begin with.", autocompletion=_environments
        ),
    ],
    source: Annotated[
        str | None, typer.Option("--from", help="Folder or address to take the files from, where there is a choice.")
    ] = None,
    option: EnvironmentOptions = None,
    as_json: AsJson = False,
) -> None:
    """Fetch an environment's official data, or say what to put where; check what is there."""
    from leap.cli.data import fetch_data

    with document(as_json) as told:
        told |= fetch_data(environment, source, option or [])
    raise typer.Exit(0 if told["ok"] else 1)


@app.command()
def doctor(
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="RECIPE", help="Try a recipe's model teacher on one task instead.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Say what is installed, which data is found, CPU or GPU, versions. Or try a teacher out, at the price of a few calls."""
    from leap.cli.doctor import print_doctor, print_trial
    from leap.recipe import load_recipe
    from leap.recipes import find_recipe

    with document(as_json) as told:
        told |= print_doctor() if teacher is None else print_trial(load_recipe(find_recipe(teacher), overrides))
