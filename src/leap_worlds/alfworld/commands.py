"""`leap games`: generates, lists and shows ALFWorld games."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leap.cli.document import AsJson, document

games = typer.Typer(help="ALFWorld games: generate, list, show.", no_args_is_help=True)


@games.command("generate")
def generate_games(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    option: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Generator setting, e.g. games.train=500.")
    ] = None,
) -> None:
    """Generate games in the official layout."""
    from leap.progress import Progress
    from leap.recipe import apply_setting
    from leap_worlds.alfworld.generator import GeneratorConfig, generate

    settings: dict[str, object] = {}
    for one in option or []:
        apply_setting(settings, one)
    config = GeneratorConfig.from_values(settings, "the generator's settings")
    with Progress().stage("generate games") as bar:
        manifest = generate(config, out, progress=lambda done, total, what: bar.update(done, total, what))
    counts = ", ".join(f"{split} {number}" for split, number in manifest.games.items())
    typer.echo(f"{counts} games in {out}")


@games.command("list")
def list_games(
    folder: Annotated[Path | None, typer.Argument(help="Data folder; $ALFWORLD_DATA by default.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="One split only.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the playable games of a folder, by the names that `show` and `leap play alfworld` take."""
    from leap_worlds.alfworld.data import OfficialData

    data = OfficialData(folder)
    with document(as_json) as told:
        games = {name: [entry.id for entry in data.entries(name)] for name in ([split] if split else data.splits())}
        told |= {"folder": str(data.root), "games": games}
        for name, ids in games.items():
            for one in ids:
                typer.echo(one)
            typer.echo(f"{name}: {len(ids)} playable games")
        typer.echo(f"to play one: leap play alfworld GAME --split SPLIT --set source=official --set path={data.root}")


@games.command("show")
def show_game(
    game: Annotated[str, typer.Argument(help="A game as `leap games list` names it, its folder or its game.tw-pddl.")],
    data: Annotated[Path | None, typer.Option("--data", help="Data folder; $ALFWORLD_DATA by default.")] = None,
) -> None:
    """Show a game: its task, its rooms' contents and an optimal plan."""
    from rich.console import Console

    from leap.cli.table import print_table
    from leap_worlds.alfworld.env import describe
    from leap_worlds.alfworld.game import load_game
    from leap_worlds.alfworld.native import NativeEngine

    engine = NativeEngine(load_game(_game_file(game, data)))
    first = engine.start()
    console = Console()
    console.print(first.observation, markup=False, highlight=False)
    console.rule("privileged state")
    state = describe(engine)
    console.print(state.text, markup=False, highlight=False)
    contents = sorted(state.facts["contents"].items())
    print_table(("place", "holds"), [(place, ", ".join(things)) for place, things in contents])


def _game_file(game: str, folder: Path | None) -> Path:
    """A game's file, given that file, its folder, or its name in the data folder."""
    from leap.errors import PrerequisiteError, suggest
    from leap_worlds.alfworld.data import OfficialData

    path = Path(game)
    file = path / "game.tw-pddl" if path.is_dir() else path
    if file.is_file():
        return file
    if path.exists():
        raise PrerequisiteError(f"{file} is not there; `leap games list` names games.")
    data = OfficialData(folder)
    entries = {entry.id: entry.path for entry in data}
    if game not in entries:
        raise PrerequisiteError(f"{data.root} has no game {game!r}.{suggest(game, entries)} `leap games list` names them.")
    return entries[game]
