"""Chat templates: what one writes for a conversation, and what it can do, which is found out by asking it.

Templates come with checkpoints and say nothing of themselves: whether they show a system's message, tools or thoughts, and what
ends a turn, is read off what they write for a few short conversations.
"""

from __future__ import annotations

import json
import logging
import re
import string
from collections.abc import Iterable, Sequence
from datetime import date
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from leap.core.message import CalledFunction, Message, ToolFunction, ToolSpec, sendable
from leap.envs.thought import THOUGHTS, split_thought
from leap.envs.tools import call_id, call_in, calls_as_text, in_words
from leap.errors import LeapError, ModelError, ModelRefused, PrerequisiteError, first_line
from leap.models.template_guard import trouble

log = logging.getLogger(__name__)

TODAY = date(2024, 7, 26)
"""What templates are told when they ask for the date, Llama's own fallback: a prompt is the same on every day of a run, of its
resumption, and in training."""

MARK = "\ufdd0"
"""Stands within the text of a special token that a message spells, while the template renders it, so that it stays a text. No
message has this character of its own: it is none that texts may exchange."""

T = TypeVar("T")

_ASKS, _THINKS, _SAYS = "leap asks", "leap thinks", "leap says"
_ASKED: list[Message] = [{"role": "user", "content": _ASKS}]
_TOLD: dict[bool | None, dict[str, object]] = {
    None: {},
    True: {"enable_thinking": True, "thinking": True},
    False: {"enable_thinking": False, "thinking": False, "reasoning_effort": "low"},
}
"""What templates are told of thinking, by the names that those in use have for it."""


class Turn(NamedTuple):
    """How the assistant's turn begins.

    Attributes:
        lead: What stands behind the template's prompt: what it writes itself before an answer without a thought.
        begun: The mark that opens a thought, where the prompt ends within one; else empty.
        opening, closing: What is written before the words of a thought, and between them and the answer; empty where nothing is
            known of thoughts.
    """

    lead: str
    begun: str
    opening: str
    closing: str


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds any of some texts, the longest that stands at a place."""
    return re.compile(f"({'|'.join(map(re.escape, sorted(texts, key=len, reverse=True))) or '(?!)'})")


def dated(template: str) -> str:
    """A chat template for which it is always TODAY."""
    if "strftime_now" not in template:
        return template
    parts = "".join(f"|replace('%{c}','{TODAY.strftime('%' + c)}')" for c in string.ascii_letters)
    # The line break goes: templates are rendered with trim_blocks.
    return f"{{%- macro strftime_now(format) -%}}{{{{ format|replace('%-','%'){parts} }}}}{{%- endmacro %}}\n{template}"


def _call_of(tools: Sequence[ToolSpec]) -> Message:
    """A message that calls the first of some tools with nothing."""
    called: CalledFunction = {"name": tools[0]["function"]["name"], "arguments": {}}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": call_id(0), "type": "function", "function": called}]}


class ChatTemplate:
    """A tokenizer's chat template.

    Where `thinking` is asked for, it says whether the model is to think before it answers: False tells the template not to, True
    that it may, and None leaves it as it is.

    Args:
        tokenizer: The tokenizer. (Any, since transformers declares each of its answers as one or a list.)

    Attributes:
        special: Ids of the added tokens, special or not, by their text.
        specials: Finds the special ones.
        controls: Texts of the tokens that structure a conversation: special ones, and others that the template writes.
        end_of_turn: The token that ends an assistant's answer; the tokenizer's end of sequence where the template writes none.
        pairs: What opens and what closes a thought in this template, and in others.

    Raises:
        PrerequisiteError: There is none, or it is none that a student can be asked by.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.name = repr(getattr(tokenizer, "name_or_path", "this model"))
        if not getattr(tokenizer, "chat_template", None):
            raise PrerequisiteError(
                f"the tokenizer of {self.name} has no chat template. Use an "
                "instruction-tuned checkpoint, or set `chat_template` in its tokenizer_config.json."
            )
        self._tokenizer = tokenizer
        self._templates: dict[bool, str] = {}
        self.special: dict[str, int] = dict(tokenizer.get_added_vocab())
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        special = {token.content for token in added if token.special} | {*tokenizer.all_special_tokens}
        self.specials, written = any_of(special), str(tokenizer.chat_template)
        blank = (text for text in self.special if len(text) < 2 or not text.strip())
        self.controls = {text for text in self.special if text in special or text in written}.difference(blank)
        self._control = any_of(self.controls)
        self._turns: dict[tuple[bool | None, bool], Turn] = {}
        self.pairs = dict(THOUGHTS)
        self._check()
        self.end_of_turn = self._find_end_of_turn()

    # ---- rendering -------------------------------------------------------------------------------------------------

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        thinking: bool | None = None,
        *,
        opened: bool = True,
    ) -> str:
        """What the template writes, with the assistant's turn opened behind it or not. Special tokens that messages spell have a
        `MARK` in them.

        Raises:
            ModelRefused: It raises.
        """
        offered = {"tools": self.marked(list(tools))} if tools else {}
        how = {"chat_template": self._text(bool(tools)), "add_generation_prompt": opened, "tokenize": False, **offered}
        try:
            return str(self._tokenizer.apply_chat_template(self.marked(list(messages)), **how, **_TOLD[thinking]))
        except Exception as error:  # a template may refuse in any way it likes
            raise ModelRefused(f"the chat template of {self.name} refuses these messages: {first_line(error)}") from error

    def marked(self, value: T) -> T:
        """A text, or JSON values with the texts in them, as a template takes it: with a `MARK` in each special token spelled."""
        if isinstance(value, str):
            text = sendable(value).replace(MARK, "\ufffd")
            while self._control.search(text):  # what is left of one may be another
                text = self._control.sub(lambda found: found[0][0] + MARK + found[0][1:], text)
            return text  # type: ignore[return-value]
        if isinstance(value, dict):
            return {self.marked(key): self.marked(one) for key, one in value.items()}  # type: ignore[return-value]
        return [self.marked(one) for one in value] if isinstance(value, list) else value  # type: ignore[return-value]

    def taken(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()
    ) -> tuple[Sequence[Message], Sequence[ToolSpec]]:
        """Messages and tools in the form that the template takes: what it does not show is put into words."""
        if tools and not self.takes_tools:
            messages, tools = in_words(messages, tools), ()
        if len(messages) > 1 and messages[0]["role"] == "system" and not self.takes_system:
            merged: Message = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
            messages = [merged, *messages[2:]]
        return messages, tools

    def _text(self, with_tools: bool) -> str:
        """The template that is used with tools or without."""
        if with_tools not in self._templates:
            self._templates[with_tools] = dated(self._tokenizer.get_chat_template(None, [{}] if with_tools else None))
        return self._templates[with_tools]

    def _finished(self, answer: Message, thinking: bool | None, tools: Sequence[ToolSpec] = ()) -> str:
        """What the template writes for `_ASKED` and its answer; nothing where it takes no conversation that ends so."""
        try:
            return self.render([*_ASKED, answer], tools, thinking, opened=False)
        except ModelError:
            return ""

    @cached_property
    def takes_system(self) -> bool:
        """Whether it shows a system's message."""
        try:
            return "leap rules" in self.render([{"role": "system", "content": "leap rules"}, *_ASKED])
        except ModelError:
            return False

    def _find_end_of_turn(self) -> int:
        """The token that the template puts after an assistant's words, special or merely added; EOS where it puts none."""
        answer: Message = {"role": "assistant", "content": _SAYS}
        written = self._finished(answer, None) or self.render([*_ASKED, answer, *_ASKED])  # none may end in an answer
        ids = self._tokenizer(written, add_special_tokens=False)["input_ids"]
        ends = {*self._tokenizer.all_special_ids, *(token for text, token in self.special.items() if text.strip())}
        for position in reversed(range(len(ids))):
            if _SAYS in self._tokenizer.decode(ids[position:], skip_special_tokens=True):
                if after := [token for token in ids[position:] if token in ends]:
                    return after[0]
                break
        if self._tokenizer.eos_token_id is None:
            raise PrerequisiteError("the tokenizer names no end-of-sequence token, so generation could not stop.")
        return self._tokenizer.eos_token_id

    # ---- thoughts --------------------------------------------------------------------------------------------------

    def turn(self, thinking: bool | None = None, tools: Sequence[ToolSpec] = ()) -> Turn:
        """How the assistant's turn begins where it is asked to think or not, with tools that the template takes or without."""
        key = thinking, bool(tools)
        if key not in self._turns:
            self._turns[key] = self._find_turn(thinking, tools)
        return self._turns[key]

    def _find_turn(self, thinking: bool | None, tools: Sequence[ToolSpec]) -> Turn:
        opening, closing = self._thought
        prompt = self.render(_ASKED, tools, thinking)
        lead, begun = "", self._begun_in(prompt)
        if thinking is False and closing:
            said = self._finished({"role": "assistant", "content": _SAYS}, thinking, tools)
            before = said[: said.rfind(_SAYS)]
            lead = before[len(prompt) :] if before.startswith(prompt) else closing if begun else ""
            if tools and lead and not self._finished(_call_of(tools), thinking, tools).startswith(prompt + lead):
                lead = ""  # a call may stand elsewhere than other answers
        return Turn(lead, self._begun_in(prompt + lead), "" if begun else opening, closing)

    @cached_property
    def knows_thoughts(self) -> bool:
        """Whether it knows of thinking, or the tokenizer has tokens for it."""
        return bool(self._thought[1])

    @cached_property
    def _thought(self) -> tuple[str, str]:
        """What is written before a thought, and between it and the answer, in a turn in which the model may think: as the
        template writes it; where it writes none, by the marks that it or the tokenizer has."""
        prompt = self.render(_ASKED, thinking=True)
        whole = self._finished({"role": "assistant", "content": _SAYS, "reasoning_content": _THINKS}, thinking=True)
        thinks, says = whole.rfind(_THINKS), whole.rfind(_SAYS)
        if 0 <= thinks < says and whole.startswith(prompt) and whole[thinks + len(_THINKS) : says].strip():
            opening, closing = whole[len(prompt) : thinks], whole[thinks + len(_THINKS) : says]
            mark = opening.strip() or prompt.rstrip().rpartition("\n")[2]
            if "<|channel|>" not in mark:
                self.pairs[mark] = closing.strip()
            return opening, closing
        written = f"{self._text(False)}\0{self.special}"
        mark = self._begun_in(prompt) or next((mark for mark in THOUGHTS if mark in written), "")
        return ("", "") if not mark else (f"{mark}\n", f"\n{THOUGHTS[mark]}\n\n")

    def _begun_in(self, prompt: str) -> str:
        """The mark that opened the thought in which a prompt to `_ASKED` ends; empty where it ends in none."""
        tail = prompt[prompt.rfind(_ASKS) + len(_ASKS) :]
        begun = max(self.pairs, key=tail.rfind)
        return begun if begun in tail and self.pairs[begun] not in tail[tail.rfind(begun) :] else ""

    # ---- tools -----------------------------------------------------------------------------------------------------

    @property
    def takes_tools(self) -> bool:
        """Whether it shows tools, calls and what they gave, and writes a call so that it can be read back."""
        return bool(self.example_call)

    @cached_property
    def example_call(self) -> str:
        """What it writes for a call of a tool, to the end of the turn; empty where it takes no tools."""
        call: CalledFunction = {"name": "leap_probe", "arguments": {"leap_argument": 'leap "value" 1'}}
        schema = {"type": "object", "properties": {"leap_argument": {"type": "string"}}, "required": ["leap_argument"]}
        probe: ToolFunction = {"name": "leap_probe", "description": "leap tells", "parameters": schema}
        tools: list[ToolSpec] = [{"type": "function", "function": probe}]
        made: Message = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
        past: Message = {**made, "tool_calls": [{"id": call_id(0), "type": "function", "function": call}]}
        longer: list[Message] = [*_ASKED, past, {"role": "tool", "content": "leap gave", "tool_call_id": call_id(0)}]
        try:
            self._guard([_ASKED, longer, [*_ASKED, made]], tools)
            shown, later = self.render(_ASKED, tools), self.render(longer, tools)
            written = [self.called(made, before, tools) for before in (_ASKED, longer)]
            silent = _SAYS not in self.called({**made, "content": _SAYS}, _ASKED, tools)
        except Exception as error:  # a template may refuse in any way it likes
            log.info("the chat template takes no tools: %s", error)
            return ""
        read = [call_in(self.readable(split_thought(text).answer, tools)) for text in written]
        parts = all(part in shown for part in ("leap_probe", "leap tells", "leap_argument", _ASKS))
        if not (parts and "leap gave" in later and all(each is not None and each[0] == call for each in read)):
            return ""
        if silent:
            log.warning("the chat template leaves out the words beside a call of a tool: calls are trained without reasons")
        return written[0]

    def called(
        self, message: Message, prompt: Sequence[Message], tools: Sequence[ToolSpec], thinking: bool | None = None
    ) -> str:
        """What the template writes for an assistant message that calls tools, to the end of the turn.

        Raises:
            LeapError: The template writes what came before otherwise once the message is there.
        """
        number = sum(earlier["role"] == "assistant" for earlier in prompt)
        calls = message.get("tool_calls", ())
        named: Message = {**message, "tool_calls": [{"id": call_id(number), **call} for call in calls]}
        thought = named.pop("reasoning_content", "").strip() if thinking else ""
        before = self.render(prompt, tools, thinking) + self.turn(thinking, tools).lead
        if thought:
            try:
                whole = self.render([*prompt, {**named, "reasoning_content": thought}], tools, thinking, opened=False)
            except ModelError:
                whole = ""
            if not (whole.startswith(before) and self.marked(thought) in whole[len(before) :]):
                turn = self.turn(thinking, tools)
                called = self.called(named, prompt, tools, False)
                return f"{turn.opening}{self.marked(thought)}{turn.closing}{called}"
        else:
            whole = self.render([*prompt, named], tools, thinking, opened=False)
        if not whole.startswith(before):
            raise LeapError("the chat template does not write a call of a tool behind the prompt that asked for it")
        text = whole[len(before) :]
        ended = self._tokenizer.convert_ids_to_tokens(self.end_of_turn)
        end = text.rfind(ended)
        return text[: end + len(ended)] if end >= 0 else text.rstrip()

    def readable(self, text: str, tools: Sequence[ToolSpec]) -> str:
        """An answer in a form that is read here; as it was generated, if it is in one or the tokenizer knows no better."""
        if getattr(self._tokenizer, "response_template", None) is None or call_in(text) is not None:
            return text
        try:  # a form of its own, which the tokenizer can read
            read = self._tokenizer.parse_response(text, prefix="", tools=list(tools))
            called = [(call["function"]["name"], call["function"]["arguments"]) for call in read["tool_calls"]]
            calls = [
                (name, given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)) for name, given in called
            ]
        except Exception:  # whatever a model wrote, it is an answer
            return text
        return calls_as_text(str(read.get("content") or ""), calls)

    # ---- is it fit for students ------------------------------------------------------------------------------------

    def _guard(self, conversations: Sequence[Sequence[Message]], tools: Sequence[ToolSpec] = ()) -> None:
        """Finds out in another process whether the template comes to an end.

        Raises:
            PrerequisiteError: It does not, or writes too much.
        """
        shared = {**self._tokenizer.special_tokens_map, "add_generation_prompt": True}
        shared |= {"tools": list(tools)} if tools else {}
        told = [{**shared, **told, "messages": list(one)} for one in conversations for told in _TOLD.values()]
        variables = json.dumps(told, default=str)
        if found := trouble(self._text(bool(tools)), variables):
            raise PrerequisiteError(f"the chat template of {self.name} {found}; use another checkpoint.")

    def _check(self) -> None:
        """Shows the template conversations such as a student is asked with.

        Raises:
            PrerequisiteError: It raises, does not end, or does not hold every message's words in their order and by whom.
        """
        contents = ['Leap asks: "You see a Mug 1" & <more>.\n\n' + " More of it." * 300 + "\n\tWhat now?"]
        contents += ["Leap says: look", "Leap shows: nothing happens."] * 10  # a long episode, in which things come again
        turns: list[Message] = [
            {"role": "assistant" if number % 2 else "user", "content": content} for number, content in enumerate(contents)
        ]
        answer: Message = {"role": "assistant", "content": "Leap answers"}
        try:
            self._guard([turns, turns[:1], [*turns, answer]])
            prompt, again = (self.render(turns) for _ in range(2))
            bare = self.render(turns, opened=False)
            asked = [self.render([{**turns[0], "content": word}]) for word in "ab"]
        except (ModelError, ValueError) as error:  # a ValueError: several templates, none of them for this
            raise PrerequisiteError(first_line(error)) from error
        try:
            whole = self.render([*turns, answer], opened=False)
            before = whole[: whole.rindex("Leap answers")]
        except (ModelError, ValueError):  # Mistral's take no conversation that ends in an answer
            before = prompt
        ends = [0]
        for content in contents:
            ends.append(prompt.find(content, ends[-1]) + len(content))
        lost = any(prompt[end - len(content) : end] != content for end, content in zip(ends[1:], contents, strict=True))
        seams = [prompt[end : later - len(c)] for (end, later), c in zip(pairwise(ends[1:]), contents[1:], strict=True)]
        unasked = prompt.rstrip() == bare.rstrip() != before.rstrip()
        astray = not (before.startswith(prompt.rstrip()) or prompt.startswith(before.rstrip()))
        for wrong, what in (
            (lost or asked[0] == asked[1], "does not hold the text of every message in its order"),
            (seams[0] == seams[1], "does not tell the words of a user from those of the assistant"),
            (prompt != again, "writes the same messages otherwise each time"),
            (unasked or astray, "does not open the assistant's turn (add_generation_prompt)"),
        ):
            if wrong:
                raise PrerequisiteError(
                    f"the chat template of {self.name} {what}; use an instruction-tuned checkpoint for text, or mend "
                    "`chat_template`."
                )
