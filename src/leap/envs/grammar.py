"""How an environment's actions are written and read: one line, free text of any length, or calls of tools.

A grammar belongs to an environment (`Environment.grammar`). What it writes, it reads back exactly; what else models emit
it reads as well as can be done without guessing. Prompts, training rows, rollouts and teachers all go through it.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from leap.core import Decision, Observation, Task
from leap.core.message import CalledFunction, Message, ToolSpec
from leap.envs.answer import (
    ACTION_MARKER,
    format_answer,
    marker_in,
    next_turn,
    parse_answer,
    past_repeated_markers,
    reason_in,
    unwrapped,
)
from leap.envs.thought import split_thought, thought_ends, without_thoughts
from leap.envs.tools import Tool, call_id, call_in, call_of, calls_as_text, canonical_call


class Grammar(ABC):
    """How actions are written and read.

    Attributes:
        form: Which variant of the instructions in a prompt applies.
        tools: The tools on offer, in the form that chat templates and endpoints take.
    """

    form: ClassVar[Literal["line", "text", "tools"]]
    tools: tuple[ToolSpec, ...] = ()

    @abstractmethod
    def write(self, decision: Decision) -> Message:
        """The assistant message that a student is trained to give."""

    @abstractmethod
    def read(self, completion: str, observation: Observation, *, truncated: bool = False) -> Decision | None:
        """Reads a model's answer; None where no action can be read.

        Args:
            completion: The text as generated. A call of a tool stands in it in any of the forms that models emit.
            observation: What is shown at that step; its admissible actions, where it lists any, settle what is meant.
            truncated: Whether the answer ended for want of tokens: then no action is read that may be half of another.
        """

    def canonical(self, action: str) -> str:
        """The one spelling of an action; one that cannot be read as an action is left as it is."""
        return action.strip()

    def valid(self, action: str, observation: Observation) -> bool:
        """Whether the action can be taken: an admissible one where the observation lists any, else any that is not blank."""
        return bool(action.strip()) if observation.admissible is None else action in observation.admissible

    def form_at(self, observation: Observation) -> str:
        """The variant of the instructions that applies at an observation."""
        return self.form

    def choices(self, observation: Observation) -> tuple[str, ...] | None:
        """The actions that constrained decoding may choose from; None where it has to leave the answer free."""
        return observation.admissible

    def reads_back(self, decision: Decision, observation: Observation) -> bool:
        """Whether a student that gave this decision's answer would be understood to take its action."""
        message = self.write(decision)
        calls = [(call["function"]["name"], json.dumps(call["function"]["arguments"])) for call in message.get("tool_calls", ())]
        read = self.read(calls_as_text(message["content"], calls), observation)
        return read is not None and read.action == decision.action

    def turn(self, action: str, shown: str, number: int) -> list[Message]:
        """An earlier step in a dialogue, of so many before it: the action as it was taken, and the text that was shown then."""
        return [{"role": "assistant", "content": self._taken(action)}, {"role": "user", "content": shown}]

    def _taken(self, action: str) -> str:
        return f"{ACTION_MARKER} {action}"


class Line(Grammar):
    """Actions of one line, from a list or free: `REASON: ...` and then `ACTION: ...`. Only the first line behind the marker
    counts, unless it opens a code block."""

    form = "line"

    def write(self, decision: Decision) -> Message:
        return {"role": "assistant", "content": format_answer(decision)}

    def read(self, completion: str, observation: Observation, *, truncated: bool = False) -> Decision | None:
        # Half an action may read like another action, so a last line that was cut off does not count.
        answer = without_thoughts(completion).rpartition("\n")[0] if truncated else completion
        return parse_answer(answer, observation.admissible)


class FreeText(Grammar):
    """Actions of any length: a sentence, a program, JSON, Markdown with code blocks of its own.

    An action that a reader could mistake on the marker's line stands in a code block whose fence is longer than any run of
    backquotes in it, so that every action that is not blank is read back exactly. An action without a block is read to the
    end of the answer, or to the next turn where the model goes on to imagine one. Admissible actions are read as `Line`
    reads them.
    """

    form = "text"

    def write(self, decision: Decision) -> Message:
        reason = decision.reason.replace("\n", " ")  # a line of its own could begin an action
        return {"role": "assistant", "content": f"REASON: {reason}\n{self._taken(decision.action)}"}

    def _taken(self, action: str) -> str:
        inline = f"{ACTION_MARKER} {action}"
        if len(action.splitlines()) == 1:
            read = _free_text(inline, truncated=False)
            if read is not None and read.action == action:
                return inline
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", action)), default=0))
        return f"{ACTION_MARKER}\n{fence}\n{action}\n{fence}"

    def read(self, completion: str, observation: Observation, *, truncated: bool = False) -> Decision | None:
        free, admissible = _free_text(completion, truncated=truncated), observation.admissible
        if admissible is None or (free is not None and free.action in admissible):
            return free
        return Line().read(completion, observation, truncated=truncated)

    def canonical(self, action: str) -> str:
        return action

    def form_at(self, observation: Observation) -> str:
        return self.form if observation.admissible is None else Line.form


_OPENING = re.compile(r"[\s*_]*(`{3,})[^\n`]*\n")
_FENCE_LINE = re.compile(r"(?m)^[ \t>]*`{3,}")


def _free_text(completion: str, *, truncated: bool) -> Decision | None:
    """A decision whose action is a free text of any length."""
    text = split_thought(completion).answer
    if not text.startswith("REASON:") and (ends := thought_ends(text)):  # of a thought that the prompt began
        text = text[ends[0].end() :]
    found = marker_in(text)
    if found is None:
        return None
    before, behind = text[: found.start()], text[text.index(":", found.start()) + 1 :]
    ended, opening = False, _OPENING.match(behind)
    if opening:
        behind = behind[opening.end() :]
        closing = re.compile(rf"(?m)^[ \t]*`{{{len(opening[1])},}}[ \t]*\r?$").search(behind)
        if closing:
            action, ended = behind[: max(closing.start() - 1, 0)], True
        else:
            action = behind[: next_turn(behind)].rstrip()
    else:
        behind = past_repeated_markers(behind)
        turn = next_turn(behind)
        action, ended = behind[:turn], turn is not None
        if len(_FENCE_LINE.findall(before)) % 2:  # the whole answer stands in a code block
            closing = _FENCE_LINE.search(action)
            action, ended = (action[: closing.start()], True) if closing else (action, ended)
        action = _trimmed(action)
    if (truncated and not ended) or not action.strip():
        return None
    return Decision(reason=reason_in(before), action=action)


def _trimmed(action: str) -> str:
    """An action without the blank lines around it, and without marks that stand around the whole of a single line."""
    lines = [line for line in action.splitlines() if line.strip(" \t*_")]
    if len(lines) <= 1:
        return unwrapped(lines[0]) if lines else ""
    first, line, rest = action.partition("\n")
    first = first.strip().removeprefix("**").removeprefix("__").strip()  # those that close a bold marker
    return (f"{first}{line}{rest}" if first else re.sub(r"\A(?:[^\S\n]*\n)+", "", rest)).rstrip()


class ToolCalls(Grammar):
    """Actions are calls of tools: `{"name": ..., "arguments": {...}}`, one JSON object in one spelling.

    The student is shown the tools by its own chat template, a model at an endpoint by the API's `tools`; where neither
    knows tools they are described in the prompt. What the model says before the call is its reason.

    An action is one call. Where a model makes several calls in one turn the first counts, for what the others rest on has
    not been seen yet; the answer stays on file as it was given.

    Args:
        tools: What can be called.

    Attributes:
        names: Their names.
    """

    form = "tools"

    def __init__(self, tools: Sequence[Tool]) -> None:
        if len({tool.name for tool in tools}) != len(tools) or not tools:
            raise ValueError("a grammar of tool calls needs tools, each with a name of its own")
        self._tools = {tool.name: tool for tool in tools}
        self.tools = tuple(tool.spec for tool in tools)
        self.names = tuple(self._tools)

    def write(self, decision: Decision) -> Message:
        call = call_of(decision.action)
        if call is None:
            return {"role": "assistant", "content": f"{decision.reason}\n{decision.action}".strip()}
        return {"role": "assistant", "content": decision.reason, "tool_calls": [{"type": "function", "function": call}]}

    def read(self, completion: str, observation: Observation, *, truncated: bool = False) -> Decision | None:
        text = split_thought(completion).answer
        found = call_in(text, self._tools)
        if ends := thought_ends(text):  # of a thought that the prompt began, unless they stand in the call
            early = found is not None and found[1] < ends[0].start()
            quoted = len(thought_ends(json.dumps(found[0]["arguments"], ensure_ascii=False))) if found and early else 0
            if len(ends) > quoted:
                text = text[ends[quoted].end() :]
                found = call_in(text, self._tools)
        if found is None:
            return None
        call, start = found
        action = canonical_call(call, self._tools.get(call["name"]))
        before = re.sub(r"(?:```\w*\s*|`)?\Z", "", text[:start].rstrip())  # a code block may open around the call
        return None if action is None else Decision(reason=reason_in(before), action=action)

    def canonical(self, action: str) -> str:
        found = call_in(action, self._tools)
        return (canonical_call(found[0], self._tools.get(found[0]["name"])) if found else None) or action

    def valid(self, action: str, observation: Observation) -> bool:
        """Whether it is a call of one of the tools in its canonical spelling, with arguments that its schema allows."""
        listed = observation.admissible is None or action in observation.admissible
        return listed and action == self.canonical(action) and not self.problem(action)

    def call(self, action: str) -> CalledFunction | None:
        """Name and arguments of a call that the schemas allow; None for any other action."""
        return None if self.problem(action) else call_of(action)

    def problem(self, action: str) -> str:
        """What is wrong with an action, in words that may be shown to who took it; empty where nothing is."""
        call = call_of(action)
        if call is None:
            return "That is no call of a tool."
        if call["name"] not in self._tools:
            return f"There is no tool {call['name']!r}; there are: {', '.join(self._tools)}."
        try:
            error = next(self._tools[call["name"]].validator.iter_errors(call["arguments"]), None)
        except (ArithmeticError, RecursionError) as odd:  # a number beyond any float, or far too deep a nest
            return f"{call['name']}: its arguments cannot be checked ({odd})."
        return f"{call['name']}: {error.message}." if error else ""

    def choices(self, observation: Observation) -> None:
        return None

    def turn(self, action: str, shown: str, number: int) -> list[Message]:
        call = call_of(action)
        if call is None:  # what was no call was answered in words
            return super().turn(action, shown, number)
        name = call_id(number)
        return [
            {"role": "assistant", "content": "", "tool_calls": [{"id": name, "type": "function", "function": call}]},
            {"role": "tool", "content": shown, "tool_call_id": name},
        ]

    def _taken(self, action: str) -> str:
        return action


GrammarOf = Callable[[Task], Grammar]
"""The grammar of a task's environment (`Environment.grammar_of`)."""


def free_text(task: Task) -> Grammar:
    """The grammar of an environment that names none."""
    return FreeText()
