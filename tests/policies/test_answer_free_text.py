"""Answers whose actions are free text: commands, statements, programs. Quotes at their ends belong to them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leap.core import Decision
from leap.envs.answer import format_answer, parse_answer


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("grep 'two words'", "grep 'two words'"),
        ('echo "a b"', 'echo "a b"'),
        ("`ls -la`", "ls -la"),
        ("```ls -la```", "ls -la"),
        ('"ls -la"', "ls -la"),
        ("'a' 'b'", "'a' 'b'"),
        ("SELECT * FROM t WHERE name = 'x'", "SELECT * FROM t WHERE name = 'x'"),
        ("\n```bash\ncat <<'END'\nx\nEND\n```", "cat <<'END'\nx\nEND"),
        ("\n```python\ndef f(x):\n    return x\n```\nmore", "def f(x):\n    return x"),
        ("submit\nREASON: next\nACTION: ls", "submit"),
    ],
)
def test_free_text_actions_keep_their_quotes(line: str, action: str) -> None:
    decision = parse_answer(f"REASON: because\nACTION: {line}")
    assert decision == Decision(reason="because", action=action)


@pytest.mark.parametrize("text", ["**REASON:** x\n**ACTION:** ls -la", "**ACTION: ls -la**", "Action:\nls -la"])
def test_markdown_around_the_marker_is_no_part_of_the_action(text: str) -> None:
    decision = parse_answer(text)
    assert decision is not None and decision.action == "ls -la"


def test_no_action_is_none() -> None:
    assert parse_answer("REASON: x\nACTION:   \n") is None


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1))
@example("ACTION:")
@example("Action: ACTION: x ")
def test_what_is_formatted_is_read_back(action: str) -> None:
    """But for marks that wrap the whole, which training refuses (`Verdict`), and blanks at its ends."""
    decision = Decision(reason="because", action=action)
    read = parse_answer(format_answer(decision))
    wrapped = action.strip()[:1] in "`'\"*_" or action.strip()[-1:] in "`'\"*_"
    if action.strip() and not wrapped:
        assert read == Decision(reason="because", action=action.strip())


@given(st.lists(st.text(st.characters(categories=("Lu", "Ll", "Nd"), include_characters=" '\"=():")), min_size=2))
def test_programs_are_read_back_line_by_line(lines: list[str]) -> None:
    program = "\n".join(lines)
    if program.strip():
        read = parse_answer(format_answer(Decision(reason="because", action=program)))
        assert read is not None and read.action == program
