"""Asking a model about an episode until nothing is missing: what is usable is kept, only the rest is asked for again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from leap.core import content_key
from leap.core.message import Length, Message, ToolSpec, characters, with_tools
from leap.errors import ContextTooLong, ModelError
from leap.models.base import Completion, Conversation, Model
from leap.policies.fitting import Fit, Fitted

log = logging.getLogger(__name__)

MOST_USELESS = 10
"""So many answers about different episodes of which nothing can be used, and not one of which anything can, end a stage."""

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked.

    Attributes:
        limit: Longest prompt, in the unit of `length`; the oldest steps are left out of longer ones. None where none is known.
        length: Measures a prompt.
        attempts: How often a missing answer is asked for.
        seed: Seed of the requests.
    """

    limit: int | None = None
    length: Length = characters
    attempts: int = 3
    seed: int = 0

    @classmethod
    def of(cls, model: Model, *, limit: int | None = None, attempts: int = 3, seed: int = 0) -> Asking:
        """How to ask a model that measures prompts itself: they are as long as it has room for, or as `limit` says."""
        return cls(shorter(limit, model.room), model.length, attempts, seed)


def shorter(*limits: int | None) -> int | None:
    """The least of the limits there are; None if there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


@dataclass(frozen=True, slots=True)
class Question(Generic[V]):
    """What is asked of a model, for one or several steps of an episode.

    Attributes:
        what: Names it in the log.
        steps: The steps to answer for.
        prompt: Makes the prompt for some of the steps without so many of the oldest; None in their place shows everything.
        read: Reads an answer for some of the steps: what can be used of it by step, and what is wrong with the rest.
        otherwise: What becomes of steps that stay without an answer, for a warning; none is given where it is empty.
        droppable: How many of the oldest steps may be left out in asking for a step.
        schema: JSON schema of the answer.
        choices: The only actions that may be generated.
        tools: Tools that the answer may call.
        salt: More of what makes up a request's seed.
    """

    what: str
    steps: Sequence[int]
    prompt: Callable[[list[int], int | None], list[Message]]
    read: Callable[[Completion, list[int]], tuple[dict[int, V], str]]
    otherwise: str = ""
    droppable: Callable[[int], int] = lambda step: step
    schema: dict[str, Any] | None = None
    choices: Sequence[str] | None = None
    tools: Sequence[ToolSpec] = ()
    salt: tuple[str, ...] = ()

    def fitting(self, wanted: list[int], fit: Fit) -> tuple[list[int], Fitted]:
        """The prompt for as many of the wanted steps as fit, and which these are.

        Raises:
            ContextTooLong: It does not fit even for a single step.
        """
        whole = self.prompt(wanted, None)
        if fit.fits(whole):
            return wanted, Fitted(whole, 0)
        while True:
            try:
                return wanted, fit.shortest(
                    lambda dropped, wanted=wanted: self.prompt(wanted, dropped),
                    self.droppable(wanted[0]),
                    self.what,
                    last_resort=len(wanted) == 1,
                )
            except ContextTooLong:
                if len(wanted) == 1:
                    raise
                wanted = wanted[: len(wanted) // 2]


class Asker:
    """Asks a model questions.

    Args:
        asking: How to ask.

    Attributes:
        dropped: Steps left out of prompts so far, over all answered calls.
    """

    def __init__(self, asking: Asking) -> None:
        self.dropped = 0
        self._asking = asking

    def fit(self, tools: Sequence[ToolSpec] = ()) -> Fit:
        """What keeps the prompts of one conversation short enough, and learns from it what that is."""
        return Fit(self._asking.limit, with_tools(self._asking.length, tools))

    async def asked(self, conversation: Conversation, question: Question[V], fit: Fit | None = None) -> dict[int, V]:
        """The usable answers by step. A step is asked for until there is one, as often as there are attempts; a prompt that the
        model refuses as too long is no attempt.

        Args:
            conversation: The conversation with the model.
            question: What to ask.
            fit: What an earlier question in the conversation has taught about the longest prompt.
        """
        answers: dict[int, V] = {}
        tries = dict.fromkeys(question.steps, 0)
        fit, call, problem = fit or self.fit(question.tools), 0, ""
        while wanted := [t for t in question.steps if t not in answers and tries[t] < self._asking.attempts]:
            if problem:
                log.info("%s: %s; asking again", question.what, problem)
            call += 1
            try:
                part, (messages, dropped) = question.fitting(wanted, fit)
            except ContextTooLong as error:
                problem = str(error)
                break
            seed = request_seed(self._asking.seed, *question.salt, messages, call)
            try:
                completion = await conversation.complete(
                    messages, seed=seed, choices=question.choices, schema=question.schema, tools=question.tools
                )
            except ContextTooLong as error:
                problem = str(error)
                fit.refused(messages)
                continue
            except ModelError as error:
                problem = str(error)
            else:
                self.dropped += dropped
                usable, problem = question.read(completion, part)
                answers |= usable
            for t in part:
                tries[t] += 1
        if len(answers) < len(tries):
            level = logging.WARNING if question.otherwise else logging.INFO
            log.log(level, "%s: %s; %s", question.what, problem, question.otherwise or "its correction is rejected")
        return answers


def request_seed(*parts: object) -> int:
    """A request's seed, from the recipe's seed, its own content and the attempt: a repeated request is the same request."""
    return int(content_key("request", *parts), 16) % 2**31


class UselessAnswers:
    """Ends a stage whose model never gives anything that can be used: each further task would be paid for nothing.

    Args:
        model: The model's name.

    Attributes:
        any_useful: Whether anything could be used so far.
    """

    def __init__(self, model: str) -> None:
        self.any_useful = False
        self._model = model
        self._useless = 0

    def count(self, useful: bool) -> None:
        """Counts a task by whether any answer about it could be used.

        Raises:
            ModelError: Nothing could be used of `MOST_USELESS` tasks.
        """
        self.any_useful = self.any_useful or useful
        self._useless += not useful
        if not self.any_useful and self._useless >= MOST_USELESS:
            raise ModelError(
                f"{self._model} gave no usable answer for any of {self._useless} episodes; the warnings above say why. "
                "Check the endpoint and its answers' longest length, or choose another model."
            )
