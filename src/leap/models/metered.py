"""Models whose calls go to the run's ledger, in whatever process they are made: paid ones through it, others to be read there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from leap.core import content_key
from leap.core.message import Message, ToolSpec
from leap.errors import ModelError, RecipeError
from leap.models.base import Completion, Conversation, Model, Request, Sampling
from leap.models.calls import UNPAID
from leap.models.ledger import Budget
from leap.models.prices import Prices


def check_price(name: str, prices: Prices, budget: Budget) -> None:
    """Refuses a model whose price is unknown where a cap in USD is set. Asked before anything is spent.

    Raises:
        RecipeError: The cap could not be kept.
    """
    if budget.usd is not None and prices.get(name) is None:
        raise RecipeError(
            f"budget.usd is set, but the price of {name} is not known, so the cap could not be kept. Add it to the "
            f"recipe, in USD per million tokens (`prices: {{{name}: {{input: 1.0, output: 2.0}}}}`; 0 for a server of "
            "your own), or cap tokens instead."
        )


class Booking(Protocol):
    """What models at endpoints need of a run's ledger. In the process that drives a run it is the `Ledger`; an executor whose
    workers call endpoints gives them one that passes everything on to that. Prices and budget are the recipe's.

    For each call that is paid for: `claim` its key (an answer on file ends it), `admit` it, `settle` what came of it, and
    `release` the key in any case; `note` one that costs nothing. See `Ledger` for what each does.
    """

    prices: Prices
    budget: Budget

    async def claim(self, key: str) -> Completion | None: ...

    async def admit(self, key: str) -> None: ...

    async def settle(
        self,
        key: str,
        name: str,
        completion: Completion,
        latency: float,
        error: str = "",
        request: Request | None = None,
    ) -> Completion: ...

    def release(self, key: str) -> None: ...

    def note(
        self, key: str, name: str, completion: Completion, latency: float, error: str, request: Request
    ) -> None: ...

    def unread(self, key: str, problem: str) -> None: ...


async def answered(
    ledger: Booking,
    key: str,
    name: str,
    ask: Callable[[], Awaitable[Completion]],
    gate: asyncio.Semaphore,
    request: Request,
) -> Completion:
    """A request's answer: from the file, or else asked for, booked and counted against the budget.

    Args:
        ledger: The run's ledger, or the way to it.
        key: Names the request by its content.
        name: `provider/model`.
        ask: Makes the call.
        gate: Calls wait here for a place, before the budget is asked: one that waits is not under way.
        request: What is asked, to be kept.

    Raises:
        BudgetReached: A cap is reached; no call may start any more. Those under way have ended and are booked.
        ModelError: The call failed for good.
    """
    if (on_file := await ledger.claim(key)) is not None:
        return on_file
    try:
        async with gate:
            await ledger.admit(key)
            began = time.monotonic()
            try:
                completion = await ask()
            except ModelError as error:
                failed = Completion("", *error.tokens)
                await ledger.settle(key, name, failed, time.monotonic() - began, str(error), request)
                raise
            return await ledger.settle(key, name, completion, time.monotonic() - began, request=request)
    finally:
        ledger.release(key)


class NotedModel(Model):
    """A model whose calls cost nothing, as one in this process, and are kept for people to read. Each is made, whatever is on
    file: an answer depends, in the last bits, on what else is in its batch.

    Args:
        model: Who answers.
        ledger: Where calls are kept.
    """

    def __init__(self, model: Model, ledger: Booking) -> None:
        self.name, self.room = model.name, model.room
        self.concurrency, self.calls_at_once = model.concurrency, model.calls_at_once
        self.in_process, self.constrains = model.in_process, model.constrains
        self.model, self.ledger = model, ledger

    @property
    def identity(self) -> str:
        return self.model.identity

    def length(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        return self.model.length(messages, tools)

    async def check(self) -> Completion | None:
        return await self.model.check()

    def unread(self, request: Request, problem: str) -> None:
        self.ledger.unread(self.request_key(request), problem)

    def request_key(self, asked: Request) -> str:
        """Names a request, so that its answer can be found again."""
        return f"{UNPAID}{content_key('call', list(asked.messages), asked.seed)}"

    async def answer(self, conversation: Conversation, request: Request) -> Completion:
        """Has a request answered in a conversation with the model."""
        note, began = partial(self.ledger.note, self.request_key(request), self.name), time.monotonic()
        try:
            completion = await conversation.complete(request)
        except ModelError as error:
            note(Completion("", 0, 0), time.monotonic() - began, str(error), request)
            raise
        note(completion, time.monotonic() - began, "", request)
        return completion

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        async with self.model.conversation() as conversation:
            yield _Through(self, conversation)

    def close(self) -> None:
        self.model.close()


class MeteredModel(NotedModel):
    """A model whose every call goes through a ledger: answered from it, or paid, booked and counted against the budget.

    Args:
        model: Who answers.
        sampling: How it draws its answers; part of what makes two requests the same.
        ledger: Where calls are booked.

    Raises:
        RecipeError: A cap in USD is set and the model's price is not known.
    """

    def __init__(self, model: Model, sampling: Sampling, ledger: Booking) -> None:
        check_price(model.name, ledger.prices, ledger.budget)
        super().__init__(model, ledger)
        self._gate: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None
        self._sampling = sampling.model_dump(mode="json")

    def gate(self) -> asyncio.Semaphore:
        """The places for calls, in the running event loop."""
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate[0] is not loop:
            self._gate = (loop, asyncio.Semaphore(self.calls_at_once or self.concurrency))
        return self._gate[1]

    def request_key(self, asked: Request) -> str:
        """Names a request by its content; not by what ends the answer, for an answer is the same up to there."""
        more = [list(asked.tools)] if asked.tools else []  # requests without these keep the keys that they always had
        more += [{"warmer": asked.warmer}] if asked.warmer else []
        more += [{"hot": asked.hot}] if asked.hot else []
        choices = None if asked.choices is None or not self.constrains else list(asked.choices)
        parts = (list(asked.messages), asked.seed, choices, asked.schema, *more)
        return content_key("call", self.identity, self._sampling, *parts)

    async def answer(self, conversation: Conversation, request: Request) -> Completion:
        ask = partial(conversation.complete, request)
        answer = await answered(self.ledger, self.request_key(request), self.name, ask, self.gate(), request)
        return answer.before(request.stop)


class _Through:
    def __init__(self, model: NotedModel, conversation: Conversation) -> None:
        self._model, self._conversation = model, conversation

    async def complete(self, request: Request) -> Completion:
        return await self._model.answer(self._conversation, request)
