"""`leap export` and `leap push`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """What `leap export` writes."""

    PARQUET = "parquet"
    TRL = "trl"


def export(
    run_dir: Annotated[Path, typer.Argument(help="Run directory.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    format: Annotated[
        Format, typer.Option("--format", help="parquet: a Hugging Face dataset; trl: rows for TRL's trainers (JSON lines).")
    ] = Format.PARQUET,
) -> None:
    """Write a run's episodes, corrections and training rows for other programs; both forms load with `datasets`."""
    from leap.runs.directory import RunDirectory
    from leap.runs.export import export_parquet, export_trl

    write = export_parquet if format is Format.PARQUET else export_trl
    for kind, splits in write(RunDirectory(run_dir), out).items():
        typer.echo(f"{kind}: " + ", ".join(f"{split} {count}" for split, count in splits.items()))
    typer.echo(f"dataset: {out}")


def push(
    run_dir: Annotated[Path, typer.Argument(help="Run directory.")],
    iteration: Annotated[int, typer.Option("--iteration", "-i", min=0, help="Iteration i (0 is behaviour cloning).")],
    repo: Annotated[str | None, typer.Argument(help="owner/name on the Hugging Face Hub.")] = None,
    to_folder: Annotated[Path | None, typer.Option("--to-folder", help="A folder instead of the Hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository is seen by everyone.")] = False,
) -> None:
    """Give pi_i away with a model card: to the Hugging Face Hub, or into a folder."""
    from leap.errors import RecipeError
    from leap.runs.directory import RunDirectory
    from leap.runs.push import push_to_folder, push_to_hub

    if (repo is None) == (to_folder is None):
        raise RecipeError("give either a repository (owner/name) or --to-folder.")
    if to_folder is not None:
        typer.echo(f"model card: {push_to_folder(RunDirectory(run_dir), iteration, to_folder)}")
    else:
        assert repo is not None
        typer.echo(f"pushed: {push_to_hub(RunDirectory(run_dir), iteration, repo, private=not public)}")
