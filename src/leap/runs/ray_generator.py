"""Generators: actors on Ray that answer for the student, as by a GPU, where environments are held by workers placed apart from
them. What crosses is prompts and answers: those of all conversations of a worker that wait, at once, so that a model that
answers in batches answers the same batches as in the worker's own process.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from leap import __version__
from leap.core.message import Message, ToolSpec
from leap.envs.base import Environment
from leap.errors import ContextTooLong, LeapError
from leap.models.base import Completion, Conversation, Model, Request
from leap.recipe import Recipe
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.runs.ray_desk import Copies, settle_in, told
from leap.runs.shards import Shard

if TYPE_CHECKING:
    from leap.models.chat import ChatTokens


class Card(NamedTuple):
    """What a worker must know of a model that a generator holds; see `Model`."""

    name: str
    identity: str
    concurrency: int
    in_process: bool
    room: int | None


class Generator:
    """An actor that holds the student's present weights.

    Args:
        desk: Name of the desk.
        *like: See `settle_in`.
    """

    def __init__(self, desk: str, *like: Any) -> None:
        import ray

        settle_in(*like)
        self._copies = Copies(ray.get_actor(desk))
        self._actors: Actors | None = None
        self._opening = asyncio.Lock()
        self._model: Model | None = None
        self._lanes: dict[str, _Lane] = {}

    async def ready(self) -> str:
        """Version of leap, from a generator that lives."""
        return __version__

    async def look(self, recipe: Recipe, modules: Sequence[str]) -> str:
        """Looks for the student's base; says what is wrong with it. A generator needs no modules."""
        from leap.models.checking import check_checkpoint

        try:
            if not recipe.student.from_scratch:
                check_checkpoint(recipe.student.base)
        except LeapError as error:
            return str(error)
        return ""

    async def open(self, lane: str, shard: Shard, sign: str, i: int, temperature: float) -> tuple[bool, Any]:
        """Opens pi_i for a worker.

        Args:
            lane: Names the worker.
            shard: What it works on, without the items.
            sign: A file that lies in the run directory.
            i, temperature: Which student, and how it samples.

        Returns:
            Whether it is open, and its card or the error.
        """
        async with self._opening:
            try:
                model = await asyncio.to_thread(self._opened, shard, sign, i, temperature)
            except LeapError as error:
                return False, error
        if model is not self._model:
            self._model, self._lanes = model, {}
        self._lanes[lane] = _Lane(model)
        return True, Card(model.name, model.identity, model.concurrency, model.in_process, model.room)

    def _opened(self, shard: Shard, sign: str, i: int, temperature: float) -> Model:
        here = self._copies.here(shard, sign)
        if self._actors is None or self._actors.recipe != here.recipe:
            self.close()
            # Nothing is played here, so there is no environment.
            self._actors = Actors(here.recipe, RunDirectory(here.root), cast(Environment, None))
        return self._actors.student_model(i, temperature)

    async def answer(
        self, lane: str, present: Sequence[int], asked: Mapping[int, Request]
    ) -> list[Completion | LeapError] | None:
        """Answers to requests of a worker, or the errors in their place; None where the model is not open for it any more.

        Args:
            lane: Names the worker.
            present: Its open conversations, oldest first.
            asked: The requests by conversation: of a model that answers all at once those of all that are open.
        """
        return await self._lanes[lane].answer(present, asked) if lane in self._lanes else None

    def close(self) -> None:
        """Frees the weights."""
        self._model, self._lanes = None, {}
        if self._actors is not None:
            self._actors.close()

    async def leave(self) -> None:
        """Frees weights, stops servers, and removes what was copied. The generator is ended then."""
        self.close()
        self._copies.remove()


class _Lane:
    """A worker's conversations with the student."""

    def __init__(self, model: Model) -> None:
        from leap.models.hf import HFModel

        self._model = model.apart() if isinstance(model, HFModel) else model
        self._seats: dict[int, tuple[AsyncExitStack, Conversation]] = {}

    async def answer(self, present: Sequence[int], asked: Mapping[int, Request]) -> list[Completion | LeapError]:
        for gone in self._seats.keys() - set(present):
            await self._seats.pop(gone)[0].aclose()
        for new in present:
            if new not in self._seats:
                stack = AsyncExitStack()
                self._seats[new] = (stack, await stack.enter_async_context(self._model.conversation()))
        return await asyncio.gather(*(self._complete(self._seats[seat][1], request) for seat, request in asked.items()))

    async def _complete(self, conversation: Conversation, request: Request) -> Completion | LeapError:
        try:
            return await conversation.complete(request)
        except LeapError as error:
            return error


# ---- in a worker -----------------------------------------------------------------------------------------------------------


def open_far(generator: str, shard: Shard, sign: str, i: int, path: str, temperature: float) -> FarModel:
    """pi_i as a generator holds it.

    Args:
        generator: Its name.
        shard, sign: What this worker works on; see `Worker.work`.
        i, temperature: Which student, and how it samples.
        path: Where its checkpoint is on this machine.

    Raises:
        LeapError: It cannot be opened.
    """
    import ray

    lane = ray.get_runtime_context().get_actor_id() or ""
    actor = ray.get_actor(generator)
    with _or_end():
        card = told(*ray.get(actor.open.remote(lane, replace(shard, items=(), keys=(), done=frozenset()), sign, i, temperature)))
    return FarModel(actor, lane, card, path)


class FarModel(Model):
    """A model that a generator holds. Requests of conversations that are answered together go there together.

    Args:
        generator: The actor.
        lane: Names this worker.
        card: What it says of the model.
        path: The checkpoint on this machine, for its tokens.
    """

    constrains = True

    def __init__(self, generator: Any, lane: str, card: Card, path: str) -> None:
        self._generator, self._lane, self._card, self._path = generator, lane, card, path
        self.name, self.concurrency, self.in_process, self.room = card.name, card.concurrency, card.in_process, card.room
        self._numbers, self._present = itertools.count(), list[int]()
        self._asked = dict[int, tuple[Request, asyncio.Future[Completion]]]()
        self._sent = set[asyncio.Task[None]]()

    @property
    def identity(self) -> str:
        return self._card.identity

    @cached_property
    def _chat(self) -> ChatTokens:
        from leap.models.checkpoints import load_chat

        return load_chat(self._path)[0]

    def length(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        return self._chat.length(messages, tools)

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        seat = next(self._numbers)
        self._present.append(seat)
        try:
            yield _Seat(self, seat)
        finally:
            self._present.remove(seat)
            self._asked.pop(seat, None)  # of a cancelled episode
            self._schedule()

    async def submit(self, seat: int, request: Request) -> Completion:
        """Sends a request: at once, or when every open conversation has asked if they are answered together."""
        if not self.in_process:
            [answer] = await self._ask([seat], {seat: request})
            return told(not isinstance(answer, LeapError), answer)
        if self.room is not None:  # the others would wait for one that is refused
            tokens = len(self._chat.prompt(request.messages, request.tools, request.thinking))
            if tokens > self.room:
                raise ContextTooLong(f"the prompt has {tokens} tokens, and the model takes {self.room} before an answer")
        answered = asyncio.get_running_loop().create_future()
        self._asked[seat] = (request, answered)
        self._schedule()
        return await answered

    def _schedule(self) -> None:
        # Not at once: conversations that start in the same turn of the event loop belong in the same batch.
        asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        if not self._asked or len(self._asked) < len(self._present):
            return
        asked, self._asked = self._asked, {}
        sent = asyncio.get_running_loop().create_task(self._answer(tuple(self._present), asked))
        self._sent.add(sent)
        sent.add_done_callback(self._sent.discard)

    async def _answer(
        self, present: Sequence[int], asked: Mapping[int, tuple[Request, asyncio.Future[Completion]]]
    ) -> None:
        requests = {seat: asked[seat][0] for seat in present}
        answers: Sequence[Completion | Exception]
        try:
            answers = await self._ask(present, requests)
        except Exception as error:  # nobody waits for this task: whoever asked is to hear of it
            answers = [error] * len(requests)
        for seat, answer in zip(requests, answers, strict=True):
            waiting = asked[seat][1]
            if not waiting.done():  # its episode may have been cancelled meanwhile
                waiting.set_exception(answer) if isinstance(answer, Exception) else waiting.set_result(answer)

    async def _ask(self, present: Sequence[int], requests: Mapping[int, Request]) -> list[Completion | LeapError]:
        with _or_end():
            answers = await self._generator.answer.remote(self._lane, present, requests)
            if answers is None:
                raise _Gone
        return answers


class _Seat(NamedTuple):
    """One conversation."""

    model: FarModel
    number: int

    async def complete(self, request: Request) -> Completion:
        """See `Conversation.complete`."""
        return await self.model.submit(self.number, request)


class _Gone(Exception):
    """A generator has begun anew."""


@contextmanager
def _or_end() -> Iterator[None]:
    """Ends this worker where its generator has gone: both begin anew, and the shard in hand is given out again."""
    from ray.exceptions import RayActorError

    try:
        yield
    except (RayActorError, _Gone):
        os._exit(1)
