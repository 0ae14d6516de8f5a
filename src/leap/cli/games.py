"""`leap games`: generate, list, show and play ALFWorld games."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from leap.cli.validate import parse_options
from leap.errors import PrerequisiteError, RecipeError, describe_validation_error
from leap.progress import Progress
from leap_worlds.alfworld.data import OfficialData
from leap_worlds.alfworld.env import describe
from leap_worlds.alfworld.game import load_game
from leap_worlds.alfworld.generator import GeneratorConfig, generate
from leap_worlds.alfworld.native import NativeEngine


def generate_games(out: Path, options: list[str]) -> None:
    """Generates a folder of games."""
    try:
        config = GeneratorConfig.model_validate(parse_options(options))
    except ValidationError as error:
        raise RecipeError(describe_validation_error(error, "the generator's settings")) from error
    with Progress().stage("generate games") as bar:
        manifest = generate(config, out, progress=lambda done, total, what: bar.update(done, total, what))
    counts = ", ".join(f"{split} {number}" for split, number in manifest.games.items())
    Console().print(f"{counts} games in {out}", soft_wrap=True)


def list_games(folder: Path | None, split: str | None) -> None:
    """Prints a line per playable game."""
    data = OfficialData(folder)
    console = Console()
    for name in [split] if split else data.splits():
        entries = data.entries(name)
        for entry in entries:
            console.print(f"{entry.id}", soft_wrap=True, highlight=False, markup=False)
        console.print(f"{name}: {len(entries)} playable games", style="bold")


def game_file(path: Path) -> Path:
    """The game's file, given it or its folder.

    Raises:
        PrerequisiteError: There is none.
    """
    file = path / "game.tw-pddl" if path.is_dir() else path
    if not file.is_file():
        raise PrerequisiteError(f"{file} is not there; `leap games list` names games.")
    return file


def show_game(path: Path) -> None:
    """Prints a game's privileged state."""
    game = load_game(game_file(path))
    engine = NativeEngine(game)
    first = engine.start()
    console = Console()
    console.print(first.observation, markup=False, highlight=False)
    console.rule("privileged state")
    state = describe(engine)
    console.print(state.text, markup=False, highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("place")
    table.add_column("holds")
    for place, things in sorted(state.facts["contents"].items()):
        table.add_row(place, ", ".join(things))
    console.print(table)


def play_game(path: Path) -> None:
    """Lets a person play."""
    from leap_worlds.alfworld.play import play

    play(game_file(path), Console())
