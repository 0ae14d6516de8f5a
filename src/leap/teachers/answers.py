"""Structured answers of teachers: their JSON schemas, and what can be trusted of the text that came.

Models in this process and endpoints that have a JSON-schema mode are held to the schema; of all others, and of answers that were
cut off, what parses is kept step by step. A step is either exactly what the teacher wrote or it is missing.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Literal, NamedTuple, TypeVar

from leap.envs.thought import split_thought

LIST, TIMESTEP = "trajectory", "timestep"
LEAVE, REASON, ACTION = "leave_as_it_is", "corrected_reason", "corrected_action"

V = TypeVar("V")


def _object(properties: Mapping[str, object]) -> dict[str, object]:
    # Every key required and no other allowed: what strict schema modes ask for.
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_TEXT = {"type": "string"}
_CORRECTION = _object({LEAVE: {"type": "boolean"}, REASON: _TEXT, ACTION: _TEXT})
STEP_SCHEMA = _CORRECTION | {"title": "step_correction"}


def trajectory_schema(asked: Sequence[int]) -> dict[str, object]:
    """The schema of the corrections of these timesteps. The summary stands last: a weak model uses up its tokens on it."""
    return _answer("trajectory_corrections", asked, _CORRECTION, {"summary": _TEXT})


def reasons_schema(asked: Sequence[int]) -> dict[str, object]:
    """The schema of the reasons of these timesteps."""
    return _answer("reasons", asked, _object({"reason": _TEXT}), {})


def _answer(title: str, asked: Sequence[int], step: object, more: Mapping[str, object]) -> dict[str, object]:
    # A key for each step fixes which there are, by what all strict modes and grammars know: some refuse the length of an
    # array, others a tuple. What a step is stands once, for some allow a hundred properties in all.
    steps = _object({f"{TIMESTEP}_{t}": {"$ref": "#/$defs/step"} for t in asked})
    return _object({LIST: steps, **more}) | {"title": title, "$defs": {"step": step}}


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


def parse_trajectory(text: str, asked: Sequence[int], length: int, own: Sequence[str] = ()) -> ParsedSteps[StepAnswer]:
    """Reads the corrections of a trajectory.

    Args:
        text: The model's answer.
        asked: Timesteps that were asked for; others are not taken.
        length: Number of steps of the episode. A timestep beyond it means that the model counts otherwise than we do, or goes on
            behind the end. Then steps are trusted only as far as they certainly fit: all, if they are numbered on from 0; if
            from 1, where the actions that they repeat are the student's of one step before.
        own: The student's actions.
    """
    return _parse(text, asked, length, _step_answer, own)


def parse_reasons(text: str, asked: Sequence[int], length: int) -> ParsedSteps[str]:
    """Reads the reasons of a demonstration's steps; parameters as for `parse_trajectory`."""
    return _parse(text, asked, length, lambda each: reason if isinstance(reason := each.get("reason"), str) else None)


def parse_step(text: str) -> StepAnswer | None:
    """Reads the correction of one step; None where it cannot be trusted."""
    text = split_thought(text).answer
    answers = [answer for each in objects(text) if (answer := _step_answer(each.members)) is not None]
    # A second mention of the key may be a second answer, or a string in which the one that was read stands.
    return answers[0] if len(answers) == 1 and text.count(LEAVE) <= 1 and text.count(ACTION) <= 1 else None


def _parse(
    text: str,
    asked: Sequence[int],
    length: int,
    read: Callable[[dict[str, object]], V | None],
    own: Sequence[str] = (),
) -> ParsedSteps[V]:
    text = split_thought(text).answer
    found, in_order, given = list(objects(text)), _in_order(text), dict[int, list[V | None]]()
    for each in found:
        t = _timestep(each)
        if t is not None and (each.certain or in_order):
            given.setdefault(t, []).append(read(each.members))
    beyond = [t for t in given if not 0 <= t < length]
    first = _first(given, length, own) if beyond else 0
    counted = {} if first is None else {number - first: answers for number, answers in given.items()}
    good: dict[int, V] = {}
    for t in sorted(counted.keys() & set(asked)):
        one, *others = counted[t]
        if one is not None and all(other == one for other in others):
            good[t] = one
    missing, problem = tuple(t for t in asked if t not in good), ""
    if missing and beyond:
        problem = f"it speaks of timestep {max(beyond)}, but the last is {length - 1}"
    elif missing and found:
        problem = f"{len(missing)} of {len(asked)} steps are missing or damaged"
    elif missing:
        problem = "it holds no JSON that can be read" if text.strip() else "it is empty"
    return ParsedSteps(good, missing, problem)


def _first(given: Mapping[int, Sequence[object]], length: int, own: Sequence[str]) -> int | None:
    """The number from which a model counts that speaks of a timestep beyond the end; None where that is not certain."""
    if sorted(given) != list(range(min(given), len(given) + min(given))):
        return None
    told = {t: answers[0].action for t, answers in given.items() if isinstance(answers[0], StepAnswer)}
    # As often as a correction repeats the student's action, if the model counts from 0 and if from 1.
    from_0, from_1 = (sum(t - first in range(len(own)) and own[t - first] == told[t] for t in told) for first in (0, 1))
    if min(given) == 0:
        return 0 if from_0 >= from_1 else None
    return 1 if min(given) == 1 and len(given) == length and from_1 > from_0 else None


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


_KEY = re.compile(rf"{TIMESTEP}[_ ]?(\d{{1,9}})")
_MENTION = re.compile(rf"{TIMESTEP}[\"'_]?\s*+:?\s*+[\"']?(\d{{1,9}})")


def _timestep(each: Found) -> int | None:
    """The timestep that an object is about, by its key or by what it says; None where they differ or there is none."""
    key, value = _KEY.fullmatch(each.key), each.members.get(TIMESTEP)
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        value = int(value)
    if key is None:
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    return int(key[1]) if value in (None, int(key[1])) else None


def _in_order(text: str) -> bool:
    """Whether all timesteps named in a text, also in its strings, rise. If so none can stand in a string of another's
    step, for there is no number left between two steps; and then steps behind damage can be trusted too."""
    return all(a < b for a, b in pairwise(int(number) for number in _MENTION.findall(text)))


# ---- nearly-JSON, as language models write it ------------------------------------------------------------------------

# No alternative of these can match in a second way, so they are possessive: a hostile text costs linear time.
_ESCAPE = r"\\(?:[\"'\\/bfnrt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
_STRING = rf"""(?P<string>"(?:[^"\\]|{_ESCAPE})*+|'(?:[^'\\]|{_ESCAPE})*+)(?P<end>["'])?+"""
_NUMBER = r"-?(?:0|[1-9]\d*+)(?:\.\d++)?+(?:[eE][+-]?\d++)?+(?![\w.])"
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_TOKEN = re.compile(rf"\s*+(?:(?P<sign>[\[\]{{}}:,])|{_STRING}|(?P<word>{'|'.join(_WORDS)})\b|(?P<number>{_NUMBER})|)")
_OPENER = re.compile(r"[{\[]")
_KEY_BEFORE = re.compile(r"[\"']([^\"'\\]+)[\"']\s*+:\s*+\Z")


class Found(NamedTuple):
    """A whole object in a text, and whether it stands among the others of an answer that was read from its beginning, with no
    damage before. Elsewhere what looks like an object may stand in a string, and the caller has to know better. `key` is what it
    stands under. One without members says that its key is there twice."""

    members: dict[str, object]
    certain: bool
    key: str = ""


def objects(text: str) -> Iterator[Found]:
    """Yields the whole objects in a text that stand alone, in a list that stands alone, in an object's list named `LIST`, or by
    timestep in an object that stands alone or is named so.

    Values may be written in JSON or in Python's way (its literals, quotes and escapes), with commas left over, line breaks inside
    strings, and prose or fences around. Anything else, above all a string that does not end or that goes on behind its closing
    quote, is damage: what is open there is dropped, never mended, for a mended value could be another than was meant
    (json_repair 0.64 closes the last string of an answer that was cut off). A text is read once, from beginning to end.
    """
    position, damaged = 0, False
    while opener := _OPENER.search(text, position):
        before = _KEY_BEFORE.search(text, max(0, opener.start() - 40), opener.start())
        stack, position = [_Open(opener[0], before[1] if before else "")], opener.end()
        while stack and (token := _TOKEN.match(text, position)):
            sign, top = token["sign"], stack[-1]
            if sign in ("[", "{") and top.takes_value:
                stack.append(_Open(sign, top.key))
            elif sign == top.end and top.due in ("item", "comma"):
                stack.pop()
                among = _among_steps(stack, top.named)
                if isinstance(top.value, dict) and top.value and (among or not stack):
                    yield Found(top.value, among and not damaged, top.named)
                if stack:
                    stack[-1].take(top.value)
            elif not (top.take_sign(sign) if sign else top.take_written(token)):
                if top.twice and _among_steps(stack, top.twice):  # neither can be trusted, and the steps beside it can
                    yield Found({}, not damaged, top.twice)
                    top.key, top.due, position = top.twice, "colon", token.end()
                    continue
                damaged = damaged or any(each.value or each.key for each in stack)  # else it was a bracket in prose
                position = token.start("sign") if sign in ("[", "{") else token.end()
                break
            position = token.end()


def _among_steps(stack: Sequence[_Open], key: str) -> bool:
    """Whether what stands in these lists and objects, under that key, is one step of several."""
    if len(stack) not in (1, 2):
        return False
    if stack[-1].end == "]":
        return stack[0].key in ("", LIST)
    return bool(_KEY.fullmatch(key)) and (len(stack) == 1 or stack[0].key == LIST)


class _Open:
    """A list or an object that has begun and not ended.

    Attributes:
        named: The key that it stands under.
        twice: A key that it was to be given a second time.
        value: Its items or members so far.
        end: The sign that ends it.
        key: Of the latest member.
        due: What may come next: an item (of an object: a key) or the end, a colon, a member's value, a comma or the end.
    """

    def __init__(self, sign: str, named: str) -> None:
        self.named, self.twice = named, ""
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
        if self.due == "item" and isinstance(value, str):
            self.twice = value if value in self.value else ""
            self.key, self.due = value, "colon"
            return not self.twice
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
