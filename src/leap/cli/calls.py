"""`leap calls`: the prompts and answers of a run's calls to models, as plain text or as JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer

from leap.models.calls import Call, CallFilter
from leap.models.ledger import look_at_calls
from leap.models.prices import dollars
from leap.runs.directory import RunDirectory
from leap.runs.open import recipe_of


def print_calls(root: Path, wanted: CallFilter, *, last: int, full: bool, as_json: bool) -> None:
    """Prints the calls of a run that are meant, oldest first.

    Args:
        root: The run directory.
        wanted: Which calls.
        last: The newest so many of them; all if 0.
        full: Print prompts and answers, too.
        as_json: Print a JSON object for each, whole.
    """
    recipe_of(root)  # says so where it is no run
    told = _as_json if as_json else _in_full if full else _in_a_line

    def show(calls: Iterator[Call]) -> int:
        shown = 0
        for shown, call in enumerate(calls, start=1):  # noqa: B007 - counted
            typer.echo(told(call))
        return shown

    try:
        shown = look_at_calls(RunDirectory(root).calls, show, wanted, newest=last or None)
        sys.stdout.flush()
    except BrokenPipeError:  # a pager that was left, or `head`, which has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if as_json:
        return
    if not shown:
        typer.echo("no such call is on file.")
    elif not full:
        typer.echo(f"{shown} calls, the newest last; --last 0: all; `leap calls {root} NUMBER`: one whole; --full: all whole")


def _as_json(call: Call) -> str:
    return json.dumps(asdict(call))


def _in_a_line(call: Call) -> str:
    tokens = f"{call.tokens_in:,} + {call.tokens_out:,} tokens"
    cost = f"  {dollars(call.cost)}" if call.cost else ""
    problem = f"  ({call.problem})" if call.problem else ""
    line = f"{call.number:6}  {call.at[11:19]}  {call.stage}  {call.model}  {call.about}  {call.outcome}  {tokens}{cost}{problem}"
    return " ".join(_printable(line).splitlines())


def _in_full(call: Call) -> str:
    lines = [f"======== {_in_a_line(call).strip()}"]
    if call.request is None:
        lines.append("-------- the prompt is not on file (of an older version, calls.keep: false, or beyond calls.most_mb)")
    else:
        more = {name: value for name, value in call.request.items() if name not in ("messages", "schema", "tools")}
        offered = [tool["function"]["name"] for tool in call.request.get("tools", ())]
        more |= {"tools": offered} if offered else {}
        more |= {"schema": call.request["schema"].get("title", "given")} if call.request.get("schema") else {}
        lines.append(f"-------- asked ({', '.join(f'{name}: {value}' for name, value in more.items())})")
        for message in call.request["messages"]:
            lines += [f"-------- {message['role']}", str(message["content"])]
            lines += [json.dumps(one["function"]) for one in message.get("tool_calls", ())]
    lines += [f"-------- answered after {call.latency:g} s", call.answer, ""]
    return _printable("\n".join(lines))


def _printable(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)
