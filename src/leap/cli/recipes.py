"""`leap recipes`: the recipes that come with leap."""

from __future__ import annotations

from typing import Annotated

import typer

recipes = typer.Typer(help="List the recipes that come with leap, or show one.", invoke_without_command=True)


@recipes.callback()
def list_recipes(context: typer.Context) -> None:
    """List the recipes that come with leap, or show one."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    from leap.recipes import about, shipped_recipes

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("recipe", "what it is"):
        table.add_column(column)
    for name, path in shipped_recipes().items():
        table.add_row(name, about(path))
    Console(width=None if Console().is_terminal else 120).print(table)
    typer.echo("leap recipes show NAME > mine.yaml writes one to start from; leap run mine.yaml runs it.")


@recipes.command("show")
def show_recipe(name: Annotated[str, typer.Argument(help="A recipe's name or file.")]) -> None:
    """Print a recipe's file, comments included."""
    from leap.recipes import find_recipe

    typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)
