"""Guesses of how an answer goes on, by how other answers did: tokens that are guessed right cost no forward of their own.

Agents say much the same at every step of every episode. A guess is fed behind an answer's last token, and each of its tokens
counts only if the model then draws it itself: answers are those without guesses. (Speculative decoding, Leviathan et al.,
arXiv 2211.17192, by a table in place of a smaller model.)
"""

from __future__ import annotations

from collections.abc import Sequence

_CONTEXTS = (8, 4, 2, 1)
"""By how many of the last tokens the next one is looked up, the most telling first."""
CONTEXT = max(_CONTEXTS)
_ENTRIES = 1_000_000
"""More are forgotten, all at once: a conversation that never ends must not fill the memory."""


class Drafts:
    """What followed what in the answers so far."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], dict[int, int]] = {}

    def learn(self, text: Sequence[int], begin: int) -> None:
        """Takes in the tokens of a text from a place on. Of those before it, the last CONTEXT are enough."""
        if len(self._next) > _ENTRIES:
            self._next.clear()
        for at in range(begin, len(text)):
            for length in _CONTEXTS:
                if length <= at:
                    follows = self._next.setdefault(tuple(text[at - length : at]), {})
                    follows[text[at]] = follows.get(text[at], 0) + 1

    def guess(self, text: Sequence[int], most: int) -> list[int]:
        """The tokens that probably follow a text, as far as one came no less often than all others together."""
        guessed = list(text[-CONTEXT:])
        begin = len(guessed)
        while len(guessed) - begin < most and (token := self._likely(guessed)) is not None:
            guessed.append(token)
        return guessed[begin:]

    def _likely(self, text: list[int]) -> int | None:
        for length in _CONTEXTS:
            if follows := self._next.get(tuple(text[-length:])):
                token = max(follows, key=follows.__getitem__)
                return token if 2 * follows[token] >= sum(follows.values()) else None
        return None
