"""`hf/PATH-or-name`: a Hugging Face causal LM in this process, batched, with each episode's prefix kept between steps.

Every open conversation has a row of the key-value cache. At each turn its prompt is compared with the tokens that are there;
what agrees is kept, the rest is computed. With the `dialogue` renderer that is nearly everything kept. New conversations that
begin alike compute the beginning once. Tokens of all conversations go through the network one behind the other
(`leap.models.rows`), so that none waits for a longer one, is padded or computed after its end. Where a constraint leaves one
token, it is taken without asking the network; how an answer goes on is guessed by the others (`leap.models.drafts`), so that one
forward gives several of its tokens.
Decoders whose layers see everything, a sliding window or a chunk are supported (Llama, Qwen, Mistral, Gemma, ...). When it is
loaded, each model shows that it answers from the cache as it does without; one that does not is refused.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from statistics import median
from typing import TYPE_CHECKING

import torch

from leap.core.message import Message, ToolSpec
from leap.errors import ContextTooLong, ModelError, PrerequisiteError, first_line
from leap.models.attention import FULL, SLIDING, check_kinds, layer_kinds, reaches, refusal, short_windows
from leap.models.base import Completion, Conversation, Model, Request, Sampling
from leap.models.chat import ChatTokens
from leap.models.checkpoints import context_of, end_tokens, load_causal_lm, model_identity, release_memory
from leap.models.constraint import ActionConstraint, ActionGrammar, AnswerConstraint
from leap.models.drafts import CONTEXT, Drafts
from leap.models.drawing import draw
from leap.models.json_constraint import JsonConstraint
from leap.models.rows import Feed, RowCache, attend_by_rows, feed_of, feeding
from leap.models.watch import Watch, check_order, distance

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


_WORTH_SHARING = 16
"""Tokens that conversations must have in common to be computed once for them."""
_TOKENS_AT_ONCE = {True: 512, False: 8192}
"""Tokens of a forward, on a CPU or not: more bring nothing, and take memory."""
_GUESSED = 7
"""Tokens of an answer that are guessed at once."""
_HARDLY_MORE = 128
"""Tokens of a forward that takes little longer than one of a single token: its time is that of reading the weights."""


def _cache_keyword(model: PreTrainedModel | PeftModel) -> str:
    """What this model's forward calls its cache: transformers renamed it within version 5."""
    whole = getattr(model, "get_base_model", lambda: model)()
    return "cache" if "cache" in inspect.signature(whole.forward).parameters else "past_key_values"


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts share from their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _drawn(turns: list[_Turn], logits: torch.Tensor) -> tuple[list[int], list[float]]:
    """One column for each turn; each token takes one number of the turn's own stream."""
    return draw(logits, [turn.temperature for turn in turns], [turn.random.random() for turn in turns])


@dataclass(eq=False, slots=True)
class _Seat:
    """One conversation: its row of the cache, the tokens that are in it, and how many of its next answer are guessed at once."""

    model: HFModel
    row: int
    tokens: list[int] = field(default_factory=list)
    guessed: int = _GUESSED

    async def complete(self, request: Request) -> Completion:
        """Answers a request, in one batch with those of the other conversations."""
        return await self.model.submit(self, request)


@dataclass(eq=False, slots=True)
class _Turn:
    seat: _Seat
    ids: list[int]
    tools: Sequence[ToolSpec]
    random: random.Random
    constraint: ActionConstraint | AnswerConstraint | JsonConstraint | None
    future: asyncio.Future[Completion]
    temperature: float = 0.0
    stop: Sequence[str] = ()
    thinking: bool | None = None
    kept: int = 0
    generated: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False


class HFModel(Model):
    """A causal LM in this process.

    Args:
        path: Checkpoint directory or hub name.
        sampling: How answers are drawn.
        batch: Conversations held at once.
        dtype: Weights' type; "auto" takes the checkpoint's.
        device: Torch device; the best there is by default.

    Attributes:
        network: The loaded model.
        chat: Its tokenizer and chat template.
    """

    in_process = True
    constrains = True

    def __init__(
        self, path: str, sampling: Sampling, *, batch: int = 64, dtype: str = "auto", device: str | None = None
    ) -> None:
        self.name = f"hf/{path}"
        self.concurrency = batch
        self.sampling = sampling
        self.network, tokenizer = load_causal_lm(path, dtype=dtype, device=device, merge=True)
        self.network.eval()
        self._device = next(self.network.parameters()).device
        self._cache_keyword = _cache_keyword(self.network)
        self.chat = ChatTokens(tokenizer, end_tokens(path))
        self._grammar = ActionGrammar(self.chat)
        self._limit = context_of(self.network.config)
        self.room = self._limit - sampling.max_tokens
        self._seats: list[_Seat] = []
        self._pending: list[_Turn] = []
        self._cache, self._drafts = RowCache(), Drafts()
        self._by_rows = attend_by_rows(getattr(self.network, "get_base_model", lambda: self.network)())
        self._check_cache()
        release_memory()

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        seat = _Seat(self, len(self._seats))
        self._seats.append(seat)
        try:
            yield seat
        finally:
            self._leave(seat)
            self._pending = [request for request in self._pending if request.seat is not seat]  # of a cancelled episode
            self._schedule()

    def _leave(self, seat: _Seat) -> None:
        """Closes a conversation. The last row takes the place of its own: those in use stay side by side."""
        self._seats.remove(seat)
        last = max(self._seats, key=lambda other: other.row, default=None)
        if last is None:  # what comes next depends on nothing that was before
            self._cache, self._drafts = RowCache(), Drafts()
        elif last.row > seat.row:
            if last.tokens:
                self._cache.copy(last.row, seat.row, len(last.tokens))
            last.row = seat.row

    @property
    def identity(self) -> str:
        """The weights, by their content: a path may hold others tomorrow, or in another folder."""
        return model_identity(self.name)

    def length(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        return self.chat.length(messages, tools)

    def apart(self) -> HFModel:
        """The same weights for conversations of their own, which are answered in batches of their own."""
        other = copy(self)
        other._seats, other._pending, other._cache, other._drafts = [], [], RowCache(), Drafts()
        return other

    def close(self) -> None:
        self._cache = RowCache()
        for seat in self._seats:
            seat.tokens = []

    def submit(self, seat: _Seat, request: Request) -> asyncio.Future[Completion]:
        """Queues a request; the batch runs when every open conversation has asked."""
        ids = self.chat.prompt(request.messages, request.tools, request.thinking)
        if len(ids) + self.sampling.max_tokens > self._limit:
            raise ContextTooLong(
                f"the prompt has {len(ids)} tokens; with the answer that exceeds the model's {self._limit}"
            )
        constraint = None
        if request.answers:
            how = request.messages, request.tools, request.thinking
            constraint = AnswerConstraint((self.chat.completion(one, *how) for one in request.answers), self.chat.end_of_turn)
        elif request.choices:
            constraint = ActionConstraint(self._grammar, request.choices, self.sampling, request.thinking)
        elif request.schema is not None:
            with suppress(ValueError):  # a schema that cannot be held to here is a wish
                constraint = JsonConstraint(self._grammar, request.schema, request.thinking)
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        turn = _Turn(seat, ids, request.tools, random.Random(request.seed), constraint, future)
        turn.thinking = request.thinking
        turn.temperature, turn.stop = request.temperature(self.sampling.temperature), request.stop
        self._pending.append(turn)
        self._schedule()
        return future

    def _schedule(self) -> None:
        # Not at once: conversations that start in the same turn of the event loop belong in the same batch.
        asyncio.get_running_loop().call_soon(self._run_if_all_asked)

    def _run_if_all_asked(self) -> None:
        if not self._pending or len(self._pending) < len(self._seats):
            return
        requests = sorted(self._pending, key=lambda request: self._seats.index(request.seat))
        self._pending = []
        try:
            self.answer_batch(requests)
        except Exception as error:  # out of memory, a bad shape: these episodes fail, the run goes on
            self.close()
            for request in requests:
                if not request.future.done():
                    request.future.set_exception(ModelError(f"generation failed: {first_line(error)}"))

    @torch.inference_mode()
    def answer_batch(self, requests: list[_Turn]) -> None:
        """Generates the answers of requests that wait, all at once, and hands each to who asked."""
        self._keep_prefixes(requests)
        live = requests
        while live:
            guesses = [self._guess(turn, max(turn.seat.guessed, _HARDLY_MORE // len(live) - 1)) for turn in live]
            texts = [(turn.seat, turn.ids + turn.generated + guess) for turn, guess in zip(live, guesses, strict=True)]
            self._go_on(live, guesses, self._feed(texts, [1 + len(guess) for guess in guesses]))
            live = [turn for turn in live if not self._over(turn)]
        for request in requests:
            whole = request.ended or (request.constraint is not None and request.constraint.complete)
            if not request.future.done():  # its episode may have been cancelled meanwhile
                begin = request.constraint.thought if request.constraint else 0
                said = self.chat.said(request.generated[begin:], request.tools, None if begin else request.thinking)
                request.future.set_result(
                    Completion(
                        said.answer,
                        len(request.ids),
                        len(request.generated),
                        cached_tokens=request.kept,
                        truncated=not whole,
                        tokens=tuple(request.generated),
                        logprobs=tuple(request.logprobs),
                        thought=said.thought,
                    ).before(request.stop)
                )

    def _guess(self, turn: _Turn, most: int) -> list[int]:
        """How an answer probably goes on, without its end: behind that nothing is asked."""
        most = min(most, self.sampling.max_tokens - len(turn.generated) - 1)
        guess = self._drafts.guess(turn.ids[-CONTEXT:] + turn.generated[-CONTEXT:], most)
        return guess[:-1] if guess and guess[-1] in self.chat.ends else guess

    def _go_on(self, turns: list[_Turn], guesses: list[list[int]], logits: list[torch.Tensor]) -> None:
        """Draws a token for each turn, and further ones as long as they are those that were guessed.

        Args:
            turns: Whose answers are not at their ends.
            guesses: What was fed of each behind its last token.
            logits: What the network says behind that token and behind each that was guessed.
        """
        begins = [len(turn.generated) for turn in turns]
        going = list(range(len(turns)))
        while going:
            rows = [logits[k][len(turns[k].generated) - begins[k]] for k in going]
            self._choose([turns[k] for k in going], torch.stack(rows))
            going = [
                k
                for k in going
                if not self._over(turns[k]) and (new := turns[k].generated[begins[k] :]) == guesses[k][: len(new)]
            ]
        for turn, guess, begin in zip(turns, guesses, begins, strict=True):
            right = _alike(guess, turn.generated[begin:])
            del turn.seat.tokens[len(turn.ids) + begin + right :]
            if guess:  # of texts that do not repeat little is computed in vain
                turn.seat.guessed = min(_GUESSED, 2 * right + 1)
            before = turn.ids[-CONTEXT:]
            self._drafts.learn(before + turn.generated, len(before) + begin)

    def _keep_prefixes(self, requests: list[_Turn]) -> None:
        """Drops from the cache what the new prompts do not share with it, and has new conversations begin with what an
        earlier row begins with, too."""
        self._cache.reserve(len(self._seats), max(len(turn.ids) for turn in requests) + self.sampling.max_tokens)
        for turn in requests:
            del turn.seat.tokens[_alike(turn.seat.tokens, turn.ids[:-1]) :]  # at least one token must be fed
        self._share_beginnings([turn for turn in requests if not turn.seat.tokens])
        for turn in requests:
            turn.kept = len(turn.seat.tokens)

    def _share_beginnings(self, new: list[_Turn]) -> None:
        """Computes once what new conversations have in common with each other or with earlier ones."""
        known = [(-1, seat, seat.tokens) for seat in self._seats if seat.tokens]
        plan: list[tuple[int, _Turn, _Seat, int]] = []  # in which round a row is given so many tokens of which other one
        for turn in new:
            most, late, donor = 0, -1, turn.seat
            for when, seat, tokens in known:
                if (alike := _alike(tokens, turn.ids[:-1])) > most:
                    most, late, donor = alike, when, seat
            if most < _WORTH_SHARING:
                most, late = 0, -1
            plan.append((late + 1, turn, donor, most))
            known.append((late + 1, turn.seat, turn.ids[:-1]))
        donors = {id(donor) for *_, donor, most in plan if most}
        for now in range(1 + max((when for when, *_ in plan), default=0)):
            for when, turn, donor, most in plan:
                if when == now and most:
                    self._begin_as(turn.seat, donor, most)
            if computed := [turn for when, turn, *_ in plan if when == now and id(turn.seat) in donors]:
                self._feed([(turn.seat, turn.ids[:-1]) for turn in computed], [1] * len(computed))

    def _begin_as(self, seat: _Seat, donor: _Seat, tokens: int) -> None:
        """Has a row begin with another one's first tokens."""
        self._cache.copy(donor.row, seat.row, tokens)
        seat.tokens = donor.tokens[:tokens]

    def _feed(self, texts: Sequence[tuple[_Seat, list[int]]], asked: Sequence[int]) -> list[torch.Tensor]:
        """Computes what of conversations' tokens is not in the cache, in forwards of bounded size; returns the logits [asked,
        vocabulary] behind each one's last tokens, as many as are asked for."""
        most = _TOKENS_AT_ONCE[self._device.type == "cpu"]
        new = {k: ids[len(seat.tokens) :] for k, (seat, ids) in enumerate(texts)}
        groups: list[list[int]] = []
        order = sorted(new, key=lambda k: len(new[k])) if sum(map(len, new.values())) > most else list(new)
        for k in order:  # rows of about the same length are together
            last = groups[-1] if groups and self._by_rows else []
            if not last or sum(len(new[j]) for j in (*last, k)) > most:
                groups.append([k])
            else:
                last.append(k)
        logits: dict[int, torch.Tensor] = {}
        for group in groups:
            counts = [asked[k] for k in group]
            found = self._forward([texts[k][0] for k in group], [new[k] for k in group], counts)
            logits |= zip(group, found.split(counts), strict=True)
        return [logits[k] for k in new]

    def _masks(self, feed: Feed) -> torch.Tensor | dict[str, torch.Tensor]:
        """The mask [rows, 1, columns, slots] of a feed's tokens, for each kind of layer if there are several."""
        config = self.network.config
        positions, keys = feed.padded(feed.positions)[:, :, None], torch.arange(feed.slots, device=self._device)
        masks: dict[str, torch.Tensor] = {FULL: keys <= positions}
        for kind, reach in reaches(config).items():
            near = positions - keys < reach if kind == SLIDING else positions // reach == keys // reach
            masks[kind] = masks[FULL] & near
        # Numbers to add, which every attention takes: of truth values sdpa would make them anew for each layer.
        none = torch.zeros((), dtype=self.network.dtype, device=self._device)
        masks = {kind: torch.where(mask, none, torch.finfo(none.dtype).min)[:, None] for kind, mask in masks.items()}
        kinds = set(layer_kinds(config))
        return {kind: masks[kind] for kind in kinds} if len(kinds) > 1 else masks[kinds.pop()]

    def _forward(self, seats: Sequence[_Seat], new: Sequence[list[int]], asked: Sequence[int]) -> torch.Tensor:
        """Computes more tokens of conversations; returns the logits [all that are asked for, vocabulary] behind each one's last
        ones."""
        rows = len(self._seats) if self._by_rows else None
        before, counts = [len(seat.tokens) for seat in seats], [len(tokens) for tokens in new]
        feed = feed_of([seat.row for seat in seats], before, counts, rows, self._cache, self._device)
        ends = [at for end, count in zip(accumulate(counts), asked, strict=True) for at in range(end - count, end)]
        with feeding(feed):
            output = self.network(
                input_ids=torch.tensor([[token for tokens in new for token in tokens]], device=self._device),
                position_ids=feed.positions[None],
                attention_mask=self._masks(feed),
                use_cache=True,
                logits_to_keep=torch.tensor(ends, device=self._device),
                **{self._cache_keyword: self._cache},
            )
        for seat, tokens in zip(seats, new, strict=True):
            seat.tokens += tokens
        return output.logits[0]

    @torch.inference_mode()
    def _check_cache(self) -> None:
        """Refuses a model whose answers from the cache are not those of plain forwards: a few tokens of two conversations of
        different lengths, in two turns, with windows short enough to matter.

        Raises:
            PrerequisiteError: They are not; the message names the first layer that differs.
        """
        check_kinds(self.network.config, self.name)
        text = self.chat.prompt([{"role": "user", "content": "You see a desk 1, a drawer 2 and a mug 3."}])
        row = (text * 30)[: min(30, self._limit)]
        rows = [row, row[::-1][: max(2, len(row) * 2 // 3)]]
        watch = Watch(self.network)
        plain: list[list[torch.Tensor]] = []
        apart: list[list[float]] = []
        try:
            with short_windows(self.network.config, 4):
                for one in rows:
                    logits = self.network(input_ids=torch.tensor([one], device=self._device), use_cache=False).logits
                    plain.append([states[0] for states in watch.take(logits)])
                self._seats = [_Seat(self, 0), _Seat(self, 1)]
                self._cache.reserve(2, len(row))
                for fed in check_order([len(one) for one in rows]):
                    for pieces in [fed] if self._by_rows else [[piece] for piece in fed]:
                        new = [rows[k][start:stop] for k, start, stop in pieces]
                        for k, start, _ in pieces:
                            del self._seats[k].tokens[start:]
                        logits = self._forward([self._seats[k] for k, *_ in pieces], new, [1] * len(new))
                        *states, last = watch.take(logits)
                        for at, ((k, _, stop), end) in enumerate(zip(pieces, accumulate(map(len, new)), strict=True)):
                            here = [*(layer[0, end - 1] for layer in states), last[at]]
                            apart.append([distance(b[stop - 1], a) for a, b in zip(here, plain[k], strict=True)])
        except Exception as error:  # an architecture may fail in any way when it is used otherwise than it knows
            why = f"{watch.name()} does not work with this cache ({first_line(error)})"
            raise PrerequisiteError(refusal(self.name, why)) from error
        finally:
            watch.close()
            self.close()
            self._seats = []
        # In half precision a mixture of experts may send a single token elsewhere; a wrong mask shows at nearly all.
        half = self.network.dtype.itemsize < 4
        of_layers = [(median(errors) if half else max(errors)) for errors in zip(*apart, strict=True)]
        wrong = [not error <= (0.2 if half else 5e-3) for error in of_layers]
        if not all(bool(states[-1].isfinite().all()) for states in plain):
            raise PrerequisiteError(f"{self.name} gives numbers that are not finite: its weights are damaged.")
        if wrong[-1]:
            where = watch.name(wrong.index(True))
            raise PrerequisiteError(refusal(self.name, f"{where} answers otherwise from a cache than without one"))

    def _choose(self, turns: list[_Turn], logits: torch.Tensor) -> None:
        """Draws one token for each turn, and takes those that a constraint leaves no choice of."""
        free: dict[int, tuple[list[int], list[int]]] = {}  # rows by the tokens that they may not take
        among: dict[int, list[int]] = {}  # rows by the only ones that they may
        for row, turn in enumerate(turns):
            allowed = turn.constraint.allowed() if turn.constraint is not None else None
            if allowed is not None:
                among[row] = sorted(allowed)
            else:
                forbidden = turn.constraint.forbidden() if turn.constraint is not None else []
                free.setdefault(id(forbidden), (forbidden, []))[1].append(row)
        for forbidden, rows in free.values():
            if forbidden:
                logits[torch.tensor(rows)[:, None], torch.tensor(forbidden)] = -torch.inf
        if rows := [row for _, rows in free.values() for row in rows]:
            whole = logits if len(rows) == len(turns) else logits[rows]
            some = turns if len(rows) == len(turns) else [turns[row] for row in rows]
            for turn, token, logprob in zip(some, *_drawn(some, whole), strict=True):
                self._take(turn, token, logprob)
        if among:
            width = max(map(len, among.values()))
            table = torch.tensor(
                [[*allowed, *[-1] * (width - len(allowed))] for allowed in among.values()], device=logits.device
            )
            only = logits[torch.tensor(list(among), device=logits.device)[:, None], table].masked_fill(
                table < 0, -torch.inf
            )
            some = [turns[row] for row in among]
            for turn, allowed, at, logprob in zip(some, among.values(), *_drawn(some, only), strict=True):
                self._take(turn, allowed[at], logprob)

    def _stops(self, turn: _Turn) -> bool:
        """Whether a text that ends the answer stands in it."""
        said = Completion(self.chat.said(turn.generated, turn.tools, turn.thinking).answer, 0, 0)
        return said.before(turn.stop) is not said

    def _over(self, turn: _Turn) -> bool:
        """Whether an answer has ended or used its tokens."""
        return turn.ended or len(turn.generated) >= self.sampling.max_tokens

    def _take(self, turn: _Turn, token: int, logprob: float) -> None:
        """Takes in the token that was drawn, and those that a constraint leaves no choice of behind it."""
        while True:
            turn.generated.append(token)
            turn.logprobs.append(logprob)
            if turn.constraint is None:
                turn.ended = token in self.chat.ends or (bool(turn.stop) and self._stops(turn))
                return
            turn.constraint.advance(token)
            turn.ended = token == self.chat.end_of_turn
            allowed = None if self._over(turn) else turn.constraint.allowed()
            if allowed is None or len(allowed) > 1:
                return
            turn.random.random()  # each token has a number of its own, so that the later ones' are the same either way
            token, logprob = allowed[0], 0.0
