"""A language model as a policy: the student, a ReAct baseline, or a teacher's model that acts by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from leap.core import Actor, Decision, History, content_key
from leap.core.message import Length, Message, with_tools
from leap.envs.grammar import Grammar, GrammarOf
from leap.errors import ContextTooLong, LeapError
from leap.models.base import Completion, Conversation, Model, Request
from leap.policies.base import UNPARSED, Act, Peek, Player
from leap.policies.fitting import Fit, fit_history
from leap.policies.rendering import Renderer

_NEXT_TURN = {"line": ("\nOBSERVATION:", "\nObservation:"), "text": ("\nOBSERVATION:",)}
"""By the form of an action, what begins the turn behind it in a prompt; a text of several lines may hold more than one line."""


class Prompts(Protocol):
    """Makes the prompts of a model that is no student: it may be shown its own reasons, or the privileged state.

    Attributes:
        privileged: Whether the privileged state is shown.
        limit: Longest prompt, in the unit of `length`; None where none is known.
        length: Measures a prompt.
        grammar_of: Tells the grammar of a task's actions.
    """

    privileged: bool
    limit: int | None
    length: Length
    grammar_of: GrammarOf

    async def at_step(self, acts: Sequence[Act], peek: Peek | None) -> Callable[[History], list[Message]]:
        """What renders the present step's prompt from a history, be it shortened.

        Args:
            acts: The policy's own earlier acts in the episode, with their reasons.
            peek: Reads the privileged state; None for a policy that is not privileged.
        """
        ...


class ModelPolicy:
    """A model that acts: one conversation per episode, one answer per step.

    A student is given a `Renderer`, which takes a `History` and nothing else, so that there is no way by which privileged state
    could reach its prompt.

    Args:
        model: Generates the answers.
        renderer: Makes the prompts.
        actor: Who it is, for the record.
        constrained: Whether only admissible actions can be generated, where the environment lists them and the model can.
        untrained: Whether the model was not trained to end its answer behind the action: one that imagines the next observation
            is stopped there.
        hot: The temperature is at least this.
    """

    privileged: bool = False

    def __init__(
        self,
        model: Model,
        renderer: Renderer | Prompts,
        actor: Actor,
        *,
        constrained: bool = False,
        untrained: bool = False,
        hot: float = 0.0,
    ) -> None:
        self.actor = actor
        self.untrained = untrained
        self.hot = hot
        self.concurrency = model.concurrency
        self.waves = model.in_process
        self.privileged = not isinstance(renderer, Renderer) and renderer.privileged
        self.model = model
        self.renderer = renderer
        self.constrained = constrained and model.constrains

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        if self.privileged and peek is None:
            raise LeapError("a teacher cannot play without the privileged state")
        async with self.model.conversation() as conversation:
            yield _ModelPlayer(self, conversation, seed, peek if self.privileged else None)


class _ModelPlayer:
    def __init__(self, policy: ModelPolicy, conversation: Conversation, seed: int, peek: Peek | None) -> None:
        self._policy, self._conversation, self._seed, self._peek = policy, conversation, seed, peek
        self._fit: Fit | None = None
        self._acts: list[Act] = []

    async def decide(self, history: History) -> Act:
        renderer = self._policy.renderer
        render = renderer.whole if isinstance(renderer, Renderer) else await renderer.at_step(self._acts, self._peek)
        grammar = renderer.grammar_of(history.task)
        request, completion, dropped = await self._answer(render, history, grammar)
        decision = grammar.read(completion.text, history.now, truncated=completion.truncated)
        if decision is None:
            self._policy.model.unread(request, "no action can be read from it")
        if isinstance(renderer, Renderer):
            decision = renderer.decision(decision, completion.thought)
        act = Act(
            decision=decision or Decision(reason="", action=UNPARSED),
            completion=completion.whole,
            parsed=decision is not None,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            dropped=dropped,
            tokens=completion.tokens,
            logprobs=completion.logprobs,
        )
        self._acts.append(act)
        return act

    async def _answer(
        self, render: Callable[[History], list[Message]], history: History, grammar: Grammar
    ) -> tuple[Request, Completion, int]:
        """Asks with a prompt that fits or, where the model refuses it as too long all the same, with ever shorter ones."""
        policy = self._policy
        fit = self._fit = self._fit or Fit(policy.renderer.limit, with_tools(policy.renderer.length, grammar.tools))
        seed = int(content_key(self._seed, len(history.actions)), 16)
        seed = seed if policy.model.in_process else seed % 2**31  # endpoints take no larger ones
        choices = grammar.choices(history.now) if policy.constrained else None
        stop = _NEXT_TURN.get(grammar.form_at(history.now), ()) if policy.untrained else ()
        while True:
            messages, dropped = fit_history(render, history, fit)
            try:
                thinking = policy.renderer.thinking if isinstance(policy.renderer, Renderer) else None
                about = {"task": history.task.id, "step": len(history.actions), "hot": policy.hot}
                request = Request(
                    messages, seed, choices, tools=grammar.tools, stop=stop, thinking=thinking, **about
                )
                return request, await self._conversation.complete(request), dropped
            except ContextTooLong:
                fit.refused(messages)
