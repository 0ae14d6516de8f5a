"""Structured answers of teachers: their JSON schemas, and what can be trusted of the text that came.

Endpoints that have a JSON-schema mode are given the schema; of all others, and of answers that were cut off, what parses
is kept step by step. A step is either exactly what the teacher wrote or it is missing.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Literal, NamedTuple, TypeVar

LIST, TIMESTEP = "trajectory", "timestep"
LEAVE, REASON, ACTION = "leave_as_it_is", "corrected_reason", "corrected_action"

V = TypeVar("V")


def _object(properties: Mapping[str, object]) -> dict[str, object]:
    # Every key required and no other allowed: what strict schema modes ask for.
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _steps(properties: Mapping[str, object]) -> dict[str, object]:
    return {"type": "array", "items": _object({TIMESTEP: {"type": "integer"}, **properties})}


_TEXT = {"type": "string"}
_CORRECTION = {LEAVE: {"type": "boolean"}, REASON: _TEXT, ACTION: _TEXT}
TRAJECTORY_SCHEMA = _object({"summary": _TEXT, LIST: _steps(_CORRECTION)}) | {"title": "trajectory_corrections"}
STEP_SCHEMA = _object(_CORRECTION) | {"title": "step_correction"}
REASONS_SCHEMA = _object({LIST: _steps({"reason": _TEXT})}) | {"title": "reasons"}


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """What a teacher says about one step: its reason and action, or to leave the student's own as they are."""

    leave: bool
    reason: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class ParsedSteps(Generic[V]):
    """What can be trusted of an answer about several steps.

    Attributes:
        steps: Exactly what was written, by timestep.
        missing: Steps asked for of which nothing can be trusted: absent, damaged, cut off, or given twice differently.
        problem: Why steps are missing, for people; empty where none is.
    """

    steps: dict[int, V]
    missing: tuple[int, ...]
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


def parse_reasons(text: str, asked: Sequence[int], length: int) -> ParsedSteps[str]:
    """Reads the reasons of a demonstration's steps; parameters as for `parse_trajectory`."""
    return _parse(text, asked, length, lambda each: reason if isinstance(reason := each.get("reason"), str) else None)


def parse_step(text: str) -> StepAnswer | None:
    """Reads the correction of one step; None where it cannot be trusted."""
    text = _final(text)
    answers = [answer for each in objects(text) if (answer := _step_answer(each.members)) is not None]
    # A second mention of the key may be a second answer, or a string in which the one that was read stands.
    return answers[0] if len(answers) == 1 and text.count(LEAVE) <= 1 and text.count(ACTION) <= 1 else None


def _parse(text: str, asked: Sequence[int], length: int, read: Callable[[dict[str, object]], V | None]) -> ParsedSteps[V]:
    text = _final(text)
    found, in_order, given = list(objects(text)), _in_order(text), dict[int, list[V | None]]()
    for each, certain in found:
        t = _timestep(each.get(TIMESTEP))
        if t is not None and (certain or in_order):
            given.setdefault(t, []).append(read(each))
    beyond = [t for t in given if not 0 <= t < length]
    good: dict[int, V] = {}
    for t in sorted(given.keys() & set(asked)) if not beyond else ():
        first, *others = given[t]
        if first is not None and all(other == first for other in others):
            good[t] = first
    missing, problem = tuple(t for t in asked if t not in good), ""
    if missing and beyond:
        problem = f"it speaks of timestep {max(beyond)}, but the last is {length - 1}"
    elif missing and found:
        problem = f"{len(missing)} of {len(asked)} steps are missing or damaged"
    elif missing:
        problem = "it holds no JSON that can be read" if text.strip() else "it is empty"
    return ParsedSteps(good, missing, problem)


def _step_answer(each: dict[str, object]) -> StepAnswer | None:
    leave, reason, action = each.get(LEAVE, False), each.get(REASON), each.get(ACTION)
    if leave is True:
        return StepAnswer(leave=True)
    if isinstance(action, dict):  # a call of a tool that is written as an object, not as its text
        try:
            action = json.dumps(action, ensure_ascii=False)
        except RecursionError:
            return None
    if leave not in (False, None) or not isinstance(reason, str) or not isinstance(action, str):
        return None
    return StepAnswer(leave=False, reason=reason, action=action)


def _timestep(value: object) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_MENTION = re.compile(rf"{TIMESTEP}[\"']?\s*+:?\s*+[\"']?(\d{{1,9}})")


def _in_order(text: str) -> bool:
    """Whether all timesteps named in a text, also in its strings, rise. If so none can stand in a string of another's
    step, for there is no number left between two steps; and then steps behind damage can be trusted too."""
    return all(a < b for a, b in pairwise(int(number) for number in _MENTION.findall(text)))


def _final(text: str) -> str:
    """What follows a reasoning model's thinking: drafts in there do not count."""
    if not text.lstrip().lower().startswith("<think>"):
        return text
    return text[end.end() :] if (end := re.search(r"(?i)</think>", text)) else ""


# ---- nearly-JSON, as language models write it ------------------------------------------------------------------------

# No alternative of these can match in a second way, so they are possessive: a hostile text costs linear time.
_ESCAPE = r"\\(?:[\"'\\/bfnrt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
_STRING = rf"""(?P<string>"(?:[^"\\]|{_ESCAPE})*+|'(?:[^'\\]|{_ESCAPE})*+)(?P<end>["'])?+"""
_NUMBER = r"-?(?:0|[1-9]\d*+)(?:\.\d++)?+(?:[eE][+-]?\d++)?+(?![\w.])"
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_TOKEN = re.compile(rf"\s*+(?:(?P<sign>[\[\]{{}}:,])|{_STRING}|(?P<word>{'|'.join(_WORDS)})\b|(?P<number>{_NUMBER})|)")
_OPENER = re.compile(r"[{\[]")


class Found(NamedTuple):
    """A whole object in a text, and whether it stands in a list that was read from its beginning, with no damage before.
    Elsewhere what looks like an object may stand in a string, and the caller has to know better."""

    members: dict[str, object]
    certain: bool


def objects(text: str) -> Iterator[Found]:
    """Yields the whole objects in a text that stand alone, in a list that stands alone, or in an object's list named `LIST`.

    Values may be written in JSON or in Python's way (its literals, quotes and escapes), with commas left over, line breaks inside
    strings, and prose or fences around. Anything else, above all a string that does not end or that goes on behind its closing
    quote, is damage: what is open there is dropped, never mended, for a mended value could be another than was meant
    (json_repair 0.64 closes the last string of an answer that was cut off). A text is read once, from beginning to end.
    """
    position, damaged = 0, False
    while opener := _OPENER.search(text, position):
        stack, position = [_Open(opener[0])], opener.end()
        while stack and (token := _TOKEN.match(text, position)):
            sign, top = token["sign"], stack[-1]
            if sign in ("[", "{") and top.takes_value:
                stack.append(_Open(sign))
            elif sign == top.end and top.due in ("item", "comma"):
                stack.pop()
                in_list = len(stack) in (1, 2) and stack[-1].end == "]" and stack[0].key in ("", LIST)
                if isinstance(top.value, dict) and top.value and (in_list or not stack):
                    yield Found(top.value, certain=in_list and not damaged)
                if stack:
                    stack[-1].take(top.value)
            elif not (top.take_sign(sign) if sign else top.take_written(token)):
                damaged = damaged or any(each.value or each.key for each in stack)  # else it was a bracket in prose
                position = token.start("sign") if sign in ("[", "{") else token.end()
                break
            position = token.end()


class _Open:
    """A list or an object that has begun and not ended.

    Attributes:
        value: Its items or members so far.
        end: The sign that ends it.
        key: Of the latest member.
        due: What may come next: an item (of an object: a key) or the end, a colon, a member's value, a comma or the end.
    """

    def __init__(self, sign: str) -> None:
        self.value: list[object] | dict[str, object] = [] if sign == "[" else {}
        self.end = "]" if sign == "[" else "}"
        self.key = ""
        self.due: Literal["item", "colon", "value", "comma"] = "item"

    @property
    def takes_value(self) -> bool:
        """Whether a value of any kind may come next."""
        return self.due == "value" or (self.due == "item" and self.end == "]")

    def take_sign(self, sign: str) -> bool:
        """Goes past a colon or a comma; False where it may not come next."""
        due, self.due = self.due, "value" if sign == ":" else "item"
        return (sign, due) in ((":", "colon"), (",", "comma"))

    def take_written(self, token: re.Match[str]) -> bool:
        """Takes a string, a number or a word; False where it may not come next, or cannot be read."""
        try:
            return self.take(_value(token))
        except ValueError:
            return False

    def take(self, value: object) -> bool:
        """Takes a value or a key; False where it may not come next. Of two values of one key, neither can be trusted."""
        if self.takes_value:
            if isinstance(self.value, list):
                self.value.append(value)
            else:
                self.value[self.key] = value
            self.due = "comma"
            return True
        if self.due == "item" and isinstance(value, str) and value not in self.value:
            self.key, self.due = value, "colon"
            return True
        return False


def _value(token: re.Match[str]) -> object:
    """What a string, a number or a word says.

    Raises:
        ValueError: It is none of these, or it does not end, is too long, or holds half of a surrogate pair.
    """
    if token["word"]:
        return _WORDS[token["word"]]
    if token["number"]:
        return json.loads(token["number"])
    if not token["end"]:
        raise ValueError("damage")
    text = re.sub(_ESCAPE, lambda m: "/" if m[0] == r"\/" else codecs.decode(m[0], "unicode_escape"), token["string"])
    return text[1:].encode("utf-16", "surrogatepass").decode("utf-16")  # joins surrogate pairs; half of one is an error
