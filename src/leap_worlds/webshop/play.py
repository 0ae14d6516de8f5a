"""Lets a person shop in the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leap.core import open_action
from leap.envs.base import Outcome
from leap_worlds.webshop.env import WebshopSession

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HELP = "a number, words to search for, or a command; ? for a hint, q to give up"


@dataclass(frozen=True)
class ShopResult:
    """How a person's errand went.

    Attributes:
        score: The reward; 0 without a purchase.
        steps: Commands given, those that did nothing included.
        hints: Hints asked for.
        best: The most that the task can bring.
    """

    score: float
    steps: int
    hints: int
    best: float


def play(
    session: WebshopSession,
    instruction: str,
    console: Console | None = None,
    *,
    ask: Callable[[str], str] | None = None,
) -> ShopResult:
    """Plays one task with a person and prints the reward's parts.

    Args:
        session: A fresh session.
        instruction: The task.
        console: Where to print; standard output if not given.
        ask: Asks the person and returns the answer; the console's `input` if not given.
    """
    console = console or Console()
    ask = ask or console.input
    start = session.privileged()
    best = float(start.facts["best"])
    console.print(_shown(instruction), style="bold", highlight=False)
    shown, outcome = session.observe(), None
    steps = hints = 0
    while outcome is None or not outcome.done:
        console.print(_shown(shown.text), highlight=False)
        listed = shown.admissible or ()
        for number, action in enumerate(listed, start=1):
            console.print(f"[dim]{number:3}[/dim] {_shown(action)}", highlight=False)
        try:
            answer = ask(f"[dim]{_HELP}[/dim]\n> ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            break
        if answer.lower() in ("q", "quit", "exit"):
            break
        if answer.lower() in ("?", "h", "hint"):
            hints += 1
            plan = session.privileged().plan or ()
            console.print(f"hint: {_shown(plan[0])}" if plan else "hint: none", style="yellow", highlight=False)
            continue
        command = _command(answer, listed)
        if command is None:
            console.print(f"there is no number {_shown(answer)} here, or it needs words", style="red", highlight=False)
        elif command:
            outcome = session.act(command)
            shown = outcome.observation
            steps += 1
            console.print(f"[cyan]> {_shown(command)}[/cyan]", highlight=False)
    score = outcome.score if outcome is not None and outcome.done else 0.0
    result = ShopResult(score, steps, hints, best)
    _show_score(console, result, outcome, start.text)
    return result


def _shown(text: str) -> str:
    """A page's text for the console: what a seller wrote is no markup, and gives the terminal no orders."""
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


def _command(answer: str, listed: tuple[str, ...]) -> str | None:
    """The command meant; empty for no answer, None for a number that is not on the list or stands for a search."""
    if answer.isdecimal():
        chosen = {str(number): action for number, action in enumerate(listed, start=1)}.get(answer)
        return None if chosen is None or open_action(chosen) else chosen
    if not answer or "[" in answer:
        return answer
    opened = next((parts for action in listed if (parts := open_action(action))), None)
    return answer.join(opened) if opened else answer


def _show_score(console: Console, result: ShopResult, outcome: Outcome | None, goal: str) -> None:
    bought = outcome is not None and outcome.done
    hints = f", {result.hints} hint{'s' * (result.hints != 1)}" if result.hints else ""
    verdict = f"score {result.score:.2f}" if bought else "nothing bought, score 0"
    console.print(f"[bold]{verdict}[/bold] of {result.best:.2f}: {result.steps} commands{hints}.", highlight=False)
    if bought and outcome is not None:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("part")
        table.add_column("value", justify="right")
        for name, value in outcome.parts.items():
            table.add_row(name.replace("_", " "), f"{value:.2f}")
        console.print(table)
    console.print(_shown(goal), style="dim", highlight=False)
