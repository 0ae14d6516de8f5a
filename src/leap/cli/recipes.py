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
    from leap.cli.table import print_table
    from leap.recipes import about, shipped_recipes

    print_table(("recipe", "what it is"), [(name, about(path)) for name, path in shipped_recipes().items()])
    typer.echo("leap recipes show NAME > mine.yaml writes one to start from; leap run mine.yaml runs it.")


@recipes.command("show")
def show_recipe(name: Annotated[str, typer.Argument(help="A recipe's name or file.")]) -> None:
    """Print a recipe's file, comments included."""
    from leap.recipes import find_recipe

    typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)
