"""`leap play`: a person plays a task of any environment in the terminal."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import yaml
from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leap.cli.validate import parse_options
from leap.core import Observation, PrivilegedState, Task, open_action
from leap.envs.base import Environment, Outcome, load_environment
from leap.envs.grammar import Grammar
from leap.envs.live import Live
from leap.errors import PrerequisiteError
from leap.progress import Progress

Valid = Callable[[str, Observation], bool]
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
_BARE = {"help": ":help", "?": ":hint", "hint": ":hint", "q": ":quit", "quit": ":quit", "exit": ":quit"}
_SHORT = {":h": ":help", ":?": ":help", ":q": ":quit", ":exit": ":quit"}


@dataclass(frozen=True)
class Played:
    """How a person's episode went.

    Attributes:
        outcome: What the last action gave; None if none was taken.
        steps: Actions taken, those that did nothing included.
        hints: How often the privileged state was looked at.
    """

    outcome: Outcome | None
    steps: int
    hints: int


@dataclass(frozen=True)
class Answer:
    """What a person's line means.

    Attributes:
        action: The action to take, if it is one.
        complaint: What to tell the person, if it is none.
    """

    action: str | None = None
    complaint: str = ""


def play_task(name: str, wanted: str, split: str | None, options: list[str]) -> None:
    """Lets a person play a task of a registered environment, chosen by its id or its number."""
    with closing(load_environment(name, parse_options(options))) as environment:
        with Progress().stage(f"prepare {name}") as bar:
            environment.prepare(lambda done, total, what: bar.update(done, total, what))
        task = find_task(environment, wanted, split)
        asyncio.run(play(environment, task, Console()))  # in this thread, where `_asked` hears Ctrl-C


def find_task(environment: Environment, wanted: str, split: str | None = None) -> Task:
    """Returns a task by its id, or by its number within a split.

    Args:
        environment: Where to look.
        wanted: Id, or number from 0.
        split: The split; by default an id is looked for in all that hold gold answers, a number in the first of them.

    Raises:
        PrerequisiteError: There is no such task.
    """
    splits = [split] if split else list(environment.gold_splits)
    first: list[Task] = []
    for number, name in enumerate(splits):
        tasks = environment.tasks(name)
        first = first if number else tasks
        if found := next((task for task in tasks if task.id == wanted), None):
            return found
    if wanted.isdecimal() and len(wanted) < 10 and int(wanted) < len(first):
        return first[int(wanted)]
    where = " and ".join(splits)
    raise PrerequisiteError(
        f"{environment.name} has no task {wanted!r} in {where}; {splits[0]} has {len(first)}, numbered from 0, for example "
        f"{first[0].id}. --split chooses another split."
    )


async def play(environment: Environment, task: Task, console: Console, ask: Ask | None = None) -> Played:
    """Plays one task with a person and prints the score and its parts.

    Args:
        environment: Where the task is from.
        task: The task.
        console: Where to print.
        ask: Asks the person; the console by default.
    """
    ask = ask or (lambda prompt: _asked(console, prompt))
    grammar = environment.grammar_of(task)
    steps = hints = 0
    outcome: Outcome | None = None
    explained: Sequence[tuple[str, str, str]] = ()
    async with Live(environment, task) as session:
        console.print(_clean(task.instruction), style="bold", highlight=False)
        shown = await session.observe()
        start = await session.privileged()
        _show(console, shown)
        _show_tools(console, grammar)
        console.print(":help says what can be typed", style="dim", highlight=False)
        while outcome is None or not outcome.done:
            try:
                line = _whole(ask("[cyan]> [/cyan]"), ask)
            except (EOFError, KeyboardInterrupt):
                console.print()
                break
            command = _command(line, shown)
            if command == ":quit":
                break
            if command == ":help":
                console.print(HELP, markup=False, highlight=False)
                _show_tools(console, grammar)
            elif command == ":hint":
                hints += 1
                _show_hidden(console, await session.privileged())
            elif command == ":score":
                _show_parts(console, outcome, await session.explain())
            elif command:
                console.print(f"there is no command {_clean(command)}; :help lists them", style="red", highlight=False)
            elif line.strip():
                answer = understood(line, shown, environment.of(task).valid, grammar)
                if answer.action is None:
                    console.print(_clean(answer.complaint), style="red", highlight=False)
                    continue
                if answer.action != line:
                    console.print(f"[cyan]> {_clean(answer.action)}[/cyan]", highlight=False)
                explained = await session.explain() or explained
                outcome = await session.act(answer.action)
                shown = outcome.observation
                steps += 1
                _show(console, shown, choices=not outcome.done)
    played = Played(outcome, steps, hints)
    _show_score(console, played, start, explained)
    for part, version in environment.versions().items():
        console.print(f"{_clean(part)}: {_clean(str(version))}", style="dim", highlight=False)
    return played


def understood(line: str, shown: Observation, valid: Valid, grammar: Grammar) -> Answer:
    """Tells what action a person means by a line, or why none is taken.

    Args:
        line: What was typed.
        shown: What is shown now.
        valid: Whether the environment knows an action at an observation (`Environment.valid`).
        grammar: How the task's actions are written.
    """
    if line.startswith("!"):
        return Answer(line[1:])
    if shown.admissible is None:
        return _called(line, grammar) if grammar.tools else Answer(line)
    line = line.strip()
    listed = as_listed(shown.admissible)
    openings = [parts for action in listed if (parts := open_action(action))]
    if line.isdecimal():
        number = int(line) if len(line) < 10 else 0
        if not 1 <= number <= len(listed):
            return Answer(complaint=f"there is no number {line} here")
        chosen = listed[number - 1]
        return Answer(complaint=f"{chosen} needs words: type them alone") if open_action(chosen) else Answer(chosen)
    by_letter = {action.casefold(): action for action in listed}
    if line.casefold() in by_letter and not open_action(by_letter[line.casefold()]):
        return Answer(by_letter[line.casefold()])
    if valid(line, shown):
        return Answer(line)
    if len(openings) == 1 and openings[0][1] not in line:
        return Answer(line.join(openings[0]))
    return Answer(complaint=f"{line} is not on offer here, and no step was taken; !{line} takes it all the same")


def _called(line: str, grammar: Grammar) -> Answer:
    """The call of a tool, from `NAME KEY=VALUE ...` or from JSON; the text itself where it is neither."""
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in grammar.tools}
    name, _, rest = line.strip().partition(" ")
    if name not in tools:
        return Answer(grammar.canonical(line))
    arguments: dict[str, Any] = {}
    types = tools[name].get("properties", {})
    try:
        for word in shlex.split(rest):
            key, given, value = word.partition("=")
            if not given:
                return Answer(complaint=f"{word} is not of the form KEY=VALUE")
            arguments[key] = value if types.get(key, {}).get("type") == "string" else yaml.safe_load(value)
    except (ValueError, yaml.YAMLError) as error:
        return Answer(complaint=f"that cannot be read: {error}")
    return Answer(grammar.canonical(json.dumps({"name": name, "arguments": arguments}, default=str)))


def as_listed(actions: Iterable[str]) -> list[str]:
    """Returns actions as they are numbered: in their own order, but an alphabetical list has cabinet 2 before cabinet 10."""
    given = list(actions)
    if given != sorted(given):
        return given
    return sorted(given, key=lambda action: [(word.isdigit(), int(word) if word.isdigit() else word) for word in action.split()])


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
    if text.startswith(":"):
        known = {":help", ":hint", ":score", ":quit"}
        word = _SHORT.get(text, text)
        return word if word in known or shown.admissible is not None else ""
    return _BARE.get(text, "") if shown.admissible is not None or text == "help" else ""


def _clean(text: str) -> str:
    """Text of a world for the console: it is no markup, and gives the terminal no orders."""
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


def _show(console: Console, shown: Observation, *, choices: bool = True) -> None:
    console.print(_clean(shown.text), highlight=False)
    if choices and shown.admissible:
        cells = [f"[dim]{n:3}[/dim] {_clean(action)}" for n, action in enumerate(as_listed(shown.admissible), start=1)]
        console.print(Columns(cells, column_first=True, equal=True, padding=(0, 2)), highlight=False)


def _show_tools(console: Console, grammar: Grammar) -> None:
    for tool in grammar.tools:
        keys = " ".join(f"{key}=..." for key in tool["function"]["parameters"].get("properties", {}))
        told = f"{tool['function']['name']} {keys}".strip()
        console.print(f"  {_clean(told)}  [dim]{_clean(tool['function']['description'])}[/dim]", highlight=False)
    if grammar.tools:
        console.print(CALLS, style="dim", markup=False, highlight=False)


def _show_hidden(console: Console, state: PrivilegedState) -> None:
    console.print(_clean(state.text) or "nothing is hidden here", style="yellow", highlight=False)
    if state.plan:
        left = "the last step" if len(state.plan) == 1 else f"{len(state.plan)} steps to go"
        console.print(f"hint: {_clean(state.plan[0])} ({left})", style="yellow", highlight=False)


def _show_parts(console: Console, outcome: Outcome | None, explained: Sequence[tuple[str, str, str]]) -> None:
    """What a score is made of: as the session explains it, else the outcome's own parts."""
    score = 0.0 if outcome is None else outcome.score
    rows = list(explained)
    if not rows and outcome is not None:
        rows = [(name.replace("_", " "), f"{value:.2f}", "") for name, value in outcome.parts.items()]
    console.print(f"score {score:.2f}", highlight=False)
    if rows:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("part", "value", "why"):
            table.add_column(column)
        for row in rows:
            table.add_row(*(_clean(cell) for cell in row))
        console.print(table)


def _show_score(
    console: Console, played: Played, start: PrivilegedState, explained: Sequence[tuple[str, str, str]]
) -> None:
    outcome = played.outcome
    solved = outcome is not None and outcome.success
    ended = outcome is not None and outcome.done
    verdict = "[bold green]solved[/bold green]" if solved else "[bold red]not solved[/bold red]"
    hints = f", {played.hints} hint{'s' * (played.hints != 1)}" if played.hints else ""
    best = f"; the plan at the start took {len(start.plan)}" if start.plan else ""
    console.print(f"{verdict}{'' if ended else ', given up'}: {played.steps} steps{hints}{best}", highlight=False)
    _show_parts(console, outcome, explained)
    if start.text:
        console.print(f"hidden at the start:\n{_clean(start.text)}", style="dim", highlight=False)
