"""Trajectories as other tools read them: the Agent Trajectory Interchange Format (ATIF), version 1.8.

Nothing of a privileged state is in one: it is made of a task, what was shown, and what was answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from leap import __version__
from leap.core import Episode, Step
from leap.core.message import ToolSpec
from leap.core.record import JsonObject
from leap.envs.tools import call_id, call_of

VERSION = "ATIF-v1.8"
ACT = "act"
"""The function that an action which is no call of a tool is told as, with the action as its `command`."""


class Turn(NamedTuple):
    """One action.

    Attributes:
        action: As sent to the environment.
        seen: What the environment showed then; None where nothing was shown yet.
        step: The step as logged, where there is one.
    """

    action: str
    seen: str | None
    step: Step | None = None


def trajectory(
    instruction: str, turns: Iterable[Turn], *, seen: str = "", agent: str = "leap", tools: Sequence[ToolSpec] = ()
) -> JsonObject:
    """A trajectory: the task as the user's step, with what was seen at first, then a step of the agent's for each action.

    Args:
        instruction: What the agent was told.
        turns: Its actions.
        seen: What it was shown at first.
        agent: Its name.
        tools: What it could call.
    """
    first: JsonObject = {"step_id": 1, "source": "user", "message": instruction}
    if seen:
        first["observation"] = {"results": [{"content": seen}]}
    steps = [first, *(_step(number, turn) for number, turn in enumerate(turns, start=2))]
    told: JsonObject = {"name": agent, "version": __version__}
    if tools:
        told["tool_definitions"] = [*tools]
    return {"schema_version": VERSION, "agent": told, "steps": steps}


def episode_trajectory(episode: Episode, tools: Sequence[ToolSpec] = ()) -> JsonObject:
    """An episode as a trajectory: tokens of each step, and in `extra.leap` what the format has no place for. The text of an error
    stays out: an exception may quote what is hidden, and paths of the machine."""
    shown = [*(step.observation.text for step in episode.steps), episode.final.text]
    turns = [Turn(step.action, after, step) for step, after in zip(episode.steps, shown[1:], strict=True)]
    made = trajectory(episode.task.instruction, turns, seen=shown[0], agent=episode.actor.name, tools=tools)
    ours = episode.model_dump(mode="json", exclude={"task", "steps", "final", "error"})
    task = episode.task.model_dump(mode="json", exclude={"instruction"})
    totals = {
        name: sum(getattr(step, name) for step in episode.steps) for name in ("prompt_tokens", "completion_tokens")
    }
    return made | {
        "session_id": episode.key,
        "final_metrics": {f"total_{name}": total for name, total in totals.items()}
        | {"total_steps": len(made["steps"])},
        "extra": {"leap": {"task": task, **ours}},
    }


def as_json(told: JsonObject, *, indent: int | None = 1) -> bytes:
    """A trajectory as a file: half a character, which UTF-8 cannot hold, is a question mark."""
    return json.dumps(told, ensure_ascii=False, indent=indent).encode("utf-8", "replace")


def _step(number: int, turn: Turn) -> JsonObject:
    call = call_of(turn.action) or {"name": ACT, "arguments": {"command": turn.action}}
    name = call_id(number)
    told: JsonObject = {
        "step_id": number,
        "source": "agent",
        "message": "",
        "tool_calls": [{"tool_call_id": name, "function_name": call["name"], "arguments": call["arguments"]}],
    }
    if turn.seen is not None:
        told["observation"] = {"results": [{"source_call_id": name, "content": turn.seen}]}
    if turn.step is not None:
        step = turn.step
        told["message"] = step.completion
        told |= {"reasoning_content": step.reason} if step.reason else {}
        told["metrics"] = {"prompt_tokens": step.prompt_tokens, "completion_tokens": step.completion_tokens}
        told["metrics"] |= {"completion_token_ids": [*step.tokens]} if step.tokens else {}
        told["metrics"] |= {"logprobs": [*step.logprobs]} if step.logprobs else {}
        told["extra"] = {"leap": {"parsed": step.parsed, "reward": step.reward, "dropped": step.dropped}}
    return told
