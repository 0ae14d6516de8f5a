"""Text generation behind one asynchronous interface, whether the model is in this process or at an endpoint.

An episode holds one *conversation* with the model. A model in this process waits until every open conversation has asked
and answers them in one batch, keeping each conversation's prefix from step to step; an endpoint would answer each at once.
Rollouts are the same code for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from leap.policies.rendering import Message


class Sampling(BaseModel):
    """How answers are drawn. Part of a recipe, under `student.sampling`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(default=0.3, ge=0, description="0 takes the likeliest token; the paper samples at 0.3.")
    max_tokens: int = Field(default=256, ge=1, description="Longest answer, in tokens.")
    max_reason_tokens: int = Field(default=192, ge=0, description="Constrained decoding starts the action after so many tokens.")


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer and what it cost.

    Attributes:
        text: What was generated.
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens generated.
        cached_tokens: How many of the prompt's tokens were reused from the conversation's last turn.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Conversation(Protocol):
    """One episode's exchange with a model."""

    async def complete(
        self, messages: Sequence[Message], *, seed: int, choices: Sequence[str] | None = None
    ) -> Completion:
        """Answers a prompt.

        Args:
            messages: The prompt.
            seed: Seed of the sampling: same prompt, same seed, same batch, same answer.
            choices: If given, the answer's action can only be one of these (constrained decoding).

        Raises:
            ModelError: The model failed or refused; the message says why.
        """
        ...


class Model(ABC):
    """A language model that can hold many conversations at once.

    Attributes:
        name: `provider/model`.
        concurrency: How many conversations to hold at once.
        constrains: Whether `choices` are honoured.
    """

    name: str
    concurrency: int
    constrains: bool = False

    @abstractmethod
    def conversation(self) -> AbstractAsyncContextManager[Conversation]:
        """Opens a conversation; close it when the episode ends."""

    def close(self) -> None:  # noqa: B027 - not every model holds something to free
        """Frees memory, connections and processes."""
