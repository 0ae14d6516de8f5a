"""The student: a language model that is shown a rendered history and answers with a reason and an action."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from leap.core import Actor, Decision, History
from leap.core.keys import content_key
from leap.models.base import Conversation, Model
from leap.policies.base import UNPARSED, Act, Peek, Player
from leap.policies.rendering import Renderer


class ModelPolicy:
    """A model as a policy. It has no field, parameter or method through which privileged state could reach a prompt.

    Args:
        model: Generates the answers.
        renderer: Makes the prompts.
        actor: Who it is, for the record.
        constrained: Only admissible actions can be generated, where the environment lists them and the model can.
    """

    privileged = False

    def __init__(self, model: Model, renderer: Renderer, actor: Actor, *, constrained: bool = False) -> None:
        self.actor = actor
        self.concurrency = model.concurrency
        self.waves = model.in_process
        self._model = model
        self._renderer = renderer
        self._constrained = constrained and model.constrains

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        async with self._model.conversation() as conversation:
            yield _Student(conversation, self._renderer, seed, self._constrained)


class _Student:
    def __init__(self, conversation: Conversation, renderer: Renderer, seed: int, constrained: bool) -> None:
        self._conversation, self._renderer, self._seed, self._constrained = conversation, renderer, seed, constrained

    async def decide(self, history: History) -> Act:
        grammar = self._renderer.grammar_of(history.task)
        messages, dropped = self._renderer.fit(history)
        completion = await self._conversation.complete(
            messages,
            seed=int(content_key(self._seed, len(history.actions)), 16),
            choices=grammar.choices(history.now) if self._constrained else None,
            tools=grammar.tools,
        )
        decision = grammar.read(completion.text, history.now, truncated=completion.truncated)
        return Act(
            decision=decision or Decision(reason="", action=UNPARSED),
            completion=completion.text,
            parsed=decision is not None,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            dropped=dropped,
        )
