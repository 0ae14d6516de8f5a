"""`leap tasks`: makes task folders, by a seed or of a run's episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

tasks = typer.Typer(help="Task folders in Harbor's format: make, export.", no_args_is_help=True)


@tasks.command("make")
def make(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    option: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Generator setting, e.g. file_systems.train=50.")
    ] = None,
) -> None:
    """Make tasks about files in a terminal, a split in each folder, by a seed."""
    from leap.progress import Progress
    from leap.recipe import apply_setting
    from leap_worlds.intercode.bash.generated.config import BashFamilyConfig
    from leap_worlds.tasks.make import make_tasks

    settings: dict[str, object] = {}
    for one in option or []:
        apply_setting(settings, one)
    config = BashFamilyConfig.from_values(settings, "the generator's settings")
    with Progress().stage("make tasks") as bar:
        counts = make_tasks(config, out, lambda done, total, what: bar.update(done, total, what))
    typer.echo(f"{', '.join(f'{split} {number}' for split, number in counts.items())} tasks in {out}")
    typer.echo(f"to prove some: leap validate tasks --set path={out} --limit 20")


@tasks.command("export")
def export(
    run_dir: Annotated[Path, typer.Argument(help="Run on task folders.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
) -> None:
    """Write the tasks that a run's rollouts solved, with what solved them as their solutions."""
    from leap.runs.directory import RunDirectory
    from leap_worlds.tasks.export import export_solved

    typer.echo(f"{export_solved(RunDirectory(run_dir), out)} tasks in {out}")
    typer.echo(f"to prove them: leap validate tasks --set path={out}")
