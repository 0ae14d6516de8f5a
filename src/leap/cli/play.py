"""`leap play`: a person plays a task of any environment in the terminal."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

import yaml
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from leap.cli.validate import parse_options
from leap.core import Observation, Task, open_action
from leap.envs.base import Environment, Outcome, load_environment
from leap.envs.grammar import Grammar
from leap.envs.live import Live
from leap.errors import PrerequisiteError
from leap.progress import Progress

Ask = Callable[[str], str]
"""Asks the person, and returns a line; raises EOFError or KeyboardInterrupt where there is no more."""

HELP = """\
A number takes the action of that number; so does its text.
Where no actions are listed, what you type is the action.
<<END   begins an action of several lines; a line END ends it
!TEXT   takes TEXT as it stands, on offer or not
:hint   shows what is hidden from the student, and what to do next
:score  shows what the score would be made of now
:help   shows this
:quit   gives up
No command costs a step."""
CALLS = "A tool is called as NAME KEY=VALUE ..., or by its JSON."

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COMMANDS = {":help", ":hint", ":score", ":quit"}
_SHORT = {"help": ":help", "?": ":hint", "hint": ":hint", "q": ":quit", "quit": ":quit", "exit": ":quit"}
_SHORT |= {":h": ":help", ":?": ":help", ":q": ":quit", ":exit": ":quit"}


class Played(NamedTuple):
    """How a person's episode went.

    Attributes:
        outcome: What the last action gave; None if none was taken.
        steps: Actions taken, those that did nothing included.
        hints: How often the privileged state was looked at.
    """

    outcome: Outcome | None
    steps: int
    hints: int


class Unclear(Exception):
    """A line that means no action; the message tells the person why."""


def play_task(name: str, wanted: str, split: str | None, options: list[str]) -> None:
    """Lets a person play a task of a registered environment, chosen by its id or its number."""
    with closing(load_environment(name, parse_options(options))) as environment:
        with Progress().stage(f"prepare {name}", notes=True) as bar:
            environment.prepare(bar.update)
        task = find_task(environment, wanted, split)
        asyncio.run(play(environment, task, Console()))  # in this thread, where `_asked` hears Ctrl-C


def find_task(environment: Environment, wanted: str, split: str | None = None) -> Task:
    """Returns a task by its id, or by its number from 0 within a split.

    By default an id is looked for in all splits that hold gold answers, a number in the first of them.

    Raises:
        PrerequisiteError: There is no such task.
    """
    splits = [split] if split else environment.gold_splits
    for name in splits:
        if found := next((task for task in environment.tasks(name) if task.id == wanted), None):
            return found
    first = environment.tasks(splits[0])
    if wanted.isdecimal() and len(wanted) < 10 and int(wanted) < len(first):
        return first[int(wanted)]
    raise PrerequisiteError(
        f"{environment.name} has no task {wanted!r} in {' and '.join(splits)}; {splits[0]} has {len(first)}, numbered "
        f"from 0, for example {first[0].id}. --split chooses another split."
    )


async def play(environment: Environment, task: Task, console: Console, ask: Ask | None = None) -> Played:
    """Plays one task with a person and prints the score and its parts.

    Args:
        environment: Where the task is from.
        task: The task.
        console: Where to print.
        ask: Asks the person; the console by default.
    """
    ask, say = ask or partial(_asked, console), partial(_say, console)
    grammar = environment.grammar_of(task)
    steps = hints = 0
    outcome: Outcome | None = None
    explained: Sequence[tuple[str, str, str]] = ()
    async with Live(environment, task) as session:
        say(task.instruction, "bold")
        shown, start = await session.observe(), await session.privileged()
        _show(console, shown)
        _show_tools(console, grammar)
        say(":help says what can be typed", "dim")
        while outcome is None or not outcome.done:
            try:
                line = _whole(ask("[cyan]> [/cyan]"), ask)
            except (EOFError, KeyboardInterrupt):
                console.print()
                break
            match _command(line, shown):
                case ":quit":
                    break
                case ":help":
                    say(HELP)
                    _show_tools(console, grammar)
                case ":hint":
                    hints += 1
                    state = await session.privileged()
                    say(state.text or "nothing is hidden here", "yellow")
                    if state.plan:
                        left = "the last step" if len(state.plan) == 1 else f"{len(state.plan)} steps to go"
                        say(f"hint: {state.plan[0]} ({left})", "yellow")
                case ":score":
                    _show_score(console, outcome, await session.explain())
                case "" if line.strip():
                    try:
                        action = understood(line, shown, environment.of(task), grammar)
                    except Unclear as why:
                        say(str(why), "red")
                        continue
                    if action != line:
                        say(f"> {action}", "cyan")
                    explained = await session.explain() or explained
                    outcome = await session.act(action)
                    shown = outcome.observation
                    steps += 1
                    _show(console, shown, choices=not outcome.done)
                case command if command:
                    say(f"there is no command {command}; :help lists them", "red")
    solved, ended = (outcome.success, outcome.done) if outcome else (False, False)
    told = "" if ended else ", given up"
    told += f": {steps} steps" + (f", {hints} hint{'s' * (hints != 1)}" if hints else "")
    told += f"; the plan at the start took {len(start.plan)}" if start.plan else ""
    verdict = ("solved", "bold green") if solved else ("not solved", "bold red")
    console.print(Text.assemble(verdict, told))
    _show_score(console, outcome, explained)
    if start.text:
        say(f"hidden at the start:\n{start.text}", "dim")
    for part, version in environment.versions().items():
        say(f"{part}: {version}", "dim")
    return Played(outcome, steps, hints)


# ---- what a person says ----------------------------------------------------------------------------------------------


def understood(line: str, shown: Observation, environment: Environment, grammar: Grammar) -> str:
    """Tells what action a person means by a line.

    Args:
        line: What was typed.
        shown: What is shown now.
        environment: The task's.
        grammar: How the task's actions are written.

    Raises:
        Unclear: None.
    """
    if line.startswith("!"):
        return line[1:]
    if shown.admissible is None:
        return _called(line, grammar) if grammar.tools else line
    line = line.strip()
    listed = _as_listed(shown.admissible)
    if line.isdecimal():
        number = int(line) if len(line) < 10 else 0
        if not 1 <= number <= len(listed):
            raise Unclear(f"there is no number {line} here")
        if open_action(chosen := listed[number - 1]):
            raise Unclear(f"{chosen} needs words: type them alone")
        return chosen
    named = next((action for action in listed if action.casefold() == line.casefold()), None)
    if named is not None and not open_action(named):
        return named
    if environment.valid(line, shown):
        return line
    openings = [parts for action in listed if (parts := open_action(action))]
    if len(openings) == 1 and openings[0][1] not in line:
        return line.join(openings[0])
    raise Unclear(f"{line} is not on offer here, and no step was taken; !{line} takes it all the same")


def _called(line: str, grammar: Grammar) -> str:
    """The call of a tool, from `NAME KEY=VALUE ...` or from JSON; the text itself where it is neither."""
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in grammar.tools}
    name, _, rest = line.strip().partition(" ")
    if name not in tools:
        return grammar.canonical(line)
    arguments: dict[str, object] = {}
    types = tools[name].get("properties", {})
    try:
        for word in shlex.split(rest):
            key, given, value = word.partition("=")
            if not given:
                raise Unclear(f"{word} is not of the form KEY=VALUE")
            arguments[key] = value if types.get(key, {}).get("type") == "string" else yaml.safe_load(value)
    except (ValueError, yaml.YAMLError) as error:
        raise Unclear(f"that cannot be read: {error}") from error
    return grammar.canonical(json.dumps({"name": name, "arguments": arguments}, default=str))


def _as_listed(actions: Sequence[str]) -> list[str]:
    """Actions as they are numbered: in their own order, but an alphabetical list has cabinet 2 before cabinet 10."""

    def counted(action: str) -> list[tuple[bool, int | str]]:
        return [(word.isdigit(), int(word) if word.isdigit() else word) for word in action.split()]

    return sorted(actions, key=counted) if list(actions) == sorted(actions) else list(actions)


def _asked(console: Console, prompt: str) -> str:
    """Asks on the console. A Ctrl-C is heard at once: while coroutines run, it only takes note and waits for them."""
    if threading.current_thread() is not threading.main_thread():
        return console.input(prompt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return console.input(prompt)
    finally:
        signal.signal(signal.SIGINT, before)


def _whole(line: str, ask: Ask) -> str:
    """An action of several lines, if the line begins one (`<<END`); else the line."""
    found = re.fullmatch(r"<<\s*(\w+)\s*", line)
    if not found:
        return line
    lines: list[str] = []
    while (more := ask("[dim]. [/dim]")) != found[1]:
        lines.append(more)
    return "!" + "\n".join(lines)


def _command(line: str, shown: Observation) -> str:
    """The command that a line is; empty if it is none. Bare words are commands where actions are chosen from a list."""
    text = line.strip().lower()
    word = _SHORT.get(text, text)
    if shown.admissible is not None or text == "help":
        return word if word.startswith(":") else ""
    return word if text.startswith(":") and word in _COMMANDS else ""


# ---- what a person sees ----------------------------------------------------------------------------------------------


def _clean(text: str) -> str:
    """Text of a world for the console: it gives the terminal no orders."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(_clean(text), style))  # no markup


def _show(console: Console, shown: Observation, *, choices: bool = True) -> None:
    _say(console, shown.text)
    if choices and shown.admissible:
        listed = enumerate(_as_listed(shown.admissible), start=1)
        cells = [Text.assemble((f"{number:3}", "dim"), " ", _clean(action)) for number, action in listed]
        console.print(Columns(cells, column_first=True, equal=True, padding=(0, 2)))


def _show_tools(console: Console, grammar: Grammar) -> None:
    for tool in (tool["function"] for tool in grammar.tools):
        keys = " ".join(f"{key}=..." for key in tool["parameters"].get("properties", {}))
        told = f"{tool['name']} {keys}".strip()
        console.print(Text.assemble(f"  {_clean(told)}  ", (_clean(tool["description"]), "dim")))
    if grammar.tools:
        _say(console, CALLS, "dim")


def _show_score(console: Console, outcome: Outcome | None, explained: Sequence[tuple[str, str, str]]) -> None:
    """What a score is made of: as the session explains it, else the outcome's own parts."""
    _say(console, f"score {outcome.score if outcome else 0:.2f}")
    parts = outcome.parts if outcome else {}
    if rows := list(explained) or [(name.replace("_", " "), f"{value:.2f}", "") for name, value in parts.items()]:
        table = Table("part", "value", "why", box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(_clean(cell)) for cell in row))
        console.print(table)
