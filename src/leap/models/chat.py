"""From messages to token ids and back: the one path that rollout and training share (one template, one BOS)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from leap.core.message import Message
from leap.errors import PrerequisiteError


class ChatTokens:
    """Encodes prompts and answers with a tokenizer's own chat template.

    A prompt is the template's rendering with its generation prompt; an answer is the plain text's tokens and the token
    that ends a turn. A training row is prompt + answer, which is byte for byte what a rollout feeds and generates.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise PrerequisiteError(
                f"the tokenizer of {getattr(tokenizer, 'name_or_path', 'this model')!r} has no chat template. Use an "
                "instruction-tuned checkpoint, or set `chat_template` in its tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self._special = dict(tokenizer.get_added_vocab())
        self._split = re.compile("|".join(re.escape(t) for t in sorted(self._special, key=len, reverse=True)) or r"(?!)")
        self._segments: dict[str, list[int]] = {}
        self._by_segment = self._segments_are_exact()
        self.end_of_turn = self._find_end_of_turn()

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt, BOS (if the template has one) to generation prompt."""
        if not self._by_segment:
            return self.tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
            )
        text = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        return self._encode_by_segment(text)

    def length(self, messages: Sequence[Message]) -> int:
        """Tokens of a prompt."""
        return len(self.prompt(messages))

    def answer(self, text: str) -> list[int]:
        """Token ids of a completion, the end of its turn included."""
        return [*self.text(text), self.end_of_turn]

    def text(self, text: str) -> list[int]:
        """Token ids of bare text, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def _encode_by_segment(self, text: str) -> list[int]:
        """Encodes what stands between special tokens piece by piece, each distinct piece once: the steps of an episode
        share nearly all of theirs."""
        ids: list[int] = []
        position = 0
        for match in self._split.finditer(text):
            ids += self._segment(text[position : match.start()])
            ids.append(self._special[match.group()])
            position = match.end()
        return ids + self._segment(text[position:])

    def _segment(self, text: str) -> list[int]:
        if not text:
            return []
        found = self._segments.get(text)
        if found is None:
            if len(self._segments) > 200_000:
                self._segments.clear()
            found = self._segments[text] = self.text(text)
        return found

    def _segments_are_exact(self) -> bool:
        """Whether this tokenizer encodes a text as the pieces between its special tokens, one by one. Nearly all do; one
        that marks the start of a text, or whose special tokens swallow spaces, does not."""
        decoder = getattr(self.tokenizer, "added_tokens_decoder", {})
        if any(token.lstrip or token.rstrip or token.single_word for token in decoder.values()):
            return False
        turns = [("user", " a b\n\nc. "), ("assistant", "ACTION: go to x 1"), ("user", "The x 1 is closed.\n")]
        probe = [{"role": role, "content": content} for role, content in turns]
        text = self.tokenizer.apply_chat_template(probe, add_generation_prompt=True, tokenize=False)
        whole = self.tokenizer.apply_chat_template(probe, add_generation_prompt=True, tokenize=True, return_dict=False)
        return self._encode_by_segment(text) == list(whole)

    def _find_end_of_turn(self) -> int:
        """The special token that the template puts after an assistant's words; EOS where it puts none."""
        probe = "leap probe"
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": probe}],
            tokenize=True,
            return_dict=False,
        )
        special = set(self.tokenizer.all_special_ids)
        for position in range(len(ids) - 1, -1, -1):
            tail = self.tokenizer.decode(ids[position:], skip_special_tokens=True)
            if probe in tail:
                after = [token for token in ids[position:] if token in special]
                if after:
                    return after[0]
                break
        if self.tokenizer.eos_token_id is None:
            raise PrerequisiteError("the tokenizer names no end-of-sequence token, so generation could not stop.")
        return self.tokenizer.eos_token_id
