"""The form of an answer: what is written is read back, and what models really emit is read too."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leap.core import Decision
from leap.envs.answer import ACTION_MARKER, ends_in_marker, format_answer, parse_answer
from leap.envs.thought import unclosed

ADMISSIBLE = ("go to cabinet 1", "go to cabinet 12", "take mug 1 from desk 1", "look")
words = st.text(alphabet=st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1)
sentences = words.map(lambda text: " ".join(text.split())).filter(lambda text: text and ":" not in text and "<" not in text)
plain_actions = st.from_regex(r"[a-z]+( [a-z0-9]+){0,5}", fullmatch=True)


@given(sentences, plain_actions)
def test_what_is_written_is_read_back(reason: str, action: str) -> None:
    decision = Decision(reason=reason.strip("*_ "), action=action)
    assert parse_answer(format_answer(decision)) == decision


@given(sentences, st.sampled_from(ADMISSIBLE))
def test_an_admissible_action_is_read_back_verbatim(reason: str, action: str) -> None:
    found = parse_answer(format_answer(Decision(reason=reason, action=action)), ADMISSIBLE)
    assert found is not None and found.action == action


@pytest.mark.parametrize(
    "completion",
    [
        "REASON: I look there.\nACTION: go to cabinet 12",
        "Reason: I look there.\nAction: go to cabinet 12",
        "reason: I look there.\naction: go to cabinet 12",
        "**REASON:** I look there.\n**ACTION:** go to cabinet 12",
        "**Reason**: I look there.\n**Action**: `go to cabinet 12`",
        "### REASON: I look there.\n### ACTION: go to cabinet 12",
        "> REASON: I look there.\n> ACTION: go to cabinet 12",
        "REASON: I look there.\n\n\nACTION:\ngo to cabinet 12",
        "REASON: I look there.\nACTION:\n\n`go to cabinet 12`",
        'REASON: I look there.\nACTION: "go to cabinet 12"',
        "REASON: I look there.\nACTION: 'Go to Cabinet 12.'",
        "REASON: I look there.\nACTION:   go  to  cabinet  12  ",
        "REASON: I look there.\nACTION: GO TO CABINET 12",
        "```\nREASON: I look there.\nACTION: go to cabinet 12\n```",
        "<think>ACTION: look\nmaybe not</think>\nREASON: I look there.\nACTION: go to cabinet 12",
        "REASON: I look there.\nACTION: go to cabinet 12\nOBSERVATION: You see a mug.\nREASON: good\nACTION: look",
        "REASON: I look there.\r\nACTION: go to cabinet 12\r\n",
        "THOUGHT: I look there.\nACTION: go to cabinet 12",
        "I look there.\nACTION: go to cabinet 12",
        "I look there. ACTION: go to cabinet 12",
        "REASON: I look there. ACTION: go to cabinet 12",
    ],
)
def test_damaged_forms_are_read(completion: str) -> None:
    found = parse_answer(completion, ADMISSIBLE)
    assert found is not None, completion
    assert found.action == "go to cabinet 12"
    assert found.reason == "I look there."


@pytest.mark.parametrize("completion", ["", " \n ", "go to cabinet 12", "REASON: x", "ACTION:", "ACTION:\n\n", "ACTION: ``"])
def test_where_no_action_stands_none_is_read(completion: str) -> None:
    assert parse_answer(completion, ADMISSIBLE) is None


def test_an_action_that_is_not_admissible_is_left_as_it_is() -> None:
    found = parse_answer("ACTION: go to cabinet 2", ADMISSIBLE)
    assert found is not None and found.action == "go to cabinet 2"


def test_an_exact_action_is_never_folded_into_another() -> None:
    found = parse_answer("ACTION: Look", ("look", "Look"))
    assert found is not None and found.action == "Look"


fragments = st.sampled_from(
    ["REASON:", "ACTION:", "Action", "action :", ":", "\n", "\r", " ", "**", "`", '"', "<think>", "</think>", ">", "#", "-",
     "look", "go to cabinet 1", "\u2028", "\x00", "é", "\U0001f600"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(fragments, max_size=25).map("".join)))
def test_no_text_at_all_raises(text: str) -> None:
    found = parse_answer(text, ADMISSIBLE)
    assert found is None or found.action
    assert parse_answer(text) is None or parse_answer(text).action  # type: ignore[union-attr]


@given(st.lists(fragments, max_size=15).map("".join), st.sampled_from(ADMISSIBLE))
@example("ACTION:\n<think>", "go to cabinet 1")
def test_what_follows_a_marker_at_the_end_is_what_is_read(text: str, action: str) -> None:
    """The agreement between constrained decoding and the parser."""
    if ends_in_marker(text):
        found = parse_answer(f"{text} {action}", ADMISSIBLE)
        assert found is not None and found.action == action


@pytest.mark.parametrize("admissible", [ADMISSIBLE, None])
def test_a_marker_that_is_said_twice_is_no_part_of_the_action(admissible: tuple[str, ...] | None) -> None:
    for empty in ("ACTION:", "ACTION:**\u2028\u2028", "Action: **"):
        found = parse_answer(f"{empty}\nACTION: go to cabinet 1", admissible)
        assert found is not None and found.action == "go to cabinet 1"


@given(st.lists(fragments, max_size=15).map("".join), st.sampled_from(ADMISSIBLE))
@example("ACTION:**\u2028\u2028", "go to cabinet 1")
@example("#action :ACTION: \nACTION:\u2028", "look")
@example("ACTION:ACTION:\r ACTION:\u2028:", "look")
@example("action :**\n**\nAction", "look")
def test_an_answer_without_a_marker_so_far_may_be_ended_with_one(text: str, action: str) -> None:
    if parse_answer(f"{text} probe") is None:
        found = parse_answer(f"{text}{unclosed(text)}\n{ACTION_MARKER} {action}", ADMISSIBLE)
        assert found is not None and found.action == action


def test_a_long_line_of_markdown_is_read_in_no_time() -> None:
    import time

    began = time.process_time()
    for filler in ("*" * 20_000, " \n" * 20_000, "> " * 20_000, "<think>" * 5_000, "action" * 5_000, "action " * 5_000):
        parse_answer(filler)
        parse_answer(f"REASON: {filler}\nACTION: look")
    assert time.process_time() - began < 5
