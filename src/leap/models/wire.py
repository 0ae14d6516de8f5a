"""What is in an endpoint's answer, read with care: endpoints leave out, add and mistype everything."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from leap.envs.thought import THOUGHTS, split_thought
from leap.envs.tools import calls_as_text

_MOST_TOKENS = 1 << 31  # no call has more; an endpoint that says so talks nonsense
_CUT_OFF = re.compile(r"length|max_\w*tokens", re.IGNORECASE)  # also Mistral's model_length, and Anthropic's and Gemini's word

# What ends a thought, at the beginning or the end of a line: within one it may be a word of the answer.
_MARKS = "|".join(map(re.escape, THOUGHTS.values()))
_THOUGHT_END = re.compile(rf"(?im)^[ \t]*(?:{_MARKS})|(?:{_MARKS})[ \t]*$")


class Failure(NamedTuple):
    """What a gateway tells in an answer of status 200: the status and error that it means, and the tokens that it used."""

    status: int
    error: object
    usage: object


def parsed(content: bytes) -> object:
    """A body as JSON; None where it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # also one that is nested without end, or holds a number without end
        return None


def field(body: object, *names: str) -> object:
    """What stands under the first of the names that has something; None where none has, or where there are no names."""
    return next((body[name] for name in names if body.get(name) is not None), None) if isinstance(body, dict) else None


def choice_in(body: object) -> dict[str, object]:
    """The first choice of an answer that is one; empty where none is."""
    choices = field(body, "choices")
    return next((one for one in choices if isinstance(one, dict)), {}) if isinstance(choices, list) else {}


def failure_in(body: object) -> Failure | None:
    """The failure that gateways tell in an answer of status 200, beside the choices or in one."""
    if not isinstance(body, dict):
        return None
    choice = choice_in(body)
    error = choice.get("error")
    if not error and choice.get("finish_reason") in ("error", "abort"):
        error = body.get("error") or choice.get("native_finish_reason") or "the answer ended in an error"
    if not error and not choice:
        error = body.get("error") or body.get("errors") or (body if body.get("object") == "error" else None)
    if not error:
        return None
    if isinstance(error, list):
        error = error[0]
    if not isinstance(error, str | dict):
        error = {name: value for name, value in body.items() if name not in ("error", "errors")}  # {"error": true, ...}
    told = str(field(error, "code") or field(error, "status"))
    code = int(told) if len(told) == 3 and told.isdecimal() else 0
    return Failure(code if 400 <= code < 600 else 502, error, body.get("usage"))


def cut_off(choice: dict[str, object]) -> bool:
    """Whether an answer ended for want of tokens."""
    return isinstance(ended := choice.get("finish_reason"), str) and bool(_CUT_OFF.search(ended))


def text_in(message: dict[str, object]) -> str:
    """What a message says and calls. Reasoning is no answer: where a server has put all of one there, there is none."""
    calls = _calls(message)
    thought, text = split_thought(_words(message.get("content")))
    if not thought and (ended := _THOUGHT_END.search(text)):  # of a thought that the prompt began
        text = text[ended.end() :].lstrip()
    if not text.strip() and not calls:
        text = _words(message.get("refusal"))
    return calls_as_text(text, calls)


def thought_in(message: dict[str, object]) -> str:
    """What a message holds of thinking, in a field of its own or in its content."""
    apart = (said for name in ("reasoning_content", "reasoning") if (said := _words(message.get(name))).strip())
    return next(apart, "") or split_thought(_words(message.get("content"))).thought


def _words(content: object) -> str:
    """The words of a content: a text, a list of parts, of which those of thinking or images are none, or a value of JSON."""
    match content:
        case None | str():
            return content or ""
        case list():
            spoken = (part for part in content if isinstance(part, str | dict))
            return "".join(_words(part) for part in spoken if isinstance(part, str) or part.keys() & {"type", "text"})
        case {"type": str(kind)} if re.search("think|reason", kind):
            return ""
        case {"text": str(spoken)} | {"text": {"value": str(spoken)}} | {"refusal": str(spoken)}:
            return spoken
        case {"type": _}:
            return ""
    return json.dumps(content, ensure_ascii=False)


def _calls(message: dict[str, object]) -> list[tuple[str, str]]:
    """Name and arguments of the calls that an answer makes, whatever shape they have."""
    calls = message.get("tool_calls") or {"function": message.get("function_call")}
    found = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = field(call, "function", "custom")
        if isinstance(function, dict):
            arguments = field(function, "arguments", "input")
            told = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            found.append((str(function.get("name") or ""), "" if arguments is None else told))
    return found


def count(counts: object, *names: str) -> int:
    """A number of tokens as an endpoint tells it, under the first name that has one; 0 where it is missing or nonsense."""
    for name in names:
        told = field(counts, name)
        if isinstance(told, int | float | str) and not isinstance(told, bool):
            try:
                number = int(float(told))
            except (ValueError, OverflowError):
                continue
            if 0 < number < _MOST_TOKENS:
                return number
    return 0


def tokens_in(usage: object) -> tuple[int, int]:
    """Tokens of prompt and answer as an endpoint tells them. One of them may be left to their total, and so may tokens of
    reasoning that are in no other number."""
    prompt, answer = count(usage, "prompt_tokens", "input_tokens"), count(usage, "completion_tokens", "output_tokens")
    total = count(usage, "total_tokens")
    if prompt:
        return prompt, max(answer, total - prompt)
    return max(total - answer, 0) if answer else 0, answer


def sampled_in(choice: dict[str, object]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The tokens of a chat's answer as sampled, and the log-probability of each; empty where they are not told, or nonsense."""
    tokens, told = choice.get("token_ids"), field(choice.get("logprobs"), "content")
    if not isinstance(tokens, list) or not all(type(token) is int and token >= 0 for token in tokens):
        return (), ()
    logprobs = [field(one, "logprob") for one in told] if isinstance(told, list) else []
    known = len(logprobs) == len(tokens) and all(type(one) in (int, float) for one in logprobs)
    return tuple(tokens), tuple(map(float, logprobs)) if known else ()  # type: ignore[arg-type]


def said_in(body: object, otherwise: str) -> str:
    """The message in the body of an error, in one line of bearable length."""
    text = otherwise
    if isinstance(body, dict):
        inner = body.get("error", body)
        found = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
        text = str(found or body.get("detail") or body)
        if raw := field(field(inner, "metadata"), "raw"):  # what a gateway's provider said
            text += f" ({raw})"
    elif isinstance(body, str) and body.strip():
        text = re.sub(r"<[^>]*>", " ", body)  # an error page of some proxy
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= 300 else text[:297] + "..."


def without_key(text: str, key: str) -> str:
    """A text without a key, and without the beginning of one where the text was cut."""
    if len(key) <= 6:
        return text
    text = text.replace(key, "(the key)")
    end = text.removesuffix("...")
    part = next((n for n in range(len(key) - 1, 5, -1) if end.endswith(key[:n])), 0)
    return f"{end[:-part]}(the key)" if part else text
