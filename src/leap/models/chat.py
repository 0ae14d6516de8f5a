"""From messages to token ids and back: the one path that rollout and training share (one template, one BOS)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leap.errors import PrerequisiteError
from leap.policies.rendering import Message


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
        self.end_of_turn = self._find_end_of_turn()

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt, BOS (if the template has one) to generation prompt."""
        return self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
        )

    def answer(self, text: str) -> list[int]:
        """Token ids of a completion, the end of its turn included."""
        return [*self.text(text), self.end_of_turn]

    def text(self, text: str) -> list[int]:
        """Token ids of bare text, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

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
