"""Baselines that are not trained: ReAct (Yao et al. 2023) on any model, and a teacher's model that acts by itself.

What a student has to beat to be better than its teacher is the teacher's model without privilege, executed; what the
teacher is worth is the same model with privilege (the paper's J(pi^E)).
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from leap.core import Actor, Decision, Episode, History, PrivilegedState, content_key
from leap.core.message import Length, Message, characters, with_tools
from leap.envs.grammar import GrammarOf, free_text
from leap.errors import LeapError
from leap.models.base import Completion, Conversation, Model
from leap.policies.base import UNPARSED, Act, Peek, Player
from leap.policies.shorten import ask_fitting
from leap.policies.templating import PromptFolder, call_macro, load_template, shipped_alone

_SHIPPED = Path(__file__).parent / "templates"


def choose_examples(demonstrations: Sequence[Episode], history: History, k: int, seed: int) -> list[Episode]:
    """The few-shot examples for a task: solved demonstrations, of the task's kind as far as there are any.

    The same for all tasks of a kind, so that prompts share their beginning; only a task that is itself among the
    examples gets another in its place.

    Args:
        demonstrations: Episodes of an expert on training tasks.
        history: Of the task to play.
        k: How many.
        seed: Of the choice.
    """
    task = history.task
    solved = sorted((d for d in demonstrations if d.success and d.steps), key=lambda d: d.task.key)
    draw = random.Random(content_key("examples", seed, task.kind))
    mixed = draw.sample(solved, len(solved))
    mixed.sort(key=lambda d: d.task.kind != task.kind)  # stable: drawn order within each half
    return [d for d in mixed if (d.task.id, d.task.instruction) != (task.id, task.instruction)][:k]


class _ModelPlays:
    """What the two policies share: one conversation per episode, an answer per step."""

    privileged = False

    def __init__(
        self,
        model: Model,
        actor: Actor,
        *,
        grammar_of: GrammarOf,
        constrained: bool,
        limit: int | None,
        length: Length,
    ) -> None:
        self.actor = actor
        self.concurrency = model.concurrency
        self.waves = model.in_process
        self._model = model
        self._grammar_of = grammar_of
        self._constrained = constrained and model.constrains
        self._limit = limit
        self._length = length

    async def answer(
        self, conversation: Conversation, history: History, seed: int, render: Callable[[History], list[Message]]
    ) -> Act:
        """Asks for the next act, with a prompt that fits."""
        grammar = self._grammar_of(history.task)

        async def ask(messages: list[Message]) -> Completion:
            return await conversation.complete(
                messages,
                seed=int(content_key(seed, len(history.actions)), 16) % 2**31,
                choices=grammar.choices(history.now) if self._constrained else None,
                tools=grammar.tools,
            )

        length = with_tools(self._length, grammar.tools)
        completion, dropped = await ask_fitting(ask, render, history, self._limit, length)
        decision = grammar.read(completion.text, history.now, truncated=completion.truncated)
        return Act(
            decision=decision or Decision(reason="", action=UNPARSED),
            completion=completion.text,
            parsed=decision is not None,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            dropped=dropped,
        )


class ReActPolicy(_ModelPlays):
    """A model that is shown worked examples and its own earlier reasons, on any environment.

    Args:
        model: Answers.
        demonstrations: Expert's episodes on training tasks; those with reasons show how to reason.
        prompts: Tells the folder of a task's templates (`react.j2` there comes before the general one).
        grammar_of: Tells the grammar of a task's actions.
        examples: How many examples to show.
        seed: Of the examples' choice.
        candidates: List the admissible actions, where there are any.
        actor: Who it is, for the record.
        constrained: Only admissible actions can be generated, where the environment lists them and the model can.
        limit: Longest prompt, in the unit of `length`. Examples may fill half of it; then the oldest steps are dropped.
        length: Measures a prompt.
    """

    def __init__(
        self,
        model: Model,
        demonstrations: Sequence[Episode],
        *,
        prompts: PromptFolder = shipped_alone,
        grammar_of: GrammarOf = free_text,
        examples: int = 2,
        seed: int = 0,
        candidates: bool = True,
        actor: Actor | None = None,
        constrained: bool = False,
        limit: int | None = None,
        length: Length = characters,
    ) -> None:
        super().__init__(
            model,
            actor or Actor(name=f"react {model.name}"),
            grammar_of=grammar_of,
            constrained=constrained,
            limit=limit,
            length=length,
        )
        self._demonstrations = demonstrations
        self._prompts = prompts
        self._k = examples
        self._seed = seed
        self._candidates = candidates

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        async with self._model.conversation() as conversation:
            yield _ReActPlayer(self, conversation, seed)

    def examples(self, history: History) -> list[Episode]:
        """The examples for a task; fewer where they would fill more than half of the limit."""
        chosen = choose_examples(self._demonstrations, history, self._k, self._seed)
        if self._limit is None:
            return chosen
        bare = self._length(self.render(history, [], []))
        while chosen and self._length(self.render(history, [], chosen)) - bare > self._limit // 2:
            chosen.pop()
        return chosen

    def render(self, history: History, reasons: Sequence[str], examples: Sequence[Episode]) -> list[Message]:
        """The prompt at the history's present step.

        Args:
            history: What was seen and done; it may be shortened.
            reasons: The policy's own earlier reasons, one for each of its actions so far, the dropped ones too.
            examples: Worked examples.
        """
        kept = [*([""] * len(history.actions)), *reasons][-len(history.actions) :] if history.actions else []
        turns: list[dict[str, Any]] = [
            {"observation": observation.text.strip(), "reason": reason, "action": action}
            for observation, reason, action in zip(history.observations[:-1], kept, history.actions, strict=True)
        ]
        turns.append({"observation": history.now.text.strip(), "reason": "", "action": None})
        text = call_macro(
            load_template("react.j2", self._prompts(history.task), _SHIPPED),
            "prompt",
            task=history.task,
            turns=turns,
            candidates=history.now.admissible if self._candidates else None,
            examples=[_example(episode) for episode in examples],
        )
        return [{"role": "user", "content": text}]


class _ReActPlayer:
    def __init__(self, policy: ReActPolicy, conversation: Conversation, seed: int) -> None:
        self._policy, self._conversation, self._seed = policy, conversation, seed
        self._reasons: list[str] = []
        self._examples: list[Episode] | None = None

    async def decide(self, history: History) -> Act:
        if self._examples is None:
            self._examples = self._policy.examples(history)
        examples, reasons = self._examples, self._reasons
        act = await self._policy.answer(
            self._conversation, history, self._seed, lambda shown: self._policy.render(shown, reasons, examples)
        )
        self._reasons.append(act.decision.reason)
        return act


def _example(episode: Episode) -> dict[str, Any]:
    turns: list[dict[str, Any]] = [
        {
            "observation": step.observation.text.strip(),
            "reason": " ".join(step.reason.split()),
            "action": step.action,
        }
        for step in episode.steps
    ]
    turns.append({"observation": episode.final.text.strip(), "reason": "", "action": None})
    return {"task": episode.task, "turns": turns}


class PrivilegedPrompt(Protocol):
    """Renders what a model that acts with privilege is shown, for example `leap.teachers.prompts.PrivilegedRenderer`.

    Attributes:
        privilege: 0..100.
        grammar_of: Tells the grammar of a task's actions.
    """

    privilege: int
    grammar_of: GrammarOf

    def render(self, history: History, privileged: PrivilegedState | None) -> list[Message]:
        """The prompt at the history's present step."""
        ...


class PrivilegedModelPolicy(_ModelPlays):
    """A teacher's model that acts itself. Above level 0 it is shown the privileged state: the teacher's value. At level 0
    it is the teacher without privilege, is given no way to read the privileged state, and is asked as a student is.

    Args:
        model: Answers.
        renderer: Makes the prompts, at its privilege level.
        actor: Who it is, for the record.
        constrained: Only admissible actions can be generated, where the environment lists them and the model can.
        limit: Longest prompt, in the unit of `length`; the oldest steps are left out of longer ones.
        length: Measures a prompt.
    """

    def __init__(
        self,
        model: Model,
        renderer: PrivilegedPrompt,
        *,
        actor: Actor | None = None,
        constrained: bool = False,
        limit: int | None = None,
        length: Length = characters,
    ) -> None:
        super().__init__(
            model,
            actor or Actor(name=f"{model.name} at privilege {renderer.privilege}"),
            grammar_of=renderer.grammar_of,
            constrained=constrained,
            limit=limit,
            length=length,
        )
        self.privileged = renderer.privilege > 0
        self._renderer = renderer

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        if self.privileged and peek is None:
            raise LeapError("a teacher cannot play without the privileged state")
        async with self._model.conversation() as conversation:
            yield _PrivilegedPlayer(self, self._renderer, conversation, seed, peek if self.privileged else None)


class _PrivilegedPlayer:
    def __init__(
        self,
        policy: PrivilegedModelPolicy,
        renderer: PrivilegedPrompt,
        conversation: Conversation,
        seed: int,
        peek: Peek | None,
    ) -> None:
        self._policy, self._renderer, self._conversation = policy, renderer, conversation
        self._seed, self._peek = seed, peek

    async def decide(self, history: History) -> Act:
        state = await self._peek() if self._peek is not None else None
        return await self._policy.answer(
            self._conversation, history, self._seed, lambda shown: self._renderer.render(shown, state)
        )
