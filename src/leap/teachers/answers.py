"""Structured answers of teachers: their JSON schemas, and what can be trusted of the text that came.

Endpoints that have a JSON-schema mode are given the schema; of all others, and of answers that were cut off, what parses
is kept step by step. A step is either exactly what the teacher wrote or it is missing (see `leap.teachers.relaxed`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

from leap.teachers.relaxed import objects

TIMESTEP, LEAVE, REASON, ACTION = "timestep", "leave_as_it_is", "corrected_reason", "corrected_action"


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    # Every key required and no other allowed: what strict schema modes ask for.
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _steps(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": _object({TIMESTEP: {"type": "integer"}, **properties})}


_TEXT = {"type": "string"}
_CORRECTION = {LEAVE: {"type": "boolean"}, REASON: _TEXT, ACTION: _TEXT}

TRAJECTORY_SCHEMA = _object({"summary": _TEXT, "trajectory": _steps(_CORRECTION)}) | {"title": "trajectory_corrections"}
"""A correction per step of a trajectory: {summary, trajectory: [{timestep, leave_as_it_is, corrected_reason, ...}]}."""

STEP_SCHEMA = _object(_CORRECTION) | {"title": "step_correction"}
"""The correction of one step."""

REASONS_SCHEMA = _object({"trajectory": _steps({"reason": _TEXT})}) | {"title": "reasons"}
"""A reason per step of a demonstration."""


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """What a teacher says about one step.

    Attributes:
        leave: The student's own reason and action are good; the other two do not count then.
        reason: Corrected reason.
        action: Corrected action.
    """

    leave: bool
    reason: str = ""
    action: str = ""


V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class ParsedSteps(Generic[V]):
    """What can be trusted of an answer about several steps.

    Attributes:
        steps: Exactly what was written, by timestep.
        missing: Steps asked for of which nothing can be trusted: absent, damaged, cut off, or given twice differently.
        summary: The answer's summary; empty where there is none.
        problem: Why steps are missing, for people; empty where none is.
    """

    steps: dict[int, V]
    missing: tuple[int, ...]
    summary: str = ""
    problem: str = ""


def parse_trajectory(text: str, asked: Sequence[int], length: int) -> ParsedSteps[StepAnswer]:
    """Reads the corrections of a trajectory.

    Args:
        text: The model's answer.
        asked: Timesteps that were asked for; others are not taken.
        length: Number of steps of the episode. A timestep beyond it means that the model counts otherwise than we do,
            and then no step can be trusted.
    """
    return _parse(text, asked, length, _step_answer)


def parse_step(text: str) -> StepAnswer | None:
    """Reads the correction of one step; None where it cannot be trusted."""
    text = _final(text)
    answers = [answer for each in objects(text) if (answer := _step_answer(each.members)) is not None]
    # A second mention of the key may be a second answer, or a string in which the one that was read stands.
    return answers[0] if len(answers) == 1 and text.count(LEAVE) <= 1 and text.count(ACTION) <= 1 else None


def parse_reasons(text: str, asked: Sequence[int], length: int) -> ParsedSteps[str]:
    """Reads the reasons of a demonstration's steps; parameters as for `parse_trajectory`."""
    return _parse(text, asked, length, lambda each: reason if isinstance(reason := each.get("reason"), str) else None)


def _parse(
    text: str, asked: Collection[int], length: int, read: Callable[[dict[str, Any]], V | None]
) -> ParsedSteps[V]:
    steps: dict[int, V] = {}
    broken: set[int] = set()
    beyond: set[int] = set()
    summary, any_object = "", False
    text = _final(text)
    in_order = _in_order(text)
    for each, certain in objects(text):
        any_object = True
        if TIMESTEP not in each:
            summary = each["summary"] if isinstance(each.get("summary"), str) else summary
            continue
        t, answer = _timestep(each[TIMESTEP]), read(each)
        if t is None or not (certain or in_order):
            continue
        if not 0 <= t < length:
            beyond.add(t)
        elif answer is None or (t in steps and steps[t] != answer):
            broken.add(t)
        else:
            steps[t] = answer
    good = {} if beyond else {t: steps[t] for t in sorted(steps) if t in asked and t not in broken}
    missing = tuple(t for t in asked if t not in good)
    problem = ""
    if missing:
        if beyond:
            problem = f"it speaks of timestep {max(beyond)}, but the last is {length - 1}"
        elif not any_object:
            problem = "it holds no JSON that can be read" if text.strip() else "it is empty"
        else:
            problem = f"{len(missing)} of {len(asked)} steps are missing or damaged"
    return ParsedSteps(good, missing, summary, problem)


def _step_answer(each: dict[str, Any]) -> StepAnswer | None:
    leave, reason, action = each.get(LEAVE, False), each.get(REASON), each.get(ACTION)
    if leave is True:
        return StepAnswer(leave=True)
    if isinstance(action, dict):  # a call of a tool that is written as an object, not as its text
        action = json.dumps(action, ensure_ascii=False)
    if leave not in (False, None) or not isinstance(reason, str) or not isinstance(action, str):
        return None
    return StepAnswer(leave=False, reason=reason, action=action)


def _timestep(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_MENTION = re.compile(rf"{TIMESTEP}[\"']?\s*:?\s*[\"']?(\d{{1,9}})")


def _in_order(text: str) -> bool:
    """Whether all timesteps named in a text, also in its strings, rise. If so none can stand in a string of another's
    step, for there is no number left between two steps; and then steps behind damage can be trusted too."""
    numbers = [int(number) for number in _MENTION.findall(text)]
    return all(a < b for a, b in pairwise(numbers))


def _final(text: str) -> str:
    """What follows a reasoning model's thinking: drafts in there do not count."""
    if not text.lstrip().lower().startswith("<think>"):
        return text
    return text[end.end() :] if (end := re.search(r"(?i)</think>", text)) else ""
