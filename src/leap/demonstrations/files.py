"""Demonstrations on file: episodes of leap's, chats as endpoints and fine-tuning services take them, trajectories in ATIF.

Whatever a file says, it is read into decisions by the environment's grammar, for a task of the training split. A file that is odd
in any way is refused in one line that names it, and the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from leap.core import Decision, Episode, Observation
from leap.envs.answer import reason_in
from leap.envs.base import Environment
from leap.envs.grammar import Grammar, ToolCalls
from leap.envs.tools import call_of, calls_as_text
from leap.errors import LeapError, PrerequisiteError

_SHOWN = Observation(text="")


class Turn(NamedTuple):
    """What an agent said at once.

    Attributes:
        where: Which message or step it is, for people.
        words: Its words.
        thought: What it thought before.
        calls: Name and arguments, as JSON, of each call of a tool.
    """

    where: str
    words: str
    thought: str
    calls: Sequence[tuple[str, str]]


class Transcript(NamedTuple):
    """What is on file of one way through a task.

    Attributes:
        task: Id of the task, where it is named.
        told: What the agent was told at first, which may have the task's instruction.
        turns: What it said.
    """

    task: str | None
    told: str
    turns: Sequence[Turn]


def files_of(path: Path) -> list[Path]:
    """The file, or those of a folder that may hold demonstrations, in order."""
    if not path.is_dir():
        return [path]
    return sorted(one for one in path.rglob("*") if one.suffix in (".json", ".jsonl") and one.is_file())


def read_decisions(path: Path, environment: Environment, split: str) -> dict[str, list[Decision]]:
    """Reads demonstrations of the tasks of the training split: the decisions of each task, by task id; of a task that is there
    several times, the first.

    Args:
        path: JSON Lines; a file `*.json` that holds one; or a folder of both kinds.
        environment: Whose tasks they are.
        split: The training split.

    Raises:
        PrerequisiteError: The file is missing or damaged, is of other tasks, or holds an answer that cannot be read.
    """
    tasks = {task.id: task for task in environment.tasks(split)}
    said = {name: " ".join(task.instruction.split()) for name, task in tasks.items()}
    found: dict[str, list[Decision]] = {}
    for where, text in _documents(path):
        try:
            value = json.loads(text)
            if not isinstance(value, dict):
                raise TypeError("it is no JSON object")
            if "steps" in value and "schema_version" not in value:
                episode = Episode.model_validate(value)
                name = _known(episode.task.id, tasks, split)
                decisions = [Decision(reason=step.reason, action=step.action) for step in episode.steps]
            else:
                transcript = _trajectory(value) if "steps" in value else _chat(value)
                name = _task_of(transcript, said, split)
                decisions = _decisions(transcript.turns, environment.grammar_of(tasks[name]))
        except LeapError as error:
            raise PrerequisiteError(f"{where}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            forms = "neither an episode, nor a chat with `messages`, nor a trajectory in ATIF"
            raise PrerequisiteError(f"{where} is {forms}: {_brief(error)}") from error
        if decisions:
            found.setdefault(name, decisions)
    if not found:
        raise PrerequisiteError(f"demonstrations.path: {path} holds no demonstration.")
    return found


def _documents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each JSON document, and where it stands, for people."""
    for file in files_of(path):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise PrerequisiteError(f"demonstrations.path: cannot read {file}: {error.strerror}") from error
        if file.suffix == ".json":
            yield str(file), content
            continue
        for number, line in enumerate(content.splitlines(), start=1):
            if line.strip():
                yield f"{file} line {number}", line


def _brief(error: Exception) -> str:
    """An error in one line of bearable length."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:200]
    told = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(told.split())[:200]


# ---- forms -----------------------------------------------------------------------------------------------------------


def _chat(value: Mapping[str, Any]) -> Transcript:
    """A chat as OpenAI's endpoints and their fine-tuning have it."""
    named = value.get("task", (value.get("metadata") or {}).get("task"))
    turns, told = list[Turn](), list[str]()
    for number, message in enumerate(value["messages"]):
        words = _text(message.get("content"))
        if message["role"] == "assistant":
            called = [call["function"] for call in message.get("tool_calls") or ()]
            called += [message["function_call"]] if message.get("function_call") else []  # as it was before there were tools
            thought = _text(message.get("reasoning_content", message.get("reasoning")))
            calls = [_call(one["name"], one["arguments"]) for one in called]
            turns.append(Turn(f"message {number} of the assistant", words, thought, calls))
        elif not turns:
            told.append(words)
    return Transcript(None if named is None else str(named), "\n".join(told), turns)


def _trajectory(value: Mapping[str, Any]) -> Transcript:
    """A trajectory in the Agent Trajectory Interchange Format, of any version."""
    if not str(value["schema_version"]).startswith("ATIF-"):
        raise ValueError(f"schema_version is {value['schema_version']!r}")
    more = value.get("extra") or {}
    named = ((more.get("leap") or {}).get("task") or {}).get("id", more.get("task"))
    turns, told = list[Turn](), list[str]()
    for number, step in enumerate(value["steps"], start=1):
        if step.get("is_copied_context"):
            raise LeapError(f"step {number} is copied from another trajectory; only a whole one can be played again.")
        words = _text(step["message"])
        if step["source"] == "agent":
            words = "" if more.get("leap") else words  # the whole answer as generated; its reason stands apart
            calls = [_call(one["function_name"], one["arguments"]) for one in step.get("tool_calls") or ()]
            turns.append(Turn(f"step {number}", words, _text(step.get("reasoning_content")), calls))
        elif not turns:
            told.append(words)
    return Transcript(None if named is None else str(named), "\n".join(told), turns)


def _call(name: object, arguments: object) -> tuple[str, str]:
    if not isinstance(name, str):
        raise TypeError("a call's name is no text")
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments)


def _text(content: object) -> str:
    """A message's words; pictures and sounds have none."""
    if isinstance(content, list):
        return "\n".join(_text(part["text"]) for part in content if part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content is no text but {content!r:.40}")
    return content or ""


# ---- tasks and decisions -----------------------------------------------------------------------------------------------


def _known(name: str, tasks: Mapping[str, object], split: str) -> str:
    if name not in tasks:
        raise LeapError(f"{name!r:.200} is no task of split {split!r}, so it cannot be played again.")
    return name


def _task_of(transcript: Transcript, said: Mapping[str, str], split: str) -> str:
    """Id of the task that a transcript names, or else of the one whose instruction the agent was told; `said` has those by id."""
    if transcript.task is not None:
        return _known(transcript.task, said, split)
    told = " ".join(transcript.told.split())
    fitting = {name: words for name, words in said.items() if words and words in told}
    longest = max(map(len, fitting.values()), default=0)  # of "walk 1" and "walk 10" it is the second
    names = [name for name, words in fitting.items() if len(words) == longest]
    if len(names) != 1:
        problem = f"{len(names)} tasks have its instruction" if names else "no task's instruction is in what the agent was told"
        raise LeapError(f"which task of split {split!r} it is cannot be told ({problem}): give it the key `task`.")
    return names[0]


def _decisions(turns: Sequence[Turn], grammar: Grammar) -> list[Decision]:
    """What an agent decided. What it says without acting is the reason of what it does next, where actions are calls; of words
    behind its last action nothing is kept."""
    decisions, said = list[Decision](), ""
    for number, turn in enumerate(turns):
        found = _acts(turn, grammar)
        if not found and not isinstance(grammar, ToolCalls) and not (decisions and number + 1 == len(turns)):
            raise LeapError(f"{turn.where} holds no action that the environment's grammar can read.")
        said = " ".join(filter(None, (said, turn.words))) if not found else said
        for one in found:
            decisions.append(Decision(reason=" ".join(filter(None, (said, one.reason))), action=one.action))
            said = ""
    if isinstance(grammar, ToolCalls) and turns:
        calls = [call for one in decisions if (call := call_of(one.action))]
        if not any(call["name"] in grammar.names for call in calls):
            other = f" ({calls[0]['name']!r:.70} is none)" if calls else ""
            raise LeapError(f"it calls none of the environment's tools{other}: {', '.join(grammar.names)}.")
    return decisions


def _acts(turn: Turn, grammar: Grammar) -> list[Decision]:
    """The actions of a turn, the first with its reason."""
    found = list[Decision]()
    if turn.calls and isinstance(grammar, ToolCalls):
        for number, call in enumerate(turn.calls):
            one = grammar.read(calls_as_text("", [call]), _SHOWN)
            if one is None:
                raise LeapError(f"{turn.where}: the call of {call[0]!r:.70} has no arguments that can be read.")
            found.append(Decision(reason="" if number else reason_in(turn.words), action=one.action))
    elif turn.calls:
        read = grammar.read(turn.words, _SHOWN)
        for number, (name, arguments) in enumerate(turn.calls):
            given = json.loads(arguments)
            command = given.get("command") if isinstance(given, dict) and len(given) == 1 else None
            if not isinstance(command, str):
                told = "actions of this environment are texts; a call with one text, `command`, is understood"
                raise LeapError(f"{turn.where} calls {name!r:.70}, but {told}.")
            reason = "" if number else read.reason if read else turn.words
            found.append(Decision(reason=reason, action=grammar.canonical(command)))
    else:
        one = grammar.read(turn.words, _SHOWN)
        found = [one] if one else []
    if found and not found[0].reason:
        found[0] = Decision(reason=turn.thought, action=found[0].action)
    return found
