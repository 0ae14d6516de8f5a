"""Constrained decoding: after a free reason, only admissible actions can be generated; or one of some whole answers.

An admissible action that is open (`search[<words>]`, see `leap.core.open_action`) is generated with a text of the model's own
in that place: on one line, not blank, and closed before the answer's tokens run out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from leap.core import open_action
from leap.envs.answer import ACTION_MARKER, ends_in_marker
from leap.envs.thought import THOUGHTS, unclosed
from leap.errors import PrerequisiteError
from leap.models.base import Sampling
from leap.models.chat import ChatTokens

_END = -1  # trie key of "the answer may end here"
_TEXT = -2  # trie key of "a free text begins here"
_IN_JSON = re.compile(r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*')
_ENDS_THOUGHT = THOUGHTS["[THINK]"].strip("[]")  # in the brackets of an open action it would be what closes a thought
_NOT_IN_TEXT = frozenset("\n\r[]<>\ufffd")  # would end the line, close the text, look like thinking, or be half a character


class ActionGrammar:
    """What all constraints of one tokenizer share: the marker's tokens, and each action's tokens, made once."""

    def __init__(self, chat: ChatTokens) -> None:
        self.chat = chat
        self.marker = chat.text(f"\n{ACTION_MARKER}")
        # A marker is complete with its first colon, which a byte may also spell.
        vocabulary = enumerate(chat.tokenizer.convert_ids_to_tokens(range(len(chat.tokenizer))))
        colons = {i: chat.decode([i]) for i, token in vocabulary if token and (":" in token or token == "<0x3A>")}
        colons = {i: text for i, text in colons.items() if ":" in text}
        self.may_end_marker = {i for i, text in colons.items() if not text.partition(":")[2].strip()}
        # One token that holds the colon and more would put a word of its own where the action belongs.
        self.not_in_reason = [*chat.ends, *sorted(colons.keys() - self.may_end_marker)]
        self._actions: dict[str, list[int]] = {}
        self._endings: dict[str, list[int]] = {}

    @cached_property
    def closing(self) -> int:
        """The token that closes a free text.

        Raises:
            PrerequisiteError: The tokenizer has none.
        """
        return self._alone("]", "no search could be generated; decode freely")

    @cached_property
    def quote(self) -> int:
        """The token that closes a text in JSON.

        Raises:
            PrerequisiteError: The tokenizer has none.
        """
        return self._alone('"', "no JSON could be generated")

    def _alone(self, sign: str, otherwise: str) -> int:
        for token in (*reversed(self.chat.text(f"a[a]{sign}")), *range(len(self.chat.tokenizer))):
            if self.chat.decode([token]) == sign:
                return token
        raise PrerequisiteError(f"this tokenizer has no token for `{sign}`, so that {otherwise}.")

    @cached_property
    def not_in_json(self) -> list[int]:
        """Tokens that may not stand in a text in JSON, nor close it: an escape is whole within a token."""
        texts = self._texts.items()
        return sorted(i for i, text in texts if i != self.quote and not (text and _IN_JSON.fullmatch(text)))

    @cached_property
    def not_in_text(self) -> list[int]:
        """Tokens that may not stand in a free text, nor close it."""
        return sorted(i for i, text in self._texts.items() if i != self.closing and not _NOT_IN_TEXT.isdisjoint(text))

    @cached_property
    def blank(self) -> list[int]:
        """Tokens that a free text may not begin with."""
        return sorted({self.closing, *self.not_in_text, *(i for i, text in self._texts.items() if not text.strip())})

    def ending_thought(self, written: str) -> list[int]:
        """Tokens that would make a free text of what was written the end of a thought."""
        rest = _ENDS_THOUGHT[len(written) :] if _ENDS_THOUGHT.startswith(written.upper()) else ""
        if rest not in self._endings:
            self._endings[rest] = [i for i, text in self._texts.items() if rest and text.upper() == rest]
        return self._endings[rest]

    @cached_property
    def _texts(self) -> dict[int, str]:
        special = {*self.chat.ends, *self.chat.tokenizer.all_special_ids, *self.chat.tokenizer.get_added_vocab().values()}
        return {i: "\n" if i in special else self.chat.decode([i]) for i in range(len(self.chat.tokenizer))}

    def action(self, text: str) -> list[int]:
        """Tokens of an action as they follow the marker."""
        if text not in self._actions:
            # Encoded behind the marker, because a tokenizer may cut " go" otherwise at the start of a text.
            head = self.chat.text(ACTION_MARKER)
            whole = self.chat.text(f"{ACTION_MARKER} {text}")
            self._actions[text] = whole[len(head) :] if whole[: len(head)] == head else self.chat.text(f" {text}")
        return self._actions[text]


class ActionConstraint:
    """Follows one answer as it is generated and says which tokens may come next.

    Attributes:
        thought: How many of its tokens are a thought that had no room for its end.
    """

    def __init__(
        self, grammar: ActionGrammar, choices: Sequence[str], sampling: Sampling, thinking: bool | None = None
    ) -> None:
        self._grammar = grammar
        self._thinking = thinking
        self._closing = grammar.chat.text(grammar.chat.turn(thinking).closing) if thinking is not False else []
        self._actions: list[tuple[list[int], int]] = []  # tokens up to where a text begins, if one does, and how many follow
        for choice in choices:
            opened = open_action(choice)
            self._actions.append((grammar.action(opened[0] if opened else choice), 2 if opened else 0))
        self._max_tokens = sampling.max_tokens
        shortest = min(len(tokens) + more for tokens, more in self._actions)
        self._least = len(grammar.marker) + shortest
        room = sampling.max_tokens - self._least
        if room < len(self._closing):
            raise PrerequisiteError(
                f"student.sampling.max_tokens: {sampling.max_tokens} are too few; even the shortest action here takes "
                f"{shortest} tokens and its marker {len(grammar.marker)}."
            )
        self._max_reason = min(sampling.max_reason_tokens, room - len(self._closing))
        self.thought = 0
        self._generated: list[int] = []
        self._forced: list[int] = []
        self._node: dict[int, dict] | None = None
        self._written = -1  # tokens of a free text under way; -1 outside one

    @property
    def complete(self) -> bool:
        """Whether what was generated is a whole answer, even if no token is left to end the turn with."""
        return self._node is not None and _END in self._node

    @property
    def reason_left(self) -> int:
        """Tokens that the reason may still have; 0 once the action is due."""
        return 0 if self._forced or self._node is not None else self._max_reason - len(self._generated)

    def end_reason(self) -> list[int]:
        """Ends the reason where it is.

        Returns:
            The tokens that now come: the marker, if it is not there yet, behind what closes the thought that the answer is in.
        """
        if self._node is None and not self._forced:
            chat, answer = self._grammar.chat, self._answer()
            turn = chat.turn(self._thinking)
            end = unclosed(turn.begun + chat.spelled(self._generated) if answer is None else answer)
            known = turn.closing if answer is None and end in turn.closing else ""
            lacking = chat.text(known or (end and f"\n{end}"))  # on a line of its own: half a character may stand before
            if lacking and len(self._generated) + len(lacking) > self._max_tokens - self._least:
                self.thought, lacking = len(self._generated), []  # no room to close it: it is known where it ends
            self._forced = [*lacking, *self._grammar.marker]
        return list(self._forced)

    def fitting(self) -> list[tuple[list[int], bool]]:
        """The actions that fit into the tokens left, by their tokens, and whether a free text and `closing` follow: one that is
        cut off would be another action, or none."""
        left = self._max_tokens - len(self._generated)
        return [(tokens, more > 0) for tokens, more in self._actions if len(tokens) + more <= left]

    def allowed(self) -> list[int] | None:
        """Tokens that may come next; None for any that are not `forbidden`."""
        if self._forced:
            return [self._forced[0]]
        if self._written >= 0:
            # Room is kept for the token that closes the text.
            return [self._grammar.closing] if len(self._generated) >= self._max_tokens - 1 else None
        if self._node is not None:
            end = self._grammar.chat.end_of_turn
            return [end if token == _END else token for token in self._node]
        return None if self.reason_left > 0 else self.end_reason()[:1]

    def forbidden(self) -> list[int]:
        """Tokens that may not come next, where `allowed` does not say which may."""
        grammar, written = self._grammar, self._written
        if written < 0:
            return grammar.not_in_reason
        text = grammar.chat.decode(self._generated[-written:]) if 0 < written < len(_ENDS_THOUGHT) else ""
        ending = grammar.ending_thought(text) if written < len(_ENDS_THOUGHT) else []
        usual = grammar.not_in_text if written else grammar.blank
        return [*usual, *ending] if ending else usual

    def advance(self, token: int) -> None:
        """Takes in the token that was chosen."""
        self._generated.append(token)
        if self._forced:
            self._forced.pop(0)
            if not self._forced:
                self._node = self._trie()
        elif self._written >= 0:
            self._written += 1
            if token == self._grammar.closing:
                self._written, self._node = -1, {_END: {}}
        elif self._node is not None:
            self._node = self._node.get(token, {_END: {}})
            if _TEXT in self._node:
                self._written = 0
        elif token in self._grammar.may_end_marker and ends_in_marker(self._answer() or ""):
            self._node = self._trie()

    def _answer(self) -> str | None:
        return self._grammar.chat.answering(self._generated, self._thinking)

    def _trie(self) -> dict[int, dict]:
        root: dict[int, dict] = {}
        for tokens, opens in self.fitting():
            node = root
            for token in tokens:
                node = node.setdefault(token, {})
            node[_TEXT if opens else _END] = {}
        return root


class AnswerConstraint:
    """Follows an answer that is one of several, in tokens; see `ActionConstraint`. Behind them `end` ends the turn."""

    thought = 0

    def __init__(self, answers: Iterable[Sequence[int]], end: int) -> None:
        self._end, self._node = end, dict[int, dict]()
        for tokens in answers:
            node = self._node
            for token in tokens:
                node = node.setdefault(token, {})

    @property
    def complete(self) -> bool:
        """Whether what was generated is a whole answer."""
        return not self._node

    def allowed(self) -> list[int]:
        """Tokens that may come next."""
        return list(self._node) or [self._end]

    def forbidden(self) -> list[int]:
        """None: `allowed` always says which may come."""
        return []

    def advance(self, token: int) -> None:
        """Takes in the token that was chosen."""
        self._node = self._node.get(token, {})
