"""From messages to token ids and back: the one path that rollout and training share (one template, one BOS)."""

from __future__ import annotations

import json
import logging
import re
import string
from collections.abc import Iterable, Sequence
from datetime import date
from functools import cached_property, lru_cache
from itertools import chain, groupby, pairwise
from typing import Any, NamedTuple, TypeVar

from leap.core.message import CalledFunction, Message, ToolFunction, ToolSpec, sendable
from leap.envs.thought import THOUGHTS, Said, split_thought
from leap.envs.tools import call_id, call_in, calls_as_text, in_words
from leap.errors import LeapError, ModelError, ModelRefused, PrerequisiteError
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


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds any of some texts, the longest that stands at a place."""
    return re.compile(f"({'|'.join(map(re.escape, sorted(texts, key=len, reverse=True))) or '(?!)'})")


def _call_of(tools: Sequence[ToolSpec]) -> Message:
    """A message that calls the first of some tools with nothing."""
    called: CalledFunction = {"name": tools[0]["function"]["name"], "arguments": {}}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": call_id(0), "type": "function", "function": called}]}


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


class ChatTokens:
    """Encodes prompts and answers with a tokenizer's own chat template.

    A prompt is the template's rendering with its generation prompt; an answer is the plain text's tokens and the token
    that ends a turn. A training row is prompt + answer, which is byte for byte what a rollout feeds and generates.
    What a message spells as a special token, or as another that the template writes, is encoded as text: it forges no turn.

    `thinking` says whether the model is asked to think before it answers. False: the template is told not to; where it opens a
    thought all the same, the prompt closes it. None: as the template has it.

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
        self._special = dict(tokenizer.get_added_vocab())
        self._split = _any_of(self._special)
        special = {token.content for token in getattr(tokenizer, "added_tokens_decoder", {}).values() if token.special}
        special, written = special | {*tokenizer.all_special_tokens}, str(tokenizer.chat_template)
        control = [text for text in self._special if len(text) > 1 and text.strip() and (text in special or text in written)]
        self._control, self._specials = _any_of(control), _any_of(special)
        self._controls = {self._special[text]: text for text in control}
        self._segment = lru_cache(maxsize=200_000)(self._plain)  # an episode's steps share nearly all of theirs
        self._turns: dict[tuple[bool | None, bool], Turn] = {}
        self._pairs = dict(THOUGHTS)
        self._check_template()
        self._by_segment = self._segments_are_exact()
        self.end_of_turn = self._find_end_of_turn()
        known = {self.end_of_turn, tokenizer.eos_token_id, *ends}
        self.ends = sorted(token for token in known if isinstance(token, int))

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), thinking: bool | None = None
    ) -> list[int]:
        """Token ids of a prompt, BOS (if the template has one) to generation prompt."""
        messages, tools = self._taken(messages, tools)
        return self._encode(self._render(messages, tools, thinking) + self.turn(thinking, tools).lead)

    def length(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), thinking: bool | None = None) -> int:
        """Tokens of a prompt."""
        return len(self.prompt(messages, tools, thinking))

    def answer(self, text: str) -> list[int]:
        """Token ids of a completion in words, the end of its turn included."""
        return [*self._encode(self._marked(text)), self.end_of_turn]

    def completion(
        self,
        message: Message,
        prompt: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        thinking: bool | None = None,
    ) -> list[int]:
        """Token ids of the assistant message that answers a prompt, the end of its turn included."""
        thought = message.get("reasoning_content", "").strip()
        if message.get("tool_calls") and self.takes_tools:
            ids = self._encode(self._called(message, *self._taken(prompt, tools), thinking))
            return ids if ids[-1] in self.ends else [*ids, self.end_of_turn]
        turn = self.turn(thinking, self._taken(prompt, tools)[1])
        text = self._marked(in_words([message], ())[0]["content"])
        if thinking or turn.begun:
            text = f"{turn.opening}{self._marked(thought)}{turn.closing}{text}"
        return [*self._encode(text), self.end_of_turn]

    def said(self, ids: Sequence[int], tools: Sequence[ToolSpec] = (), thinking: bool | None = None) -> Said:
        """What was thought and what was answered in generated ids. Tokens alone begin or end a thought where the tokenizer has
        tokens for that: what only spells them is a text. Where tools are on offer the tokens that mark a call are left in."""
        tools = tools if tools and self.takes_tools else ()
        thought, answer = split_thought(self.turn(thinking, tools).begun + self.spelled(self._unended(ids)), self._pairs)
        answer = self._readable(answer.replace(MARK, ""), tools) if tools else self._specials.sub("", answer)
        return Said(thought.replace(MARK, ""), answer.replace(MARK, ""))

    def answering(self, ids: Sequence[int], thinking: bool | None = None) -> str | None:
        """The answer in words as far as it was generated; None while the model thinks."""
        text = self.turn(thinking).begun + self.spelled(ids)
        if not split_thought(f"{text}x", self._pairs).answer:
            return None
        return self._specials.sub("", split_thought(text, self._pairs).answer)

    def spelled(self, ids: Sequence[int]) -> str:
        """Text of ids with their special tokens; what only spells one has a `MARK` in it."""
        parts: list[str] = []
        for control, run in groupby(ids, self._controls.get):
            if control is None:
                parts.append(self._marked(self.tokenizer.decode(list(run), skip_special_tokens=True)))
            else:
                parts += [control for _ in run]
        return "".join(parts)

    def _taken(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> tuple[Sequence[Message], Sequence[ToolSpec]]:
        """Messages and tools in the form that the template takes."""
        if tools and not self.takes_tools:
            messages, tools = in_words(messages, tools), ()
        if len(messages) > 1 and messages[0]["role"] == "system" and not self._takes_system:
            merged: Message = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
            messages = [merged, *messages[2:]]
        return messages, tools

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the chat template shows a system message."""
        asks: list[Message] = [{"role": "system", "content": "leap rules"}, {"role": "user", "content": "leap asks"}]
        try:
            return "leap rules" in self._render(asks)
        except ModelError:
            return False

    # ---- thoughts --------------------------------------------------------------------------------------------------

    def turn(self, thinking: bool | None = None, tools: Sequence[ToolSpec] = ()) -> Turn:
        """How the assistant's turn begins where it is asked to think or not, with tools that the template takes or without."""
        key = thinking, bool(tools)
        if key not in self._turns:
            self._turns[key] = self._find_turn(thinking, tools)
        return self._turns[key]

    def _find_turn(self, thinking: bool | None, tools: Sequence[ToolSpec]) -> Turn:
        opening, closing = self._thought
        prompt = self._render(_ASKED, tools, thinking)
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
        """Whether the chat template knows of thinking, or the tokenizer has tokens for it."""
        return bool(self._thought[1])

    @cached_property
    def _thought(self) -> tuple[str, str]:
        """What is written before a thought, and between it and the answer, in a turn in which the model may think: as the
        template writes it; where it writes none, by the marks that it or the tokenizer has."""
        prompt = self._render(_ASKED, thinking=True)
        whole = self._finished({"role": "assistant", "content": _SAYS, "reasoning_content": _THINKS}, thinking=True)
        thinks, says = whole.rfind(_THINKS), whole.rfind(_SAYS)
        if 0 <= thinks < says and whole.startswith(prompt) and whole[thinks + len(_THINKS) : says].strip():
            opening, closing = whole[len(prompt) : thinks], whole[thinks + len(_THINKS) : says]
            mark = opening.strip() or prompt.rstrip().rpartition("\n")[2]
            if "<|channel|>" not in mark:
                self._pairs[mark] = closing.strip()
            return opening, closing
        written = f"{self._template(False)}\0{self._special}"
        mark = self._begun_in(prompt) or next((mark for mark in THOUGHTS if mark in written), "")
        return ("", "") if not mark else (f"{mark}\n", f"\n{THOUGHTS[mark]}\n\n")

    def _begun_in(self, prompt: str) -> str:
        """The mark that opened the thought in which a prompt to `_ASKED` ends; empty where it ends in none."""
        tail = prompt[prompt.rfind(_ASKS) + len(_ASKS) :]
        begun = max(self._pairs, key=tail.rfind)
        return begun if begun in tail and self._pairs[begun] not in tail[tail.rfind(begun) :] else ""

    def _finished(self, answer: Message, thinking: bool | None, tools: Sequence[ToolSpec] = ()) -> str:
        """What the template writes for `_ASKED` and its answer; nothing where it takes no conversation that ends so."""
        try:
            return self._render([*_ASKED, answer], tools, thinking, opened=False)
        except ModelError:
            return ""

    # ---- tools -----------------------------------------------------------------------------------------------------

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
            made_so = [split_thought(self._called(made, before, tools)).answer for before in (prompt, longer)]
            read = [call_in(self._readable(text, tools)) for text in made_so]
            silent = "leap says" not in self._called(reasoned, prompt, tools)
            end = self._encode(self._called(made, prompt, tools))[-1]
            if end in self.tokenizer.all_special_ids and end not in self.ends:  # a call may end otherwise than other answers
                self.ends = sorted([*self.ends, end])
        except Exception as error:  # a template may refuse in any way it likes
            log.info("the chat template takes no tools: %s", error)
            return False
        parts = all(part in shown for part in ("leap_probe", "leap tells", "leap_argument", "leap asks"))
        takes = parts and "leap gave" in later and all(each is not None and each[0] == call for each in read)
        if takes and silent:
            log.warning("the chat template leaves out the words beside a call of a tool: calls are trained without reasons")
        return takes

    def _called(
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
        before = self._render(prompt, tools, thinking) + self.turn(thinking, tools).lead
        if thought:
            try:
                whole = self._render([*prompt, {**named, "reasoning_content": thought}], tools, thinking, opened=False)
            except ModelError:
                whole = ""
            if not (whole.startswith(before) and self._marked(thought) in whole[len(before) :]):
                turn = self.turn(thinking, tools)
                called = self._called(named, prompt, tools, False)
                return f"{turn.opening}{self._marked(thought)}{turn.closing}{called}"
        else:
            whole = self._render([*prompt, named], tools, thinking, opened=False)
        if not whole.startswith(before):
            raise LeapError("the chat template does not write a call of a tool behind the prompt that asked for it")
        text = whole[len(before) :]
        ended = self.tokenizer.convert_ids_to_tokens(self.end_of_turn)
        end = text.rfind(ended)
        return text[: end + len(ended)] if end >= 0 else text.rstrip()

    def _render(
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
        offered = {"tools": self._marked(list(tools))} if tools else {}
        how = {"chat_template": self._template(bool(tools)), "add_generation_prompt": opened, "tokenize": False, **offered}
        try:
            return str(self.tokenizer.apply_chat_template(self._marked(list(messages)), **how, **_TOLD[thinking]))
        except Exception as error:  # a template may refuse in any way it likes
            raise ModelRefused(f"the chat template of {self._name} refuses these messages: {first_line(error)}") from error

    def _marked(self, value: T) -> T:
        """A text, or JSON values with the texts in them, as a template takes it: with a `MARK` in each special token spelled."""
        if isinstance(value, str):
            text = sendable(value).replace(MARK, "\ufffd")
            while self._control.search(text):  # what is left of one may be another
                text = self._control.sub(lambda found: found[0][0] + MARK + found[0][1:], text)
            return text  # type: ignore[return-value]
        if isinstance(value, dict):
            return {self._marked(key): self._marked(one) for key, one in value.items()}  # type: ignore[return-value]
        return [self._marked(one) for one in value] if isinstance(value, list) else value  # type: ignore[return-value]

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
        told = [{**shared, **told, "messages": list(one)} for one in conversations for told in _TOLD.values()]
        variables = json.dumps(told, default=str)
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

    def _encode(self, text: str) -> list[int]:
        """Token ids of what a template wrote. What stands between special tokens is encoded piece by piece, each distinct piece
        once, where the tokenizer allows it."""
        if not self._by_segment:
            first, *others = text.split(MARK)
            return [*self.text(first), *chain.from_iterable(map(self._behind, others))]
        ids: list[int] = []
        for number, piece in enumerate(self._split.split(text)):  # every other one is a special token
            ids += [self._special[piece]] if number % 2 else self._segment(piece)
        return ids

    def _plain(self, text: str) -> list[int]:
        """Token ids of a text in which no special token stands; none comes of it by any way that a tokenizer has to see one."""
        ids = [token for part in text.split(MARK) for token in self.text(part)]
        if self._controls.keys().isdisjoint(ids):
            return ids
        return [token for character in text.replace(MARK, "") for token in self.text(character)]

    def _behind(self, text: str) -> list[int]:
        """Token ids of a text that does not stand at the beginning, which some tokenizers mark."""
        head, whole = self.text("\n"), self.text(f"\n{text}")
        return whole[len(head) :] if whole[: len(head)] == head else self.text(text)

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
        self._by_segment = True
        return self._encode(text) == self.text(text)

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
