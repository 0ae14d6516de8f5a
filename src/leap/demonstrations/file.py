"""Demonstrations from a file, `demonstrations: {from: file, path: ...}`.

A file of demonstrations is JSON Lines. A line is an episode as leap keeps it (`iter-0/episodes.jsonl` of another run), or a chat:

    {"task": "train/7", "messages": [
        {"role": "user", "content": "You are in a dark house."},
        {"role": "assistant", "content": "REASON: A hat is near.\nACTION: look in hat"},
        {"role": "user", "content": "There is a key."}, ...]}

`task` is the id of a training task. What the assistant said is read by the environment's grammar (calls of tools may stand in
`tool_calls`, as endpoints give them), its actions are played in the environment, and what the environment shows then is what is
trained on: a demonstration cannot disagree with the world. Messages of other roles are not read.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from leap.core import Actor, Decision, Episode, History, Observation, Task
from leap.envs.base import Environment
from leap.envs.tools import calls_as_text
from leap.errors import LeapError, PrerequisiteError
from leap.policies.base import UNPARSED, Act, Peek, Player


class Recorded:
    """A policy that takes the decisions of a file, each in its task's episode at its step.

    Args:
        decisions: The decisions of each task, by task id.
        actor: Who took them, for the record.
    """

    privileged = False
    waves = False
    concurrency = 16

    def __init__(self, decisions: Mapping[str, list[Decision]], actor: Actor) -> None:
        self.actor = actor
        self._decisions = decisions

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        """Opens an episode."""
        yield self

    async def decide(self, history: History) -> Act:
        """The decision on file for this step; behind the last one, an action that does nothing."""
        decisions, t = self._decisions[history.task.id], len(history.actions)
        return Act(decisions[t]) if t < len(decisions) else Act(Decision(reason="", action=UNPARSED), parsed=False)


def read_decisions(path: Path, environment: Environment, split: str) -> dict[str, list[Decision]]:
    """Reads a file of demonstrations.

    Args:
        path: JSON Lines of episodes and chats.
        environment: Its training tasks are the ones that can be demonstrated.
        split: The training split.

    Returns:
        The decisions of each task, by task id; of a task that is there several times, the first line's.

    Raises:
        PrerequisiteError: The file is missing or damaged, is of other tasks, or holds an answer that cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise PrerequisiteError(f"demonstrations.path: cannot read {path}: {error.strerror}") from error
    tasks = {task.id: task for task in environment.tasks(split)}
    found: dict[str, list[Decision]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            value = json.loads(line)
            if "steps" in value:
                episode = Episode.model_validate(value)
                name, decisions = episode.task.id, [Decision(reason=s.reason, action=s.action) for s in episode.steps]
            else:
                name = str(value["task"])
                decisions = _of_chat(value["messages"], environment, tasks[name]) if name in tasks else []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PrerequisiteError(f"{where} is neither an episode nor a chat with `task` and `messages`: {error}") from error
        except LeapError as error:
            raise PrerequisiteError(f"{where}: {error}") from error
        if name not in tasks:
            raise PrerequisiteError(f"{where}: {name!r} is no task of split {split!r}, so it cannot be played again.")
        if decisions:
            found.setdefault(name, decisions)
    if not found:
        raise PrerequisiteError(f"demonstrations.path: {path} holds no demonstration.")
    return found


def _of_chat(messages: Any, environment: Environment, task: Task) -> list[Decision]:
    """The decisions of a chat's assistant."""
    grammar, decisions = environment.grammar_of(task), []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        functions = [call["function"] for call in message.get("tool_calls") or ()]
        calls = [
            (one["name"], one["arguments"] if isinstance(one["arguments"], str) else json.dumps(one["arguments"]))
            for one in functions
        ]
        decision = grammar.read(calls_as_text(message.get("content") or "", calls), Observation(text=""))
        if decision is None:
            raise LeapError(f"message {number} of the assistant holds no action that the environment's grammar can read.")
        decisions.append(decision)
    return decisions
