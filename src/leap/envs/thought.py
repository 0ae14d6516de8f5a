"""Thoughts: what reasoning models say to themselves before they answer. Nothing in a thought is an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

THOUGHTS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|channel>thought": "<channel|>",
}
"""What opens and what closes a thought, in the models in use."""
_CHANNELS = re.compile(r"\s*+(?:<\|start\|>)?+[^<\n]{0,80}+<\|channel\|>")
_MESSAGE_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_RECIPIENT = re.compile(r"\bto=functions\.([A-Za-z0-9_.-]+)")


class Said(NamedTuple):
    """A thought, empty where there was none, and the answer behind it."""

    thought: str
    answer: str


def split_thought(text: str, pairs: Mapping[str, str] = THOUGHTS) -> Said:
    """What a model thought at the beginning of its answer, and the answer; one that is cut off within a thought has none.

    Args:
        text: As it was generated, what the prompt began of a thought before it.
        pairs: What opens and what closes a thought.
    """
    if _CHANNELS.match(text):
        return _of_channels(text)
    opens, closes = _patterns(tuple(pairs.items()))
    thoughts: list[str] = []
    position = 0
    while opened := opens.match(text, _past_blanks(text, position)):
        closed = closes[opened[1].lower()].search(text, opened.end())
        thoughts.append(text[opened.end() : closed.start() if closed else len(text)].strip())
        position = closed.end() if closed else len(text)
    return Said("\n".join(filter(None, thoughts)), text[position:].lstrip() if position else text)


def _of_channels(text: str) -> Said:
    """The same of an answer in channels, as gpt-oss gives it; calls of tools stand in its answer as Hermes writes them."""
    thoughts, words = [], []
    head, *messages = text.split("<|message|>")
    for message in messages:
        body, *behind = _MESSAGE_END.split(message, maxsplit=1)
        if called := _RECIPIENT.search(head):
            words.append(f'<tool_call>\n{{"name": {json.dumps(called[1])}, "arguments": {body.strip()}}}\n</tool_call>')
        elif "final" in head or "commentary" in head:
            words.append(body)
        else:
            thoughts.append(body.strip())
        head = "".join(behind)
    return Said("\n".join(thoughts), "\n".join(words))


def without_thoughts(text: str) -> str:
    """A text without the thoughts in it, wherever they stand, and without what is before the end of one it does not begin."""
    return _parted(text)[0]


def unclosed(text: str) -> str:
    """What would close the thought in which a text ends; empty where it ends in none."""
    return _parted(text)[1]


def _parted(text: str) -> tuple[str, str]:
    opens, closes = _patterns(tuple(THOUGHTS.items()))
    kept, position, start, missing, unended = [], 0, 0, set[str](), ""
    while not unended and (opened := opens.search(text, start)):
        name = opened[1].lower()
        closed = None if name in missing else closes[name].search(text, opened.end())
        if closed is not None:
            kept.append(text[position : opened.start()])
            start = position = closed.end()
        elif not "".join([*kept, text[position : opened.start()]]).rpartition("\n")[2].strip():
            kept.append(text[position : opened.start()])
            position, unended = len(text), _CLOSES[name]
        else:  # a word within a line
            missing.add(name)
            start = opened.end()
    left = "".join([*kept, text[position:]])
    ends = thought_ends(left)
    return left[ends[-1].end() if ends else 0 :], unended


def thought_ends(text: str) -> list[re.Match[str]]:
    """All that closes a thought in a text."""
    return list(_CLOSING.finditer(text))


def _past_blanks(text: str, position: int) -> int:
    blanks = _BLANKS.match(text, position)
    return blanks.end() if blanks else position


_CLOSES = {opening.lower(): end for opening, end in THOUGHTS.items()}
_BLANKS = re.compile(r"\s*")
_CLOSING = re.compile("|".join(map(re.escape, THOUGHTS.values())), re.IGNORECASE)


@lru_cache(maxsize=64)
def _patterns(pairs: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, re.Pattern[str]]]:
    opens = re.compile(f"({'|'.join(re.escape(opening) for opening, _ in pairs)})", re.IGNORECASE)
    return opens, {opening.lower(): re.compile(re.escape(closing), re.IGNORECASE) for opening, closing in pairs}
