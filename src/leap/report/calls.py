"""The prompts and answers that the page shows behind a fold: some calls of each stage and outcome. `leap calls` shows all."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from leap.core.message import Message
from leap.models.calls import Call
from leap.models.ledger import look_at_calls
from leap.report.trajectories import cut

PER_OUTCOME = 3
"""Calls shown of a stage, a model and an outcome: the newest."""
BUDGET = 1_000_000
"""Characters of prompts and answers in all."""


class CallShown(NamedTuple):
    """A call as it is shown: its first line, the prompt, the answer."""

    call: Call
    asked: str
    answered: str


def calls_shown(path: Path) -> list[CallShown]:
    """Some calls of a ledger, in their order; those that went wrong are not the first to be left out where room is short."""
    groups = look_at_calls(path, _newest)
    shown, left = list[CallShown](), BUDGET
    turns = [(rank, outcome == "read", one) for (*_, outcome), group in groups.items() for rank, one in enumerate(group)]
    for _, _, one in sorted(turns, key=lambda turn: (*turn[:2], turn[2].call.number)):
        left -= len(one.asked) + len(one.answered)
        if left < 0:
            break
        shown.append(one)
    return sorted(shown, key=lambda one: one.call.number)


def _newest(calls: Iterator[Call]) -> dict[tuple[str, str, str], deque[CallShown]]:
    groups = defaultdict[tuple[str, str, str], deque[CallShown]](lambda: deque(maxlen=PER_OUTCOME))
    for call in calls:
        told = cut(asked((call.request or {}).get("messages", ())))
        groups[call.stage, call.model, call.outcome].appendleft(CallShown(call, told, cut(call.answer)))
    return groups


def asked(messages: Sequence[Message]) -> str:
    """The messages of a prompt as one text, calls of tools as JSON."""
    return "\n\n".join(
        "\n".join([f"[{one['role']}]", one["content"], *(json.dumps(call["function"]) for call in one.get("tool_calls", ()))])
        for one in messages
    )
