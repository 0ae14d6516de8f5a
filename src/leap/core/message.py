"""A chat's messages, and how long a prompt of them is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NotRequired, Protocol, TypeVar

from typing_extensions import TypedDict

from leap.core.record import JsonObject


class CalledFunction(TypedDict):
    """Which tool is called, and with what: arguments are JSON values by the names of the tool's parameters."""

    name: str
    arguments: JsonObject


class ToolCall(TypedDict):
    """One call of a tool in an assistant message."""

    id: NotRequired[str]
    type: Literal["function"]
    function: CalledFunction


class Message(TypedDict):
    """One message of a chat, in the form that chat templates, TRL and endpoints take (an endpoint's arguments are a string).

    An assistant message that calls a tool holds the call in `tool_calls`, its words in `content`. A message of role `tool`
    holds what the call gave, and names the call in `tool_call_id`. `reasoning_content` is what the assistant thought before.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]
    reasoning_content: NotRequired[str]


class ToolFunction(TypedDict):
    """What can be called: its name, what it does, and the JSON schema of its arguments."""

    name: str
    description: str
    parameters: JsonObject


class ToolSpec(TypedDict):
    """A tool as chat templates and endpoints take it."""

    type: Literal["function"]
    function: ToolFunction


class Length(Protocol):
    """How long a prompt is, in the unit of its limit: characters, or a tokenizer's tokens."""

    def __call__(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        """The length of a prompt with the tools it offers."""
        ...


def with_tools(length: Length, tools: Sequence[ToolSpec]) -> Callable[[Sequence[Message]], int]:
    """A measure of prompts that all offer the same tools."""
    return partial(length, tools=tools) if tools else length


T = TypeVar("T")


def sendable(value: T) -> T:
    """A text, or JSON values with the texts in them, as UTF-8 can hold it, which endpoints, tokenizers and other programs ask
    for: half a character (a lone surrogate) becomes U+FFFD, both halves together the character."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # type: ignore[return-value]
    elif isinstance(value, dict):
        return {sendable(key): sendable(one) for key, one in value.items()}  # type: ignore[return-value]
    elif isinstance(value, list | tuple):
        return [sendable(one) for one in value]  # type: ignore[return-value]
    return value


def characters(messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
    """Length of a prompt in characters; a token is about four of them in English."""
    called = sum(len(json.dumps(message["tool_calls"])) for message in messages if "tool_calls" in message)
    offered = len(json.dumps(list(tools))) if tools else 0
    return sum(len(message["content"]) for message in messages) + called + offered
