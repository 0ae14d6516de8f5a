"""Asking a model about an episode until nothing is missing: what is usable is kept, only the rest is asked for again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, TypeVar

from leap.core import seed_of
from leap.core.message import Message, ToolSpec, with_tools
from leap.errors import ContextTooLong, ModelError, ModelRefused
from leap.models.base import Completion, Conversation, Model, Request, Schema
from leap.policies.fitting import Fit, Fitted

log = logging.getLogger(__name__)

V = TypeVar("V")

_WARMER = 0.3  # per answer that could not be read: at temperature 0 the same answer would come again


@dataclass(frozen=True)
class Question(Generic[V]):
    """What a model is asked about steps of an episode.

    Attributes:
        task: The task's id.
        prompt: Makes the prompt for some steps without so many of the oldest; None in place of the number shows everything.
        read: Reads an answer for some steps: what can be used of it by step, and what is wrong with the rest.
        otherwise: What becomes of steps that stay without an answer, for the log.
        level: How loudly the log says so.
        keeps_first: Whether the first of all steps is never left out.
        salt: More of what makes up a request's seed.
        schema: Makes the JSON schema of an answer for some steps, where there is one.
        longest: The recipe's key that says how long an answer may be.
        step: The step that it is about, where that is one.
        choices, tools, thinking, hot: As of a `Request`.
    """

    task: str
    prompt: Callable[[list[int], int | None], list[Message]]
    read: Callable[[Completion, list[int]], tuple[dict[int, V], str]]
    otherwise: str
    level: int = logging.WARNING
    keeps_first: bool = False
    salt: Sequence[str] = ()
    schema: Callable[[list[int]], Schema] | None = None
    longest: str = "sampling.max_tokens"
    choices: Sequence[str] | None = None
    tools: Sequence[ToolSpec] = ()
    step: int | None = None
    thinking: bool | None = None
    hot: float = 0.0

    @property
    def name(self) -> str:
        """Names it in the log."""
        return f"task {self.task}" if self.step is None else f"task {self.task}, step {self.step}"


_failed: ContextVar[list[str] | None] = ContextVar("failed", default=None)


@contextmanager
def failed_calls() -> Iterator[list[str]]:
    """Gives a list that takes, of each question within that stays without an answer since a call failed, what the call said.
    Asked another time, such a question may well be answered."""
    errors: list[str] = []
    before = _failed.set(errors)
    try:
        yield errors
    finally:
        _failed.reset(before)


def shorter(*limits: int | None) -> int | None:
    """The least of the limits there are; None if there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


class Asker:
    """Asks a model about steps of episodes.

    Args:
        model: The model.
        limit: Longest prompt, where the model has room for more; the oldest steps are left out of longer ones.
        attempts: How often a missing answer is asked for.
        seed: Seed of the requests.

    Attributes:
        dropped: Steps left out of prompts so far, over all answered calls.
        cut_off: Answers so far that ended for want of tokens, before all that was asked for could be read.
        last: Text of the last answer.
    """

    def __init__(self, model: Model, *, limit: int | None = None, attempts: int = 3, seed: int = 0) -> None:
        self.dropped = self.cut_off = 0
        self.last = ""
        self._model = model
        self._limit = shorter(limit, model.room)
        self._attempts = attempts
        self._seed = seed

    def fit(self, tools: Sequence[ToolSpec] = ()) -> Fit:
        """What keeps the prompts of one conversation short enough, and learns from it what that is."""
        return Fit(self._limit, with_tools(self._model.length, tools))

    async def ask(
        self, conversation: Conversation, question: Question[V], steps: Sequence[int], fit: Fit | None = None
    ) -> dict[int, V]:
        """The usable answers by step. A step is asked for until there is one, as often as there are attempts; a prompt that the
        model refuses as too long is no attempt. Where an answer could not be read, the next is drawn at a higher temperature.

        Args:
            conversation: The conversation with the model.
            question: What to ask.
            steps: The steps to answer for.
            fit: What an earlier question in the conversation has taught about the longest prompt.
        """
        answers: dict[int, V] = {}
        tries, unread, failed = dict.fromkeys(steps, 0), dict.fromkeys(steps, 0), dict[int, str]()
        fit, call, problem = fit or self.fit(), 0, ""
        while wanted := [t for t in steps if t not in answers and tries[t] < self._attempts]:
            if problem:
                log.info("%s: %s; asking again", question.name, problem)
            call += 1
            try:
                part, (messages, dropped) = _fitting(question, wanted, fit)
            except ContextTooLong as error:
                problem = str(error)
                break
            seed = seed_of("request", self._seed, *question.salt, messages, call)
            schema, warmer = question.schema and question.schema(part), _WARMER * max(unread[t] for t in part)
            request = Request(
                messages,
                seed,
                question.choices,
                schema,
                question.tools,
                warmer=warmer,
                hot=question.hot,
                task=question.task,
                step=question.step,
                thinking=question.thinking,
            )
            try:
                completion = await conversation.complete(request)
            except ContextTooLong as error:
                problem = str(error)
                fit.refused(messages)
                continue
            except ModelError as error:
                problem = str(error)
                if not isinstance(error, ModelRefused):
                    failed |= dict.fromkeys(part, problem)
                    call -= 1  # made again as it was, so that the answer is the one of a run in which it did not fail
            else:
                self.dropped += dropped
                self.last = completion.text
                usable, problem = question.read(completion, part)
                answers |= usable
                for t in part:
                    unread[t] += 1
                if completion.truncated and len(usable) < len(part):
                    self.cut_off += 1
                    tokens = f"{completion.completion_tokens} tokens; raise {question.longest}"
                    problem = f"the answer of {self._model.name} was cut off after {tokens}"
                if problem:
                    self._model.unread(request, problem)
            for t in part:
                tries[t] += 1
        if (errors := _failed.get()) is not None:
            errors += [error for t, error in failed.items() if t not in answers]
        if len(answers) < len(tries):
            log.log(question.level, "%s: %s; %s", question.name, problem, question.otherwise)
        return answers


def _fitting(question: Question[V], wanted: list[int], fit: Fit) -> tuple[list[int], Fitted]:
    """The prompt for as many of the wanted steps as fit, and which these are.

    Raises:
        ContextTooLong: It does not fit even for a single step.
    """
    prompt = question.prompt
    whole = prompt(wanted, None)
    if fit.fits(whole):
        return wanted, Fitted(whole, 0)
    while True:
        part, alone = wanted, len(wanted) == 1
        most = max(part[0] - 1, 0) if question.keeps_first else part[0]
        try:
            return part, fit.shortest(lambda dropped, part=part: prompt(part, dropped), most, question.name, last_resort=alone)
        except ContextTooLong:
            if alone:
                raise
            wanted = wanted[: len(wanted) // 2]
