"""Tools and the calls of them: one spelling to write, every spelling that models emit to read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import Field

from leap.core.message import CalledFunction, Message, ToolFunction, ToolSpec
from leap.core.record import JsonObject, Record
from leap.envs.answer import ACTION_MARKER, marker_in
from leap.errors import LeapError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


class Tool(Record):
    """Something that can be called: its name, what it does, for the model, and the JSON schema of its arguments, an `object`."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str = ""
    parameters: JsonObject = Field(default_factory=lambda: {"type": "object", "properties": {}})

    @property
    def spec(self) -> ToolSpec:
        """The tool as chat templates and endpoints take it."""
        function: ToolFunction = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    @cached_property
    def validator(self) -> Validator:
        """Checks arguments by the schema.

        Raises:
            LeapError: The schema is none.
        """
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for

        try:
            kind = validator_for(self.parameters)
            kind.check_schema(self.parameters)
        except SchemaError as error:
            raise LeapError(f"tool {self.name!r}: its parameters are no JSON schema: {error.message}") from error
        return kind(self.parameters)


# ---- writing ---------------------------------------------------------------------------------------------------------


def canonical_call(call: CalledFunction, tool: Tool | None = None) -> str | None:
    """The one spelling of a call: a JSON object on one line. Its arguments come in the order of the tool's schema, those that it
    does not name last, by name. None where JSON cannot hold the arguments (an infinite number, half a character), or they are
    nested more than 32 deep."""
    try:
        text = _spelled(call["name"], _ordered(call["arguments"], tool.parameters if tool else {}))
        text.encode()
    except (ValueError, RecursionError):
        return None
    return text


def _spelled(name: str, arguments: object) -> str:
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False, allow_nan=False)


def _ordered(value: object, schema: object, depth: int = 0) -> object:
    if depth > _DEPTH:
        raise ValueError(f"nested more than {_DEPTH} deep")
    known = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, list):
        return [_ordered(item, known.get("items"), depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    properties = known.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    names = [name for name in properties if name in value] + sorted(value.keys() - properties.keys())
    return {name: _ordered(value[name], properties.get(name), depth + 1) for name in names}


def calls_as_text(content: str, calls: Iterable[tuple[str, str]]) -> str:
    """An answer of an endpoint, its words and the name and arguments of its calls, as one text in the form of Hermes and Qwen.
    Arguments that are no JSON object stand there as a string, so that nothing is lost and no call is read from them."""
    parts = [content] if content else []
    for name, arguments in calls:
        told = arguments if isinstance(_json(arguments), dict) else json.dumps(arguments, ensure_ascii=False)
        named = json.dumps(name, ensure_ascii=False)
        parts.append(f'<tool_call>\n{{"name": {named}, "arguments": {told}}}\n</tool_call>')
    return "\n".join(parts)


def call_id(number: int) -> str:
    """The id of a dialogue's call of that number: nine letters and digits, the form that the strictest templates ask for."""
    return f"call{number:05d}"


def in_words(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Message]:
    """A conversation with tools as one without, for a model that knows none: tools are described at its beginning, calls are
    written as `ACTION: {...}`, and what they gave is said by the user."""
    said: list[Message] = []
    for message in messages:
        if calls := message.get("tool_calls"):
            action = f"{ACTION_MARKER} {_spelled(**calls[0]['function'])}"
            words = f"REASON: {message['content']}\n{action}" if message["content"] else action
            said.append({"role": "assistant", "content": words})
        else:
            role = "user" if message["role"] == "tool" else message["role"]
            said.append({"role": role, "content": message["content"]})
    if tools and said:
        call = f'{ACTION_MARKER} {{"name": "<tool>", "arguments": {{<its arguments>}}}}'
        form = f"REASON: <one or two short sentences>\n{call}"
        how = f"A tool is called in exactly this form, one at a time:\n{form}"
        said[0] = {"role": said[0]["role"], "content": f"Tools:\n{listed(tools)}\n{how}\n\n{said[0]['content']}"}
    return said


def listed(tools: Sequence[ToolSpec]) -> str:
    """Tools in words: name, description and the schema of the arguments of each."""
    words = []
    for tool in (each["function"] for each in tools):
        schema = json.dumps(tool["parameters"], ensure_ascii=False)
        words.append(f"- {tool['name']}: {tool['description']}\n  Arguments, as a JSON schema: {schema}")
    return "\n".join(words)


# ---- reading ---------------------------------------------------------------------------------------------------------

_MARKER = re.compile(r"<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>|<function=")
_NAME = re.compile(r"\s*(?:<function=|)([A-Za-z0-9_.-]+)(?:\[CALL_ID\]\w*)?(?:\[ARGS\]|>)?\s*(?=[{<])")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_SIGNS = re.compile(r"(?:[\s*_]|```\w*\n|`)*")
_OBJECT = re.compile(r"\{\s*\"|\[\s*[\"{]")
_TRIES = 100  # openings that turn out to be no JSON: each costs a reading of what is behind it, and some answers hold little else
_DEPTH = 32  # how deep the arguments of a call may be nested: readers and validators go down by recursion


def call_of(action: str) -> CalledFunction | None:
    """The call that a canonical action is; None where it is none."""
    value = _json(action)
    if isinstance(value, dict) and value.keys() == {"name", "arguments"} and isinstance(value["arguments"], dict):
        return _as_call(value)
    return None


def call_in(text: str, tools: Mapping[str, Tool] | None = None) -> tuple[CalledFunction, int] | None:
    """The first call in a model's answer, and where it begins; None where there is none, or where what stands behind the first
    marker cannot be read.

    Read are `<tool_call>{...}</tool_call>` (Hermes, Qwen, SmolLM; a list in it too), `[TOOL_CALLS][{...}]` and
    `[TOOL_CALLS]name[ARGS]{...}` (Mistral), `<function=name>` with a JSON object or with `<parameter=...>` (Llama, Qwen),
    `{"name": ..., "parameters": {...}}` (Llama 3.1), `ACTION: {...}`, and a bare JSON object, in a code block or not. The tools
    tell the types of arguments that are not written as JSON.
    """
    found, worded = _MARKER.search(text), marker_in(text)
    marked = min(each.start() for each in (found, worded) if each) if found or worded else len(text)
    position, tries = 0, _TRIES
    while tries and (opening := _OBJECT.search(text, position)) and opening.start() < marked:  # what is in a string is no marker
        value, end = _decoded(text, opening.start())
        if call := _first(value, bare=True):
            return call, opening.start()
        position = max(end, opening.start() + 1)
        tries -= end < position
    if marked == len(text):
        return None
    start = text.index(":", marked) + 1 if worded and worded.start() == marked else marked
    call = _marked(text, start, tools)
    return (call, marked) if call else None


def _marked(text: str, start: int, tools: Mapping[str, Tool] | None) -> CalledFunction | None:
    """The call at a place, behind one more marker or behind none."""
    start = _past_signs(text, start)
    if marker := _MARKER.match(text, start):
        start = start if marker.group() == "<function=" else marker.end()
        if named := _NAME.match(text, start):
            if text.startswith("{", named.end()):
                return _as_call({"name": named[1], "arguments": _decoded(text, named.end())[0]})
            return _with_parameters(named[1], text[named.end() :], (tools or {}).get(named[1]))
    return _first(_decoded(text, _past_signs(text, start))[0])


def _past_signs(text: str, start: int) -> int:
    """Where blanks, emphasis and the beginning of a code block end."""
    signs = _SIGNS.match(text, start)
    return signs.end() if signs else start


def _with_parameters(name: str, text: str, tool: Tool | None) -> CalledFunction | None:
    """A call whose arguments are written one by one, as bare text; the tool's schema tells what is no string."""
    known = tool.parameters.get("properties", {}) if tool else {}
    arguments: dict[str, object] = {}
    position = 0
    while found := _PARAMETER.match(text, position):
        schema = known.get(found[1], {})
        is_text = isinstance(schema, Mapping) and schema.get("type") == "string"
        arguments[found[1]] = found[2] if is_text else _json(found[2], otherwise=found[2])
        position = found.end()
    return {"name": name, "arguments": arguments} if text[position:].lstrip().startswith("</function>") else None


def _first(value: object, *, bare: bool = False) -> CalledFunction | None:
    """The call that a JSON value is, or the first of a list of them; a bare one must name its arguments."""
    value = value[0] if isinstance(value, list) and value else value
    if bare and not (isinstance(value, dict) and value.keys() & {"arguments", "parameters", "function"}):
        return None
    return _as_call(value)


def _as_call(value: object) -> CalledFunction | None:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # as endpoints send them
        arguments = _json(arguments)
    return {"name": value["name"], "arguments": arguments} if isinstance(arguments, dict) else None


# Not strict, so that line breaks in strings are understood. `int` refuses the names of what is no number, such as NaN.
_DECODER = json.JSONDecoder(strict=False, parse_constant=int)


def _decoded(text: str, start: int) -> tuple[object, int]:
    """The JSON value that begins at a place, and where it ends; None where none does."""
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start


def _json(text: str, otherwise: object = None) -> object:
    """A whole text as a JSON value; something else where it is none."""
    value, end = _decoded(text.strip(), 0)
    return value if end == len(text.strip()) > 0 else otherwise
