"""From messages to token ids and back: the one path that rollout and training share (one template, one BOS)."""

from __future__ import annotations

import json
import logging
import re
import string
from collections.abc import Iterable, Sequence
from datetime import date
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

from leap.core.message import CalledFunction, Message, ToolFunction, ToolSpec, sendable
from leap.envs.tools import call_id, call_in, calls_as_text, in_words
from leap.errors import LeapError, ModelError, ModelRefused, PrerequisiteError
from leap.models.template_guard import trouble

log = logging.getLogger(__name__)

TODAY = date(2024, 7, 26)
"""What templates are told when they ask for the date, Llama's own fallback: a prompt is the same on every day of a run, of its
resumption, and in training."""


def dated(template: str) -> str:
    """A chat template for which it is always TODAY."""
    if "strftime_now" not in template:
        return template
    parts = "".join(f"|replace('%{c}','{TODAY.strftime('%' + c)}')" for c in string.ascii_letters)
    # The line break goes: templates are rendered with trim_blocks.
    return f"{{%- macro strftime_now(format) -%}}{{{{ format|replace('%-','%'){parts} }}}}{{%- endmacro %}}\n{template}"


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class ChatTokens:
    """Encodes prompts and answers with a tokenizer's own chat template.

    A prompt is the template's rendering with its generation prompt; an answer is the plain text's tokens and the token
    that ends a turn. A training row is prompt + answer, which is byte for byte what a rollout feeds and generates.

    Tools go through the template where it knows them: then an answer that calls one is what the template writes for it. Where
    it does not, tools and calls are put into words (`leap.envs.tools.in_words`).

    Args:
        tokenizer: The tokenizer with its template. (Any, since transformers declares each of its answers as one or a list.)
        ends: Tokens at which generation ends, beside those that the tokenizer and the template name.

    Attributes:
        end_of_turn: The token that ends an answer in the template, and in training.
        ends: All tokens at which an answer ends.

    Raises:
        PrerequisiteError: The template is none that a student can be asked by.
    """

    def __init__(self, tokenizer: Any, ends: Iterable[int] = ()) -> None:
        self._name = repr(getattr(tokenizer, "name_or_path", "this model"))
        if not getattr(tokenizer, "chat_template", None):
            raise PrerequisiteError(
                f"the tokenizer of {self._name} has no chat template. Use an "
                "instruction-tuned checkpoint, or set `chat_template` in its tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self._templates: dict[bool, str] = {}
        self._check_template()
        self._special = dict(tokenizer.get_added_vocab())
        longest_first = sorted(self._special, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")
        self._segment = lru_cache(maxsize=200_000)(self.text)  # an episode's steps share nearly all of theirs
        self._by_segment = self._segments_are_exact()
        self.end_of_turn = self._find_end_of_turn()
        known = {self.end_of_turn, tokenizer.eos_token_id, *ends}
        self.ends = sorted(token for token in known if isinstance(token, int))

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> list[int]:
        """Token ids of a prompt, BOS (if the template has one) to generation prompt."""
        if tools and not self.takes_tools:
            messages, tools = in_words(messages, tools), ()
        text = self._render(messages, tools)
        return self._encode_by_segment(text) if self._by_segment else self.text(text)

    def length(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        """Tokens of a prompt."""
        return len(self.prompt(messages, tools))

    def answer(self, text: str) -> list[int]:
        """Token ids of a completion in words, the end of its turn included."""
        return [*self.text(text), self.end_of_turn]

    def completion(self, message: Message, prompt: Sequence[Message] = (), tools: Sequence[ToolSpec] = ()) -> list[int]:
        """Token ids of the assistant message that answers a prompt, the end of its turn included."""
        if not message.get("tool_calls"):
            return self.answer(message["content"])
        if not self.takes_tools:
            return self.answer(in_words([message], ())[0]["content"])
        return self.answer(self._called(message, prompt, tools))

    def said(self, ids: Sequence[int], tools: Sequence[ToolSpec] = ()) -> str:
        """Text of an answer as generated. Where tools are on offer the tokens that mark a call are left in."""
        if not tools or not self.takes_tools:
            return self.decode(ids)
        return self._readable(self.tokenizer.decode(self._unended(ids), skip_special_tokens=False), tools)

    def _unended(self, ids: Sequence[int]) -> list[int]:
        """An answer without the token that ends it, which need not be a special one."""
        return list(ids[:-1] if ids and ids[-1] in self.ends else ids)

    def _readable(self, text: str, tools: Sequence[ToolSpec]) -> str:
        """An answer in a form that is read here; as it was generated, if it is in one or the tokenizer knows no better."""
        if getattr(self.tokenizer, "response_template", None) is None or call_in(text) is not None:
            return text
        try:  # a form of its own, which the tokenizer can read
            read = self.tokenizer.parse_response(text, prefix="", tools=list(tools))
            called = [(call["function"]["name"], call["function"]["arguments"]) for call in read["tool_calls"]]
            calls = [
                (name, given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)) for name, given in called
            ]
        except Exception:  # whatever a model wrote, it is an answer
            return text
        return calls_as_text(str(read.get("content") or ""), calls)

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the chat template shows tools, calls and what they gave, and writes a call so that it can be read back."""
        call: CalledFunction = {"name": "leap_probe", "arguments": {"leap_argument": 'leap "value" 1'}}
        schema = {"type": "object", "properties": {"leap_argument": {"type": "string"}}, "required": ["leap_argument"]}
        probe: ToolFunction = {"name": "leap_probe", "description": "leap tells", "parameters": schema}
        tools: list[ToolSpec] = [{"type": "function", "function": probe}]
        made: Message = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
        reasoned: Message = {**made, "content": "leap says"}
        past: Message = {**made, "tool_calls": [{"id": call_id(0), "type": "function", "function": call}]}
        prompt: list[Message] = [{"role": "user", "content": "leap asks"}]
        told: Message = {"role": "tool", "content": "leap gave", "tool_call_id": call_id(0)}
        longer = [*prompt, past, told]
        try:
            self._guard([prompt, longer, [*prompt, made]], tools)
            shown, later = self._render(prompt, tools), self._render(longer, tools)
            made_so = [self._readable(self._called(made, before, tools), tools) for before in (prompt, longer)]
            read = [call_in(text) for text in made_so]
            silent = "leap says" not in self._called(reasoned, prompt, tools)
        except Exception as error:  # a template may refuse in any way it likes
            log.info("the chat template takes no tools: %s", error)
            return False
        parts = all(part in shown for part in ("leap_probe", "leap tells", "leap_argument", "leap asks"))
        takes = parts and "leap gave" in later and all(each is not None and each[0] == call for each in read)
        if takes and silent:
            log.warning("the chat template leaves out the words beside a call of a tool: calls are trained without reasons")
        return takes

    def _called(self, message: Message, prompt: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        """What the template writes for an assistant message that calls tools, without the end of the turn.

        Raises:
            LeapError: The template writes what came before otherwise once the message is there.
        """
        number = sum(earlier["role"] == "assistant" for earlier in prompt)
        calls = message.get("tool_calls", ())
        named: Message = {**message, "tool_calls": [{"id": call_id(number), **call} for call in calls]}
        before = self._render(prompt, tools)
        whole = self._render([*prompt, named], tools, opened=False)
        if not whole.startswith(before):
            raise LeapError("the chat template does not write a call of a tool behind the prompt that asked for it")
        text = whole[len(before) :]
        end = text.rfind(self.tokenizer.convert_ids_to_tokens(self.end_of_turn))
        return text[:end] if end >= 0 else text.rstrip()

    def _render(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, opened: bool = True) -> str:
        """What the template writes, with the assistant's turn opened behind it or not.

        Raises:
            ModelRefused: It raises.
        """
        offered = {"tools": list(tools)} if tools else {}
        how = {"chat_template": self._template(bool(tools)), "add_generation_prompt": opened, "tokenize": False, **offered}
        try:
            return str(self.tokenizer.apply_chat_template(sendable(list(messages)), **how))
        except Exception as error:  # a template may refuse in any way it likes
            raise ModelRefused(f"the chat template of {self._name} refuses these messages: {first_line(error)}") from error

    def _template(self, with_tools: bool) -> str:
        """The template that is used with tools or without."""
        if with_tools not in self._templates:
            self._templates[with_tools] = dated(self.tokenizer.get_chat_template(None, [{}] if with_tools else None))
        return self._templates[with_tools]

    def _guard(self, conversations: Sequence[Sequence[Message]], tools: Sequence[ToolSpec] = ()) -> None:
        """Finds out in another process whether a template comes to an end.

        Raises:
            PrerequisiteError: It does not, or writes too much.
        """
        shared = {**self.tokenizer.special_tokens_map, "add_generation_prompt": True}
        shared |= {"tools": list(tools)} if tools else {}
        variables = json.dumps([{**shared, "messages": list(one)} for one in conversations], default=str)
        if found := trouble(self._template(bool(tools)), variables):
            raise PrerequisiteError(f"the chat template of {self._name} {found}; use another checkpoint.")

    def _check_template(self) -> None:
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
            prompt, again = (self._render(turns) for _ in range(2))
            bare = self._render(turns, opened=False)
            asked = [self.text(self._render([{**turns[0], "content": word}])) for word in "ab"]
        except (ModelError, ValueError) as error:  # a ValueError: several templates, none of them for this
            raise PrerequisiteError(first_line(error)) from error
        try:
            whole = self._render([*turns, answer], opened=False)
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
                    f"the chat template of {self._name} {what}; use an instruction-tuned checkpoint for text, or mend "
                    "`chat_template`."
                )

    def text(self, text: str) -> list[int]:
        """Token ids of bare text, without special tokens."""
        return self.tokenizer(sendable(text), add_special_tokens=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out."""
        return self.tokenizer.decode(self._unended(ids), skip_special_tokens=True)

    def _encode_by_segment(self, text: str) -> list[int]:
        """Encodes what stands between special tokens piece by piece, each distinct piece once."""
        ids: list[int] = []
        for number, piece in enumerate(self._split.split(text)):  # every other one is a special token
            ids += [self._special[piece]] if number % 2 else self._segment(piece)
        return ids

    def _segments_are_exact(self) -> bool:
        """Whether this tokenizer encodes a text as the pieces between its special tokens, one by one. Nearly all do; one
        that marks the start of a text, or whose special tokens swallow spaces, does not."""
        decoder = getattr(self.tokenizer, "added_tokens_decoder", {})
        if any(token.lstrip or token.rstrip or token.single_word for token in decoder.values()):
            return False
        probe: list[Message] = [
            {"role": "user", "content": " a b\n\nc. "},
            {"role": "assistant", "content": "ACTION: go to x 1"},
            {"role": "user", "content": "The x 1 is closed.\n"},
        ]
        text = self._render(probe)
        return self._encode_by_segment(text) == self.text(text)

    def _find_end_of_turn(self) -> int:
        """The token that the template puts after an assistant's words, special or merely added; EOS where it puts none."""
        probe = "leap probe"
        turns: list[Message] = [{"role": "user", "content": "x"}, {"role": "assistant", "content": probe}]
        try:
            ids = self.text(self._render(turns, opened=False))
        except ModelError:  # no conversation may end in an answer
            ids = self.text(self._render([*turns, turns[0]]))
        added = (token for text, token in self._special.items() if text.strip())  # not runs of blanks
        special = {*self.tokenizer.all_special_ids, *added}
        for position in reversed(range(len(ids))):
            if probe in self.tokenizer.decode(ids[position:], skip_special_tokens=True):
                if after := [token for token in ids[position:] if token in special]:
                    return after[0]
                break
        if self.tokenizer.eos_token_id is None:
            raise PrerequisiteError("the tokenizer names no end-of-sequence token, so generation could not stop.")
        return self.tokenizer.eos_token_id
