"""Answers of teachers: damaged in every way that models damage them, a step is recovered exactly or reported missing."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap.envs.thought import THOUGHTS
from leap.models.mock import least_value
from leap.teachers.answers import (
    ACTION,
    LEAVE,
    REASON,
    STEP_SCHEMA,
    TIMESTEP,
    StepAnswer,
    objects,
    parse_reasons,
    parse_step,
    parse_trajectory,
    reasons_schema,
    trajectory_schema,
)

NASTY = (
    'He said "go", then left',
    "it's 'here'",
    "a\nb\r\n\tc",
    "back\\slash \\n \\u0041 \\d",
    '{"timestep": 0, "corrected_reason": "x", "corrected_action": "y"}',
    "{'timestep': 1, 'corrected_reason': 'x', 'corrected_action': 'y'}",
    "see, [{'timestep': 0, 'leave_as_it_is': True}]",
    "[{'timestep': 1, 'leave_as_it_is': False, 'corrected_reason': 'x', 'corrected_action': 'y'}]",
    '{"trajectory": [{"timestep": 0, "corrected_reason": "x", "corrected_action": "y"}]}',
    '{"timestep_0": {"corrected_reason": "x", "corrected_action": "y"}}',
    "'timestep_1': {'leave_as_it_is': False, 'corrected_reason': 'x', 'corrected_action': 'y'}",
    '"}, "timestep_1": {"leave_as_it_is": true}, "timestep_2": {"leave_as_it_is": true}, "',
    "}, {'timestep': 0, 'leave_as_it_is': False, 'corrected_reason': 'x', 'corrected_action': 'y'}, {",
    "```json\n{}\n```",
    "awk '{print $1}' f | tr ',' '\\n'",
    '"}, {',
    "emoji 😀 and \u2028 and \x85 \x00",
    ", ",
    "",
    " // # /* ",
)
texts = st.one_of(st.sampled_from(NASTY), st.text(st.characters(codec="utf-8"), max_size=20))
prose = st.sampled_from(("", "Sure! Here is {it}: [1], it's 'this':\n", "I looked at it.\n\n", "Note: \"x\" {} []\n"))


@st.composite
def corrections(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Steps of an answer, as a teacher means them."""
    count = draw(st.integers(1, 5))
    steps: list[dict[str, Any]] = []
    for t in range(count):
        leave = draw(st.booleans())
        steps.append({TIMESTEP: t, LEAVE: leave, REASON: draw(texts), ACTION: draw(texts)})
    return steps


def meant(steps: list[dict[str, Any]]) -> dict[int, StepAnswer]:
    """What should be read of them."""
    return {
        s[TIMESTEP]: StepAnswer(leave=True) if s[LEAVE] else StepAnswer(False, s[REASON], s[ACTION]) for s in steps
    }


@dataclass
class Writer:
    """Writes an answer in a model's hand: steps by key or in a list, the summary first or last, in JSON or Python, with or
    without commas too many and raw line breaks."""

    keyed: bool = False
    last: bool = False
    python: bool = False
    trailing: bool = False
    raw: bool = False
    ascii: bool = False
    gap: str = " "
    text: str = ""
    ends: list[int] = field(default_factory=list)  # where each step is whole
    structure: list[int] = field(default_factory=list)  # positions of quotes, braces, colons and commas

    def answer(self, summary: str, steps: list[dict[str, Any]]) -> str:
        self._mark("{")
        if not self.last:
            self._key("summary")
            self._string(summary)
            self._mark(",")
        self._key("trajectory")
        self._mark("{" if self.keyed else "[")
        for n, step in enumerate(steps):
            if self.keyed:
                self._key(f"timestep_{step[TIMESTEP]}")
                step = {key: value for key, value in step.items() if key != TIMESTEP}
            self._mark("{")
            for k, (key, value) in enumerate(step.items()):
                self._key(key)
                if isinstance(value, str):
                    self._string(value)
                else:
                    self.text += repr(value) if self.python else json.dumps(value)
                if k < len(step) - 1 or self.trailing:
                    self._mark(",")
                    self.text += self.gap
            self._mark("}")
            self.ends.append(len(self.text))
            if n < len(steps) - 1 or self.trailing:
                self._mark(",")
                self.text += self.gap
        self._mark("}" if self.keyed else "]")
        if self.last:
            self._mark(",")
            self._key("summary")
            self._string(summary)
        if self.trailing:
            self._mark(",")
        self._mark("}")
        return self.text

    def _mark(self, sign: str) -> None:
        self.structure.append(len(self.text))
        self.text += sign

    def _key(self, key: str) -> None:
        self._string(key)
        self._mark(":")
        self.text += self.gap

    def _string(self, value: str) -> None:
        written = repr(value) if self.python else json.dumps(value, ensure_ascii=self.ascii)
        if self.raw:
            inner = written[1:-1].replace("\\\\", "\0\0")
            inner = inner.replace("\\n", "\n").replace("\\t", "\t").replace("\0\0", "\\\\") if "\0" not in value else inner
            written = written[0] + inner.replace("\0\0", "\\\\") + written[-1]
        self.structure += [len(self.text), len(self.text) + len(written) - 1]
        self.text += written


writers = st.builds(
    Writer,
    keyed=st.booleans(),
    last=st.booleans(),
    python=st.booleans(),
    trailing=st.booleans(),
    raw=st.booleans(),
    ascii=st.booleans(),
    gap=st.sampled_from(("", " ", "\n    ")),
)


@given(corrections(), texts, writers, prose, prose, st.sampled_from(("", "```json\n", "```python\n", "~~~\n")))
def test_every_way_of_writing_is_read_exactly(
    steps: list[dict[str, Any]], summary: str, writer: Writer, before: str, after: str, fence: str
) -> None:
    text = before + fence + writer.answer(summary, steps) + ("\n" + fence[:3] if fence else "") + after
    parsed = parse_trajectory(text, range(len(steps)), len(steps))
    assert parsed.steps == meant(steps)
    assert parsed.missing == () and parsed.problem == ""


@given(corrections(), texts, writers, prose, st.data())
def test_of_a_cut_off_answer_the_whole_steps_are_kept_and_no_other(
    steps: list[dict[str, Any]], summary: str, writer: Writer, before: str, data: st.DataObject
) -> None:
    text = writer.answer(summary, steps)
    cut = data.draw(st.integers(0, len(text) - 1))
    ending = data.draw(st.sampled_from(("", "\n```", "...")))
    parsed = parse_trajectory(before + text[:cut] + ending, range(len(steps)), len(steps))
    whole = {t for t, end in enumerate(writer.ends) if end <= cut}
    assert parsed.steps == {t: answer for t, answer in meant(steps).items() if t in whole}
    assert set(parsed.missing) == set(range(len(steps))) - whole


@given(corrections(), texts, writers, st.data())
def test_a_lost_sign_of_the_structure_alters_no_value(
    steps: list[dict[str, Any]], summary: str, writer: Writer, data: st.DataObject
) -> None:
    text = writer.answer(summary, steps)
    lost = data.draw(st.sampled_from(writer.structure))
    parsed = parse_trajectory(text[:lost] + text[lost + 1 :], range(len(steps)), len(steps))
    expected = meant(steps)
    assert all(answer == expected[t] for t, answer in parsed.steps.items())
    assert set(parsed.missing) == set(range(len(steps))) - set(parsed.steps)


@given(st.text(max_size=200))
def test_any_text_is_survived(text: str) -> None:
    assert parse_trajectory(text, [0, 1], 2).missing == (0, 1)
    parse_step(text)


@pytest.mark.parametrize(
    "value",
    [
        '"He said "go" to me"',  # quotes that should have been escaped
        '"He said "go", and left"',
        "'it's here'",
        r'"find \d+"',  # an escape that JSON and Python read differently
        r'"half a pair \ud83d"',
        '"one" "two"',
        "go to it",
        "null",
        "7",
        '["go"]',
    ],
)
def test_what_could_be_meant_otherwise_is_reported(value: str) -> None:
    text = (
        '{"summary": "", "trajectory": ['
        '{"timestep": 0, "leave_as_it_is": false, "corrected_reason": "a", "corrected_action": "b"}, '
        '{"timestep": 1, "leave_as_it_is": false, "corrected_reason": ' + value + ', "corrected_action": "b"}, '
        '{"timestep": 2, "leave_as_it_is": false, "corrected_reason": "c", "corrected_action": "d"}]}'
    )
    parsed = parse_trajectory(text, range(3), 3)
    assert parsed.steps == {0: StepAnswer(False, "a", "b"), 2: StepAnswer(False, "c", "d")}
    assert parsed.missing == (1,)
    assert "1 of 3 steps" in parsed.problem


def test_two_answers_for_one_step_are_none() -> None:
    one = '{"timestep": 0, "corrected_reason": "a", "corrected_action": "b"}'
    other = '{"timestep": 0, "corrected_reason": "a", "corrected_action": "c"}'
    assert parse_trajectory(f"[{one}, {one}]", [0], 1).steps == {0: StepAnswer(False, "a", "b")}
    assert parse_trajectory(f"[{one}, {other}]", [0], 1).missing == (0,)
    doubled = '{"timestep": 0, "corrected_reason": "a", "corrected_action": "b", "corrected_action": "c"}'
    assert parse_trajectory(doubled, [0], 1).missing == (0,)
    one, other = (f'"timestep_0": {{"corrected_reason": "a", "corrected_action": "{action}"}}' for action in "bc")
    assert parse_trajectory(f'{{"trajectory": {{{one}}}}}', [0], 1).steps == {0: StepAnswer(False, "a", "b")}
    assert parse_trajectory(f'{{"trajectory": {{{one}, {other}}}}}', [0], 1).missing == (0,)
    assert parse_trajectory(f"{{{one}, {other}}}", [0], 1).missing == (0,)
    for again in (other, '"timestep_0": "as before"', '"timestep_0": {}'):
        beside = one.replace("timestep_0", "timestep_1")
        for text in (f"{{{one}, {again}, {beside}}}", f"{{{beside}, {one}, {again}}}", f"{{{again}, {one}, {beside}}}"):
            assert parse_trajectory(f'{{"trajectory": {text}}}', [0, 1], 2).steps == {1: StepAnswer(False, "a", "b")}, text
    assert parse_trajectory(one.replace("{", '{"timestep": 1, '), [0, 1], 2).missing == (0, 1), (
        "two numbers for one step"
    )


def told(first: int, actions: Sequence[str], *, keyed: bool) -> str:
    """An answer whose steps are numbered on from the first."""
    steps = {t: {LEAVE: False, REASON: "so", ACTION: action} for t, action in enumerate(actions, first)}
    by_key = {f"timestep_{t}": step for t, step in steps.items()}
    return json.dumps({"trajectory": by_key if keyed else [{TIMESTEP: t, **step} for t, step in steps.items()]})


@pytest.mark.parametrize("keyed", [False, True])
def test_of_a_wrong_count_what_certainly_fits_is_kept(keyed: bool) -> None:
    own = ["look", "go north", "go south"]

    def kept(first: int, actions: Sequence[str], asked: Sequence[int] = range(3)) -> dict[int, str]:
        parsed = parse_trajectory(told(first, actions, keyed=keyed), asked, 3, own)
        assert parsed.missing == tuple(t for t in asked if t not in parsed.steps)
        return {t: answer.action for t, answer in parsed.steps.items()}

    assert kept(0, ["look", "b", "c", "d", "e"]) == {0: "look", 1: "b", 2: "c"}, "it goes on behind the end"
    assert kept(0, ["a", "b", "c", "d"], [1]) == {1: "b"}, "and says more than it was asked for"
    assert kept(0, ["a", "look", "go north", "go south"]) == {}, "one step too many stands before the others"
    assert kept(1, ["look", "b", "go south"]) == {0: "look", 1: "b", 2: "go south"}, "it counts from 1"
    assert kept(1, ["a", "b", "c"]) == {}, "it may count from 1, and may have left out the first"
    assert kept(1, ["go north", "go south", "c"]) == {}, "it seems to have left out the first"
    assert kept(1, ["look", "b"], [1, 2]) == {1: "look", 2: "b"}, "a count without fault is believed"
    assert kept(2, ["look", "go north", "go south"]) == {}
    assert kept(1, ["look", "go north", "go south", "d"]) == {}


def test_a_model_that_counts_from_one_is_not_trusted() -> None:
    text = json.dumps([{TIMESTEP: t, LEAVE: True, REASON: "", ACTION: ""} for t in (1, 2, 3)])
    parsed = parse_trajectory(text, range(3), 3)
    assert parsed.steps == {} and parsed.missing == (0, 1, 2)
    assert "timestep 3" in parsed.problem


def test_only_steps_asked_for_are_taken() -> None:
    text = json.dumps([{TIMESTEP: t, LEAVE: True, REASON: "", ACTION: ""} for t in range(4)])
    assert set(parse_trajectory(text, [1, 3], 4).steps) == {1, 3}


def test_a_draft_in_the_thinking_does_not_count() -> None:
    draft = '{"timestep": 0, "corrected_reason": "draft", "corrected_action": "b"}'
    final = '{"timestep": 0, "corrected_reason": "a", "corrected_action": "b"}'
    assert parse_trajectory(f"<think>{draft}</think>{final}", [0], 1).steps[0].reason == "a"
    assert parse_trajectory(f"<think>{draft}", [0], 1).missing == (0,)
    for opening, closing in THOUGHTS.items():
        assert parse_trajectory(f"{opening}{draft}{closing}{final}", [0], 1).steps[0].reason == "a"
        answer = parse_step(f"{opening}{draft}{closing}{final}")
        assert answer is not None and answer.reason == "a"


@pytest.mark.parametrize(("text", "problem"), [("I cannot do that.", "no JSON"), ("", "empty"), (" \n", "empty")])
def test_prose_and_silence_are_named(text: str, problem: str) -> None:
    assert problem in parse_trajectory(text, [0], 1).problem


def test_one_step_and_reasons_are_read_in_the_same_way() -> None:
    assert parse_step("```\n{'corrected_reason': 'a', 'corrected_action': 'b',}\n```") == StepAnswer(False, "a", "b")
    assert parse_step('{"leave_as_it_is": true, "corrected_reason": "", "corrected_action": ""}') == StepAnswer(True)
    assert parse_step('{"corrected_reason": "a", "corrected_action": "b') is None
    parsed = parse_reasons('{"trajectory": [{"timestep": 0, "reason": "a"}, {"timestep": 1, "reason": "b', [0, 1], 2)
    assert parsed.steps == {0: "a"} and parsed.missing == (1,)


def test_a_value_of_any_shape_is_read_and_survives_a_cut_behind_it() -> None:
    step = {TIMESTEP: 0, REASON: "a", ACTION: {"name": "close", "arguments": {"tickets": [1, 2]}}}
    text = "Here it is:\n```json\n" + json.dumps({"summary": "s", "trajectory": [step, step | {TIMESTEP: 1}]})
    assert [found.members for found in objects(text[:-4]) if TIMESTEP in found.members] == [step]
    assert [found.members for found in objects(text) if found.certain] == [step, step | {TIMESTEP: 1}]


def test_hostile_nesting_is_cheap() -> None:
    for hostile in ("[" * 20_000, '{"a":' * 20_000, "{'" * 20_000, '["' * 20_000, "timestep" + " " * 100_000, "[1," * 50_000):
        began = time.process_time()
        assert parse_trajectory(hostile, [0], 1).missing == (0,)
        assert time.process_time() - began < 2


@pytest.mark.parametrize("schema", [trajectory_schema(range(3)), reasons_schema([4]), STEP_SCHEMA])
def test_schemas_are_strict(schema: dict[str, Any]) -> None:
    def check(part: dict[str, Any]) -> None:
        assert set(part) <= {"type", "title", "properties", "required", "additionalProperties", "$defs", "$ref"}
        if "$ref" in part:
            assert part["$ref"] == "#/$defs/step"
        elif part["type"] == "object":
            assert part["required"] == list(part["properties"]) and part["additionalProperties"] is False
            for inner in [*part["properties"].values(), *part.get("$defs", {}).values()]:
                check(inner)

    check(schema)


@given(st.sets(st.integers(0, 200), min_size=1))
def test_the_least_that_a_schema_allows_holds_exactly_the_steps_asked_for(asked: set[int]) -> None:
    text = json.dumps(least_value(trajectory_schema(sorted(asked))))
    assert parse_trajectory(text, sorted(asked), 201).steps == {t: StepAnswer(False, "mock", "mock") for t in asked}
    assert list(json.loads(text)) == ["trajectory", "summary"], "a weak model uses up its tokens on a summary"
    text = json.dumps(least_value(reasons_schema(sorted(asked))))
    assert parse_reasons(text, sorted(asked), 201).steps == dict.fromkeys(asked, "mock")
