"""A chat's messages, and how long a prompt of them is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from typing_extensions import TypedDict


class Message(TypedDict):
    """One message of a chat, in the form that chat templates and endpoints take."""

    role: Literal["system", "user", "assistant"]
    content: str


Length = Callable[[Sequence[Message]], int]
"""How long a prompt is, in the unit of its limit: characters, or a tokenizer's tokens."""


def characters(messages: Sequence[Message]) -> int:
    """Length of a prompt in characters; a token is about four of them in English."""
    return sum(len(message["content"]) for message in messages)
