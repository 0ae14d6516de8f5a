"""Asking a model until nothing is missing: what is usable is kept, only the rest is asked for again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from leap.core import content_key
from leap.core.message import Message
from leap.errors import ContextTooLong, ModelError
from leap.models.base import Completion, Conversation

log = logging.getLogger(__name__)

FRUITLESS = 10
"""So many answers to different tasks of which nothing can be used, and not one of which anything can, end a stage."""


def request_seed(*parts: Any) -> int:
    """A request's seed, from the recipe's seed, its own content and the attempt: a repeated request is the same request."""
    return int(content_key("request", *parts), 16) % 2**31


async def ask(
    conversation: Conversation,
    prompt: Callable[[], Sequence[Message]],
    take: Callable[[Completion], str],
    *,
    what: str,
    attempts: int,
    seed: int,
    schema: dict[str, Any] | None = None,
    shorten: Callable[[], bool] = lambda: False,
) -> str:
    """Asks, and asks again for what is missing.

    Args:
        conversation: With whom.
        prompt: Asks for what is missing now.
        take: Keeps what can be used of an answer; says what is missing still, or nothing.
        what: Names it in the log.
        attempts: How often to ask.
        seed: The recipe's.
        schema: JSON schema of the answer.
        shorten: Makes the next prompt shorter after one that was too long for the model, which is no attempt; False if
            there is nothing left to leave out.

    Returns:
        What is missing at last and why; empty if nothing is.
    """
    attempt, problem = 1, ""
    while attempt <= attempts:
        messages = prompt()
        try:
            completion = await conversation.complete(messages, seed=request_seed(seed, messages, attempt), schema=schema)
        except ContextTooLong as error:
            if shorten():
                continue
            return str(error)  # it would not fit next time either
        except ModelError as error:
            problem = str(error)
        else:
            problem = take(completion)
            if not problem:
                return ""
        if attempt < attempts:
            log.info("%s: %s; asking again", what, problem)
        attempt += 1
    return problem


class Patience:
    """Ends a stage whose model never gives anything that can be used: each further task would be paid for nothing.

    Args:
        model: The model's name.

    Attributes:
        fruitful: Whether anything could be used so far.
    """

    def __init__(self, model: str) -> None:
        self.fruitful = False
        self._model = model
        self._in_vain = 0

    def count(self, usable: bool) -> None:
        """Counts a task.

        Raises:
            ModelError: That was the last straw.
        """
        self.fruitful = self.fruitful or usable
        self._in_vain += not usable
        if not self.fruitful and self._in_vain >= FRUITLESS:
            raise ModelError(
                f"{self._model} gave no usable answer for any of {self._in_vain} episodes; the warnings above say why. "
                "Check the endpoint and its answers' longest length, or choose another model."
            )
