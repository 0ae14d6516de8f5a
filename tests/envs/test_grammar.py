"""Grammars: what is written is read back exactly, and what models really emit is read too."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leap.core import Decision, Observation
from leap.envs.answer import format_answer, parse_answer
from leap.envs.grammar import FreeText, Grammar, Line, ToolCalls
from leap.envs.thought import without_thoughts
from leap.envs.tools import Tool, call_of, calls_as_text, canonical_call, in_words
from leap.errors import LeapError

FREE, OPEN = FreeText(), Observation(text="?")
LISTED = Observation(text="?", admissible=("look", "go to cabinet 12", "Look"))
REFUND = Tool(
    name="refund",
    description="Pays money back.",
    parameters={
        "type": "object",
        "properties": {
            "order": {"type": "string"},
            "cents": {"type": "integer", "minimum": 1},
            "note": {"type": "object", "properties": {"to": {"type": "string"}, "text": {"type": "string"}}},
        },
        "required": ["order", "cents"],
        "additionalProperties": False,
    },
)
LOOK_UP = Tool(name="look_up", parameters={"type": "object", "properties": {"what": {"type": "string"}}})
DESK = ToolCalls([REFUND, LOOK_UP])
REFUNDED = '{"name": "refund", "arguments": {"order": "A-7", "cents": 250}}'

hard_pieces = st.sampled_from(
    ["```", "````", "`", "\n", "\r\n", "\r", "ACTION:", "\nACTION: x", "REASON:", "\nOBSERVATION: y", "<think>", "</think>", '"',
     "'", "**", "__", " ", "\t", "x", "def f():\n    return 1", "~~~", "\u2028", "\x85", "\x00", "é", '{"name": "a"}', ":"]
)  # fmt: skip
texts = st.one_of(st.text(st.characters(codec="utf-8")), st.lists(hard_pieces, max_size=12).map("".join))
actions = texts.filter(lambda text: bool(text.strip()))


# ---- lines -----------------------------------------------------------------------------------------------------------


@given(texts, texts, st.booleans())
@example("", "</think><think>ACTION:`", False)  # a thought is taken out once: what is left may look like another
def test_lines_are_written_and_read_as_ever(reason: str, action: str, listed: bool) -> None:
    decision, shown = Decision(reason=reason, action=action), LISTED if listed else OPEN
    text = format_answer(decision)
    assert Line().write(decision) == {"role": "assistant", "content": text}
    assert Line().read(text, shown) == parse_answer(text, shown.admissible)
    assert Line().read(action, shown, truncated=True) == parse_answer(
        without_thoughts(action).rpartition("\n")[0], shown.admissible
    )


# ---- free text -------------------------------------------------------------------------------------------------------


@given(texts, actions)
@example("", "  indented\n    more\n")
@example("I think.", "```python\nprint(1)\n```")
@example("<think>", "a</think>b")
def test_every_action_of_free_text_is_read_back_exactly(reason: str, action: str) -> None:
    message = FREE.write(Decision(reason=reason, action=action))
    read = FREE.read(message["content"], OPEN)
    assert read is not None and read.action == action
    assert FREE.canonical(action) == action and FREE.valid(action, OPEN)


@given(actions)
def test_an_action_of_the_history_stands_there_as_it_is_answered(action: str) -> None:
    taken, shown = FREE.turn(action, "seen", 0)
    assert shown == {"role": "user", "content": "seen"}
    assert FREE.write(Decision(reason="So.", action=action))["content"] == f"REASON: So.\n{taken['content']}"


@given(st.one_of(texts, st.lists(hard_pieces, max_size=25).map("".join)), st.booleans())
def test_no_text_at_all_raises(text: str, truncated: bool) -> None:
    for grammar in (FREE, DESK, Line()):
        for shown in (OPEN, LISTED):
            read = grammar.read(text, shown, truncated=truncated)
            assert read is None or read.action.strip()


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("ACTION: ls -la", "ls -la"),
        ("**ACTION:** `ls -la`", "ls -la"),
        ("ACTION: def f(x):\n    return x", "def f(x):\n    return x"),
        ("ACTION:\ndef f(x):\n\n    return x\n", "def f(x):\n\n    return x"),
        ("ACTION:\n    x = 1\n    y = 2", "    x = 1\n    y = 2"),
        ("**ACTION:** Dear Ms Fox,\n\nit is on its way.\n", "Dear Ms Fox,\n\nit is on its way."),
        ("ACTION: See here:\n```sh\nls\n```\nThat helps.", "See here:\n```sh\nls\n```\nThat helps."),
        ('ACTION: {\n  "a": 1\n}', '{\n  "a": 1\n}'),
        ("ACTION:\n```json\n{\n}\n```", "{\n}"),
        ("ACTION:\n````\n```\nx\n```\n````\nThat was it.", "```\nx\n```"),
        ("ACTION:\n```python\nx = 1", "x = 1"),
        ("ACTION:\nACTION: go\nnow", "go\nnow"),
        ("```\nREASON: r\nACTION: one\ntwo\n```", "one\ntwo"),
    ],
)
def test_actions_of_several_lines_are_read_whole(answer: str, action: str) -> None:
    read = FREE.read(f"REASON: r\n{answer}" if not answer.startswith("```\nREASON") else answer, OPEN)
    assert read == Decision(reason="r", action=action)


@pytest.mark.parametrize("begins", ["REASON:", "**OBSERVATION:**", "Observation: ", "> ACTION:", "Thought:"])
def test_an_imagined_next_turn_is_no_part_of_an_action(begins: str) -> None:
    read = FREE.read(f"REASON: r\nACTION: one\ntwo\n\n{begins} You see a mug.\nACTION: three", OPEN)
    assert read is not None and read.action == "one\ntwo"


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("ACTION: ls -l", None),
        ("ACTION: one\ntwo", None),
        ("ACTION:\n```\none\ntw", None),
        ("ACTION:\n```\none\n```\nand so", "one"),
        ("ACTION: one\ntwo\nOBSERVATION: and", "one\ntwo"),
    ],
)
def test_half_an_action_is_not_read(answer: str, action: str | None) -> None:
    read = FREE.read(f"REASON: r\n{answer}", OPEN, truncated=True)
    assert (read.action if read else None) == action


def test_where_actions_are_listed_free_text_reads_as_a_line_does() -> None:
    for answer in ("Action: **GO TO CABINET 12.**", "ACTION:\n`look`\nREASON: x\nACTION: Look", "ACTION: jump\nhigh"):
        assert FREE.read(answer, LISTED) == Line().read(answer, LISTED)
    programs = Observation(text="?", admissible=("a\nb", "c"))
    read = FREE.read(FREE.write(Decision(reason="r", action="a\nb"))["content"], programs)
    assert read is not None and read.action == "a\nb"


# ---- calls of tools --------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")) | hard_pieces,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
arguments = st.dictionaries(st.sampled_from(["order", "cents", "note", "z", "a b", "{", "é"]), json_values, max_size=4)
reasons = st.text(st.characters(categories=("L", "N"), include_characters=" .,'")).map(lambda text: " ".join(text.split()))


@given(arguments, st.randoms())
def test_a_call_has_one_spelling(given: dict[str, Any], draw: Any) -> None:
    action = canonical_call({"name": "refund", "arguments": given}, REFUND)
    assert action is not None and json.loads(action) == {"name": "refund", "arguments": given}
    shuffled = dict(draw.sample(list(given.items()), len(given)))
    for indent in (None, 2):
        other = json.dumps({"arguments": shuffled, "name": "refund"}, indent=indent)
        assert DESK.canonical(other) == action
    assert DESK.canonical(action) == action


def test_arguments_come_in_the_order_of_the_schema() -> None:
    mixed = '{"arguments":{"y": 1, "note": {"text": "t", "b": 0, "to": "u"}, "cents": 5, "order": "A", "a": 2}, "name": "refund"}'
    assert DESK.canonical(mixed) == (
        '{"name": "refund", "arguments": {"order": "A", "cents": 5, "note": {"to": "u", "text": "t", "b": 0}, "a": 2, "y": 1}}'
    )


@given(reasons, arguments)
def test_what_is_written_is_read_back_in_every_form(reason: str, given: dict[str, Any]) -> None:
    action = canonical_call({"name": "refund", "arguments": given}, REFUND)
    assert action is not None
    decision = Decision(reason=reason, action=action)
    message = DESK.write(decision)
    assert message.get("tool_calls") == [{"type": "function", "function": {"name": "refund", "arguments": given}}]
    assert message["content"] == reason
    told = json.dumps(given, ensure_ascii=False)
    for text in (
        calls_as_text(reason, [("refund", told)]),
        in_words([message], ())[0]["content"],
        f'{reason}\n<tool_call>[{{"name": "refund", "arguments": {told}}}]</tool_call>',
        f'{reason}[TOOL_CALLS] [{{"name": "refund", "arguments": {told}, "id": "call00000"}}]',
        f"{reason}[TOOL_CALLS]refund[CALL_ID]abc123def[ARGS]{told}",
        f"{reason}[TOOL_CALLS]refund{told}",
        f'{reason}<|python_tag|>{{"name": "refund", "parameters": {told}}}',
        f'{reason}\n{{"name": "refund", "parameters": {told}}}',
        f'{reason}\n```json\n{{"name": "refund", "arguments": {json.dumps(told)}}}\n```',
        f"{reason}\n<function=refund>{told}</function>",
        f'REASON: {reason}\n**Action:** `{{"type": "function", "function": {{"name": "refund", "arguments": {told}}}}}`',
        f"REASON: {reason}\nACTION: {calls_as_text('', [('refund', told)])}",
    ):
        assert DESK.read(text, OPEN) == decision, text


def test_arguments_that_are_written_one_by_one_get_their_types_from_the_schema() -> None:
    text = (
        "I pay.\n<tool_call>\n<function=refund>\n<parameter=order>\n7\n</parameter>\n<parameter=cents>\n250\n</parameter>\n"
        '<parameter=note>\n{"to": "x"}\n</parameter>\n</function>\n</tool_call>'
    )
    read = DESK.read(text, OPEN)
    assert read == Decision(
        reason="I pay.", action='{"name": "refund", "arguments": {"order": "7", "cents": 250, "note": {"to": "x"}}}'
    )
    assert DESK.read(text.partition("</function>")[0], OPEN) is None


def test_the_first_of_several_calls_counts() -> None:
    both = calls_as_text("So.", [("look_up", '{"what": "A-7"}'), ("refund", "{}")])
    read = DESK.read(both, OPEN)
    assert read == Decision(reason="So.", action='{"name": "look_up", "arguments": {"what": "A-7"}}')


@pytest.mark.parametrize(
    "text",
    ["", "I would rather talk.", '<tool_call>{"name": "refund", "arguments": {"order": "A', "<tool_call>refund</tool_call>",
     '{"order": "A"}', '{"name": "refund"}', calls_as_text("", [("refund", '{"order": "A-7", cents')]),
     calls_as_text("", [("refund", "[1]"), ("refund", "{}")]), '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
     '{"name": "refund", "arguments": {"cents": NaN}}', '{"name": "refund", "arguments": {"cents": 1e999}}',
     '{"name": "refund", "arguments": {"order": "\\ud800"}}', "[" * 100_000, '{"a":' * 100_000, "{" * 100_000]
)  # fmt: skip
def test_what_is_no_call_is_not_read(text: str) -> None:
    assert DESK.read(text, OPEN) is None


@pytest.mark.parametrize("cents", ["1" + "0" * 400, "-1" + "0" * 4000, "1e308", "1e400"])
def test_a_number_beyond_all_measure_is_no_valid_argument(cents: str) -> None:
    tool = Tool(name="refund", parameters={"type": "object", "properties": {"cents": {"type": "number", "multipleOf": 0.01}}})
    action = f'{{"name": "refund", "arguments": {{"cents": {cents}}}}}'
    assert not (ToolCalls([tool]).valid(action, OPEN) and cents != "1e308")


def test_malformed_arguments_stay_in_the_text_without_loss() -> None:
    for told in ('{"order": "A-7", cents', "", "null", '"quoted"', "line\nbreak"):
        text = calls_as_text("Words.", [("refund", told)])
        inside = text.partition("<tool_call>\n")[2].partition("\n</tool_call>")[0]
        assert text.startswith("Words.") and json.loads(inside) == {"name": "refund", "arguments": told}


def test_thinking_before_a_call_is_no_call() -> None:
    read = DESK.read(f'<think>{{"name": "look_up", "arguments": {{}}}}</think>\n\nNow.\n{REFUNDED}', OPEN)
    assert read == Decision(reason="Now.", action=REFUNDED)
    begun = DESK.read(f'Perhaps {{"name": "look_up", "arguments": {{}}}}?\n</think>\n\nNow.\n{REFUNDED}', OPEN)
    assert begun == read
    quoted = canonical_call({"name": "look_up", "arguments": {"what": "</think>"}})
    assert DESK.read(f"Now. {quoted}", OPEN) == Decision(reason="Now.", action=str(quoted))


@pytest.mark.parametrize(
    ("action", "valid"),
    [
        (REFUNDED, True),
        ('{"name": "refund", "arguments": {"order": "A-7"}}', False),
        ('{"name": "refund", "arguments": {"order": "A-7", "cents": 0}}', False),
        ('{"name": "refund", "arguments": {"order": 7, "cents": 1}}', False),
        ('{"name": "refund", "arguments": {"order": "A-7", "cents": 1, "x": 1}}', False),
        ('{"name": "pay", "arguments": {}}', False),
        ('{"name":"refund","arguments":{"order":"A-7","cents":250}}', False),
        ("refund A-7", False),
        ("", False),
    ],
)
def test_only_calls_that_the_schema_allows_are_valid(action: str, valid: bool) -> None:
    assert DESK.valid(action, OPEN) is valid
    spaced = DESK.canonical(action) != action  # understood, but not the one spelling
    assert (DESK.call(action) is not None) is (not DESK.problem(action)) is (valid or spaced)
    assert DESK.valid(action, Observation(text="", admissible=("x",))) is False


def test_what_is_wrong_with_a_call_is_said() -> None:
    assert DESK.problem("refund A-7") == "That is no call of a tool."
    assert DESK.problem('{"name": "pay", "arguments": {}}') == "There is no tool 'pay'; there are: refund, look_up."
    assert DESK.problem('{"name": "refund", "arguments": {"order": "A"}}') == "refund: 'cents' is a required property."
    broken = ToolCalls([Tool(name="x", parameters={"type": "nothing"})])
    with pytest.raises(LeapError, match="no JSON schema"):
        broken.problem('{"name": "x", "arguments": {}}')


def test_a_dialogue_holds_calls_and_what_they_gave() -> None:
    asked, shown = DESK.turn(REFUNDED, "Done.", 3)
    assert asked["content"] == "" and asked.get("tool_calls", [])[0]["function"] == call_of(REFUNDED)
    assert shown == {"role": "tool", "content": "Done.", "tool_call_id": asked.get("tool_calls", [])[0].get("id")}
    assert DESK.turn("(no action)", "?", 0) == [
        {"role": "assistant", "content": "(no action)"},
        {"role": "user", "content": "?"},
    ]


def test_tools_need_names_of_their_own() -> None:
    for tools in ([], [REFUND, REFUND]):
        with pytest.raises(ValueError, match="name of its own"):
            ToolCalls(tools)


@given(st.sampled_from([Line(), FREE, DESK]), texts, actions)
def test_what_does_not_read_back_is_told(grammar: Grammar, reason: str, action: str) -> None:
    decision = Decision(reason=" ".join(reason.split()), action=action)
    if isinstance(grammar, FreeText):
        assert grammar.reads_back(decision, OPEN)
    elif grammar.reads_back(decision, OPEN) and isinstance(grammar, Line):
        read = parse_answer(format_answer(decision))
        assert read is not None and read.action == action


# ---- hostile answers -------------------------------------------------------------------------------------------------

FILLERS = (
    "{", "[", '{"', '{"a":', '{"a" ', '[{"a":', '{"a":[{"b":', "[{[],", REFUNDED, "<tool_call>", '<tool_call>{"name": ',
    "[TOOL_CALLS]", "<function=refund>", "<parameter=x>", "ACTION:", "ACTION: ", "ACTION:\n", "\nACTION: x", "REASON:\n",
    "`", "```\n", "\n```", "```a\n", " ", "\n", " \n", "*", "> ", '"', "\\", "<think>", "</think>", "1", "x", "\u2028",
)  # fmt: skip
BEGINNINGS = ("", "ACTION:", "ACTION:\n```\n", "REASON:", '<tool_call>{"name": "refund", "arguments": ', "</think>", '{"a":')


@pytest.mark.parametrize("filler", FILLERS)
def test_no_answer_is_read_for_long(filler: str) -> None:
    for begins in BEGINNINGS:
        text = begins + filler * (100_000 // len(filler))
        for grammar in (Line(), FREE, DESK):
            began = time.process_time()
            grammar.read(text, OPEN)
            assert time.process_time() - began < 2, (type(grammar).__name__, begins)


def test_a_call_behind_many_broken_ones_is_read_where_it_is_marked() -> None:
    broken = '{"a" ' * 5_000
    assert DESK.read(f"{broken}\n<tool_call>{REFUNDED}</tool_call>", OPEN) is not None
    assert DESK.read(broken[:100] + REFUNDED, OPEN) is not None


def test_arguments_that_are_nested_without_end_are_no_call() -> None:
    def nested(depth: int) -> str:
        return f'{{"name": "refund", "arguments": {{"z": {"[" * depth}{"]" * depth}}}}}'

    assert DESK.read(nested(20), OPEN) is not None
    for depth in (40, 500, 50_000):
        assert DESK.read(nested(depth), OPEN) is None
