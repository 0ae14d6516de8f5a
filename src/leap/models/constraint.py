"""Constrained decoding: after a free reason, only admissible actions can be generated."""

from __future__ import annotations

from collections.abc import Sequence

from leap.errors import PrerequisiteError
from leap.models.base import Sampling
from leap.models.chat import ChatTokens
from leap.policies.answer import ACTION_MARKER, ends_in_marker

_END = -1  # trie key of "the answer may end here"


class ActionGrammar:
    """What all constraints of one tokenizer share: the marker's tokens, and each action's tokens, made once."""

    def __init__(self, chat: ChatTokens) -> None:
        self.chat = chat
        self.marker = chat.text(f"\n{ACTION_MARKER}")
        # A marker is complete with its colon, which a byte may also spell.
        vocabulary = enumerate(chat.tokenizer.convert_ids_to_tokens(range(len(chat.tokenizer))))
        colons = {i: chat.decode([i]) for i, token in vocabulary if token and (":" in token or token == "<0x3A>")}
        colons = {i: text for i, text in colons.items() if ":" in text}
        self.may_end_marker = {i for i, text in colons.items() if not text.rpartition(":")[2].strip()}
        # One token that holds the colon and more would put a word of its own where the action belongs.
        self.not_in_reason = [chat.end_of_turn, *sorted(colons.keys() - self.may_end_marker)]
        self._actions: dict[str, list[int]] = {}

    def action(self, text: str) -> list[int]:
        """Tokens of an action as they follow the marker."""
        if text not in self._actions:
            # Encoded behind the marker, because a tokenizer may cut " go" otherwise at the start of a text.
            head = self.chat.text(ACTION_MARKER)
            whole = self.chat.text(f"{ACTION_MARKER} {text}")
            self._actions[text] = whole[len(head) :] if whole[: len(head)] == head else self.chat.text(f" {text}")
        return self._actions[text]


class ActionConstraint:
    """Follows one answer as it is generated and says which tokens may come next."""

    def __init__(self, grammar: ActionGrammar, choices: Sequence[str], sampling: Sampling) -> None:
        self._grammar = grammar
        self._actions = [grammar.action(choice) for choice in choices]
        self._max_tokens = sampling.max_tokens
        shortest = min(len(action) for action in self._actions)
        room = sampling.max_tokens - len(grammar.marker) - shortest
        if room < 0:
            raise PrerequisiteError(
                f"student.sampling.max_tokens: {sampling.max_tokens} are too few; even the shortest action here takes "
                f"{shortest} tokens and its marker {len(grammar.marker)}."
            )
        self._max_reason = min(sampling.max_reason_tokens, room)
        self._generated: list[int] = []
        self._forced: list[int] = []
        self._node: dict[int, dict] | None = None

    @property
    def in_reason(self) -> bool:
        """Whether the answer is still in its free part, where it may not end."""
        return self._node is None and not self._forced

    def allowed(self) -> list[int] | None:
        """Tokens that may come next; None for any but the end of the turn."""
        if self._forced:
            return [self._forced[0]]
        if self._node is not None:
            end = self._grammar.chat.end_of_turn
            return [end if token == _END else token for token in self._node]
        if len(self._generated) >= self._max_reason:
            self._forced = list(self._grammar.marker)
            return [self._forced[0]]
        return None

    def advance(self, token: int) -> None:
        """Takes in the token that was chosen."""
        self._generated.append(token)
        if self._forced:
            self._forced.pop(0)
            if not self._forced:
                self._node = self._trie()
        elif self._node is not None:
            self._node = self._node.get(token, {_END: {}})
        elif token in self._grammar.may_end_marker and ends_in_marker(self._grammar.chat.decode(self._generated)):
            self._node = self._trie()

    def _trie(self) -> dict[int, dict]:
        """The actions that fit into the tokens left: one that is cut off would be another action, or none."""
        root: dict[int, dict] = {}
        left = self._max_tokens - len(self._generated)
        for action in self._actions:
            if len(action) <= left:
                node = root
                for token in action:
                    node = node.setdefault(token, {})
                node[_END] = {}
        return root
