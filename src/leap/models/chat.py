"""From messages to token ids and back: the one path that rollout and training share (one template, one BOS)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from itertools import chain, groupby
from typing import Any

from leap.core.message import Message, ToolSpec, sendable
from leap.envs.thought import Said, split_thought
from leap.envs.tools import in_words
from leap.models.template import MARK, ChatTemplate, Turn, any_of


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
        template: The template, and what it can do.
        end_of_turn: The token that ends an answer in the template, and in training.
        ends: All tokens at which an answer ends.

    Raises:
        PrerequisiteError: The template is none that a student can be asked by.
    """

    def __init__(self, tokenizer: Any, ends: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer)
        self.end_of_turn = self.template.end_of_turn
        known = {self.end_of_turn, tokenizer.eos_token_id, *ends}
        self.ends = sorted(token for token in known if isinstance(token, int))
        self._special = self.template.special
        self._split = any_of(self._special)
        self._controls = {self._special[text]: text for text in self.template.controls}
        self._segment = lru_cache(maxsize=200_000)(self._plain)  # an episode's steps share nearly all of theirs
        self._by_segment = self._segments_are_exact()

    # ---- what templates can do -------------------------------------------------------------------------------------

    @property
    def knows_thoughts(self) -> bool:
        """Whether the chat template knows of thinking, or the tokenizer has tokens for it."""
        return self.template.knows_thoughts

    def turn(self, thinking: bool | None = None, tools: Sequence[ToolSpec] = ()) -> Turn:
        """How the assistant's turn begins; see `ChatTemplate.turn`."""
        return self.template.turn(thinking, tools)

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the chat template takes tools. If so the token that ends a call, which may be another than that of other
        answers, is one of `ends` from then on."""
        if not (call := self.template.example_call):
            return False
        end = self._encode(call)[-1]
        if end in self.tokenizer.all_special_ids and end not in self.ends:
            self.ends = sorted([*self.ends, end])
        return True

    # ---- to tokens -------------------------------------------------------------------------------------------------

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), thinking: bool | None = None
    ) -> list[int]:
        """Token ids of a prompt, BOS (if the template has one) to generation prompt."""
        messages, tools = self._taken(messages, tools)
        return self._encode(self.template.render(messages, tools, thinking) + self.turn(thinking, tools).lead)

    def length(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), thinking: bool | None = None) -> int:
        """Tokens of a prompt."""
        return len(self.prompt(messages, tools, thinking))

    def answer(self, text: str) -> list[int]:
        """Token ids of a completion in words, the end of its turn included."""
        return [*self._encode(self.template.marked(text)), self.end_of_turn]

    def completion(
        self,
        message: Message,
        prompt: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        thinking: bool | None = None,
    ) -> list[int]:
        """Token ids of the assistant message that answers a prompt, the end of its turn included."""
        if message.get("tool_calls") and self.takes_tools:
            ids = self._encode(self.template.called(message, *self._taken(prompt, tools), thinking))
            return ids if ids[-1] in self.ends else [*ids, self.end_of_turn]
        turn, marked = self.turn(thinking, self._taken(prompt, tools)[1]), self.template.marked
        text = marked(in_words([message], ())[0]["content"])
        if thinking or turn.begun:
            text = f"{turn.opening}{marked(message.get('reasoning_content', '').strip())}{turn.closing}{text}"
        return [*self._encode(text), self.end_of_turn]

    def text(self, text: str) -> list[int]:
        """Token ids of bare text, without special tokens."""
        return self.tokenizer(sendable(text), add_special_tokens=False)["input_ids"]

    def _taken(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> tuple[Sequence[Message], Sequence[ToolSpec]]:
        """Messages and tools in the form that the template takes."""
        _ = tools and self.takes_tools  # what ends a call is known from here on
        return self.template.taken(messages, tools)

    # ---- from tokens -----------------------------------------------------------------------------------------------

    def said(self, ids: Sequence[int], tools: Sequence[ToolSpec] = (), thinking: bool | None = None) -> Said:
        """What was thought and what was answered in generated ids. Tokens alone begin or end a thought where the tokenizer has
        tokens for that: what only spells them is a text. Where tools are on offer the tokens that mark a call are left in."""
        tools = tools if tools and self.takes_tools else ()
        written = self.turn(thinking, tools).begun + self.spelled(self._unended(ids))
        thought, answer = split_thought(written, self.template.pairs)
        answer = self.template.readable(answer.replace(MARK, ""), tools) if tools else self._without_specials(answer)
        return Said(thought.replace(MARK, ""), answer.replace(MARK, ""))

    def answering(self, ids: Sequence[int], thinking: bool | None = None) -> str | None:
        """The answer in words as far as it was generated; None while the model thinks."""
        text, pairs = self.turn(thinking).begun + self.spelled(ids), self.template.pairs
        if not split_thought(f"{text}x", pairs).answer:
            return None
        return self._without_specials(split_thought(text, pairs).answer)

    def spelled(self, ids: Sequence[int]) -> str:
        """Text of ids with their special tokens; what only spells one has a `MARK` in it."""
        parts: list[str] = []
        for control, run in groupby(ids, self._controls.get):
            if control is None:
                parts.append(self.template.marked(self.tokenizer.decode(list(run), skip_special_tokens=True)))
            else:
                parts += [control for _ in run]
        return "".join(parts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out."""
        return self.tokenizer.decode(self._unended(ids), skip_special_tokens=True)

    def _unended(self, ids: Sequence[int]) -> list[int]:
        """An answer without the token that ends it, which need not be a special one."""
        return list(ids[:-1] if ids and ids[-1] in self.ends else ids)

    def _without_specials(self, text: str) -> str:
        return self.template.specials.sub("", text)

    # ---- encoding --------------------------------------------------------------------------------------------------

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
        text = self.template.render(probe)
        self._by_segment = True
        return self._encode(text) == self.text(text)
