"""Lets a person play a game in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.columns import Columns
from rich.console import Console
from rich.markup import escape

from leap_worlds.alfworld.engine import Engine, Reply
from leap_worlds.alfworld.game import load_game
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.planner import plan

_HELP = "a number or a command; ? for a hint, q to give up"


@dataclass(frozen=True)
class PlayResult:
    """How a person's game went.

    Attributes:
        won: Whether the goal was reached.
        steps: Commands given, those that did nothing included.
        hints: Hints asked for.
        best: Length of the shortest plan from the start; None if the game cannot be won.
    """

    won: bool
    steps: int
    hints: int
    best: int | None


def play(
    game_path: str | Path,
    console: Console | None = None,
    *,
    engine: Engine | None = None,
    ask: Callable[[str], str] | None = None,
) -> PlayResult:
    """Plays one game with a person and prints the score.

    Args:
        game_path: A `game.tw-pddl` file, or the folder that holds it.
        console: Where to print; standard output if not given.
        engine: Another engine for the game than our own.
        ask: Asks the person and returns the answer; the console's `input` if not given.

    Raises:
        GameError: The file is missing or no ALFWorld game.
    """
    console = console or Console()
    ask = ask or console.input
    engine = engine or NativeEngine(load_game(game_path))
    reply = engine.start()
    shortest = plan(engine)
    console.print(escape(reply.observation), style="bold", highlight=False)
    steps = hints = 0
    while not reply.won:
        _show_commands(console, reply)
        try:
            answer = ask(f"[dim]{_HELP}[/dim]\n> ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            break
        if answer.lower() in ("q", "quit", "exit"):
            break
        if answer.lower() in ("?", "h", "hint"):
            hints += 1
            console.print(_hint(engine), style="yellow", highlight=False)
            continue
        command = _command(answer, reply)
        if command is None:
            console.print(f"there is no number {escape(answer)}", style="red", highlight=False)
        elif command:
            reply = engine.step(command)
            steps += 1
            console.print(f"[cyan]> {escape(command)}[/cyan]\n{escape(reply.observation)}", highlight=False)
    result = PlayResult(reply.won, steps, hints, None if shortest is None else len(shortest))
    _show_score(console, result)
    return result


def _command(answer: str, reply: Reply) -> str | None:
    """The command meant; empty for no answer, None for a number that is not on the list."""
    if not answer.isdecimal():
        return answer
    return {str(number): command for number, command in enumerate(_listed(reply), start=1)}.get(answer)


def _listed(reply: Reply) -> list[str]:
    """The admissible commands as people count: cabinet 2 before cabinet 10."""
    return sorted(reply.admissible, key=lambda c: [(w.isdigit(), int(w) if w.isdigit() else w) for w in c.split()])


def _show_commands(console: Console, reply: Reply) -> None:
    cells = [f"[dim]{n:3}[/dim] {escape(command)}" for n, command in enumerate(_listed(reply), start=1)]
    console.print(Columns(cells, column_first=True, equal=True, padding=(0, 2)), highlight=False)


def _hint(engine: Engine) -> str:
    actions = plan(engine)
    if actions is None:
        return "hint: the game can no longer be won"
    left = "the last step" if len(actions) == 1 else f"{len(actions)} steps to go"
    return f"hint: {actions[0]} ({left})"


def _show_score(console: Console, result: PlayResult) -> None:
    hints = f", {result.hints} hint{'s' * (result.hints != 1)}" if result.hints else ""
    best = "it cannot be won at all" if result.best is None else f"the shortest way takes {result.best}"
    verdict = "[bold green]You won[/bold green]" if result.won else "[bold red]Not won[/bold red]"
    console.print(f"{verdict}, score {float(result.won):.0f}: {result.steps} steps{hints}; {best}.", highlight=False)
