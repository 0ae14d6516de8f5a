"""`hf/PATH-or-name`: a Hugging Face causal LM in this process, batched, with each episode's prefix kept between steps.

Every open conversation is a row of one batch. At each turn a row's prompt is compared with the tokens already in its
key-value cache; what agrees is kept, the rest is computed. With the `dialogue` renderer that is nearly everything.
Decoders whose layers see everything, a sliding window or a chunk are supported (Llama, Qwen, Mistral, Gemma, ...). When it is
loaded, each model shows that it answers from the cache as it does without; one that does not is refused.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from statistics import median
from typing import TYPE_CHECKING, cast

import torch

from leap.core.message import Message, ToolSpec
from leap.errors import ContextTooLong, ModelError, ModelRefused, PrerequisiteError
from leap.models.attention import FULL, SLIDING, check_kinds, layer_kinds, reaches, refusal, short_windows
from leap.models.base import Completion, Conversation, Model, Request, Sampling
from leap.models.chat import ChatTokens, first_line
from leap.models.checkpoints import context_of, end_tokens, load_causal_lm, model_identity
from leap.models.constraint import ActionConstraint, ActionGrammar

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def _cache_keyword(model: PreTrainedModel | PeftModel) -> str:
    """What this model's forward calls its cache: transformers renamed it within version 5."""
    whole = getattr(model, "get_base_model", lambda: model)()
    return "cache" if "cache" in inspect.signature(whole.forward).parameters else "past_key_values"


class SlotCache:
    """Keys and values of a batch in preallocated buffers, written in place; speaks the part of transformers' cache
    interface that attention layers use. Rows are independent: a mask says which slots of a row are valid."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.length = 0

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes [rows, heads, q, d] behind what is there; returns all of it."""
        stop = self.length + key.shape[2]
        if layer_idx == len(self.keys):
            self.keys.append(key.new_empty((*key.shape[:2], 64, key.shape[3])))
            self.values.append(value.new_empty((*value.shape[:2], 64, value.shape[3])))
        for store, new in ((self.keys, key), (self.values, value)):
            if store[layer_idx].shape[2] < stop:
                store[layer_idx] = _grown(store[layer_idx], self.length, stop)
            store[layer_idx][:, :, self.length : stop] = new
        return self.keys[layer_idx][:, :, :stop], self.values[layer_idx][:, :, :stop]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Slots in use."""
        return self.length

    def gather(self, rows: torch.Tensor, slots: torch.Tensor, room: int) -> None:
        """Keeps, for each new row, the given slots [rows, n] of an old row, with room for more behind them."""
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                index = slots[:, None, :, None].expand(-1, old.shape[1], -1, old.shape[3])
                new = old.new_empty((len(rows), old.shape[1], slots.shape[1] + room, old.shape[3]))
                torch.gather(old.index_select(0, rows), 2, index, out=new[:, :, : slots.shape[1]])
                store[layer] = new
        self.length = slots.shape[1]


def _grown(old: torch.Tensor, used: int, needed: int) -> torch.Tensor:
    new = old.new_empty((*old.shape[:2], max(needed, 2 * old.shape[2]), old.shape[3]))
    new[:, :, :used] = old[:, :, :used]
    return new


class _Watch:
    """Notes what each layer of a network gives, until it is closed."""

    def __init__(self, network: PreTrainedModel) -> None:
        self._kinds = layer_kinds(network.config)
        lists = (one for one in network.modules() if isinstance(one, torch.nn.ModuleList))
        self._layers = list(next((one for one in lists if len(one) == len(self._kinds)), ()))
        self._entered, self._states = -1, list[torch.Tensor]()
        self._hooks = [layer.register_forward_hook(self._leave) for layer in self._layers]
        self._hooks += [layer.register_forward_pre_hook(self._enter) for layer in self._layers]

    def _enter(self, layer: torch.nn.Module, _: object) -> None:
        self._entered = self._layers.index(layer)

    def _leave(self, layer: torch.nn.Module, _: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        states = output[0] if isinstance(output, tuple) else output
        if states.ndim == 3:
            self._states.append(states)

    def take(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """What the layers of one forward gave, and its logits: [rows, tokens, width] each."""
        taken = [states.float().cpu() for states in [*self._states, logits]]
        self._entered, self._states = -1, []
        return taken

    def name(self, number: int | None = None) -> str:
        """What to call a layer; by default the one that was entered last."""
        number = self._entered if number is None else number
        if not 0 <= number < len(self._layers):
            return "what lies outside its layers" if self._layers else "its network"
        kind = "" if (kind := self._kinds[number]) == FULL else f", {kind}"
        return f"its layer {number} ({type(self._layers[number]).__name__}{kind})"

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far two vectors are apart, as a share of how far the second's numbers lie from their mean."""
    return float((one - other).norm() / (other - other.mean()).norm().clamp(min=1e-6))


@dataclass(eq=False, slots=True)
class _Seat:
    """One conversation: what of it is in the cache, and in which of its row's slots."""

    model: HFModel
    row: int = -1
    tokens: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)

    async def complete(self, request: Request) -> Completion:
        """Answers a request, in one batch with those of the other conversations."""
        return await self.model.submit(self, request)


@dataclass(eq=False, slots=True)
class _Turn:
    seat: _Seat
    ids: list[int]
    tools: Sequence[ToolSpec]
    random: random.Random
    constraint: ActionConstraint | None
    future: asyncio.Future[Completion]
    kept: int = 0
    generated: list[int] = field(default_factory=list)
    done: bool = False


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
        self.chat = ChatTokens(tokenizer, end_tokens(self.network))
        self._embeddings = self.network.get_input_embeddings().weight.shape[0]
        self._grammar = ActionGrammar(self.chat)
        self._limit = context_of(self.network.config)
        self.room = self._limit - sampling.max_tokens
        self._seats: list[_Seat] = []
        self._pending: list[_Turn] = []
        self._cache = SlotCache()
        self._places = torch.zeros((0, 0), dtype=torch.long)  # [rows, slots]: a cached token's position; -1: none
        self._check_cache()

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        seat = _Seat(self)
        self._seats.append(seat)
        try:
            yield seat
        finally:
            self._seats.remove(seat)
            self._pending = [request for request in self._pending if request.seat is not seat]  # of a cancelled episode
            self._schedule()

    @property
    def identity(self) -> str:
        """The weights, by their content: a path may hold others tomorrow, or in another folder."""
        return model_identity(self.name)

    def length(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        return self.chat.length(messages, tools)

    def close(self) -> None:
        self._cache = SlotCache()

    def submit(self, seat: _Seat, request: Request) -> asyncio.Future[Completion]:
        """Queues a request; the batch runs when every open conversation has asked."""
        ids = self.chat.prompt(request.messages, request.tools)
        if len(ids) + self.sampling.max_tokens > self._limit:
            raise ContextTooLong(f"the prompt has {len(ids)} tokens; with the answer that exceeds the model's {self._limit}")
        if max(ids) >= self._embeddings:  # on a GPU it would end every later call as well
            raise ModelRefused("the prompt holds a token that the model has no embedding for")
        constraint = ActionConstraint(self._grammar, request.choices, self.sampling) if request.choices else None
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._pending.append(_Turn(seat, ids, request.tools, random.Random(request.seed), constraint, future))
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
            self._cache = SlotCache()
            for seat in self._seats:
                seat.row, seat.tokens, seat.slots = -1, [], []
            for request in requests:
                if not request.future.done():
                    request.future.set_exception(ModelError(f"generation failed: {first_line(error)}"))

    @torch.inference_mode()
    def answer_batch(self, requests: list[_Turn]) -> None:
        """Generates the answers of requests that wait, all at once, and hands each to who asked."""
        self._keep_prefixes(requests)
        logits = self._feed_prompts(requests)
        self._decode(requests, logits)
        for request in requests:
            whole = request.done or (request.constraint is not None and request.constraint.complete)
            if not request.future.done():  # its episode may have been cancelled meanwhile
                request.future.set_result(
                    Completion(
                        self.chat.said(request.generated, request.tools),
                        len(request.ids),
                        len(request.generated),
                        cached_tokens=request.kept,
                        truncated=not whole,
                    )
                )

    def _keep_prefixes(self, requests: list[_Turn]) -> None:
        """Moves the batch's rows together and drops what their new prompts do not share with the cached ones."""
        for request in requests:
            both = zip(request.seat.tokens, request.ids[:-1], strict=False)  # at least one token must be fed
            request.kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
        width = max(request.kept for request in requests)
        longest = max(len(request.ids) - request.kept for request in requests)
        if width == 0:
            self._cache = SlotCache()
        else:
            rows = torch.tensor([max(request.seat.row, 0) for request in requests], device=self._device)
            slots = torch.zeros((len(requests), width), dtype=torch.long)
            for row, request in enumerate(requests):
                slots[row, : request.kept] = torch.tensor(request.seat.slots[: request.kept], dtype=torch.long)
            self._cache.gather(rows, slots.to(self._device), room=longest + self.sampling.max_tokens)
        self._places = torch.full((len(requests), width), -1)
        for row, request in enumerate(requests):
            self._places[row, : request.kept] = torch.arange(request.kept)
            request.seat.row = row
            request.seat.slots = list(range(request.kept))

    def _feed_prompts(self, requests: list[_Turn]) -> torch.Tensor:
        """Computes the new part of each prompt; returns the logits [rows, vocabulary] of the first answer token."""
        longest = max(len(request.ids) - request.kept for request in requests)
        before = self._places.shape[1]
        ids, positions = torch.zeros((2, len(requests), longest), dtype=torch.long)
        real = torch.zeros((len(requests), longest), dtype=torch.bool)
        for row, request in enumerate(requests):
            new = request.ids[request.kept :]
            pad = longest - len(new)  # on the left, so that every row's last token is in the last column
            ids[row, pad:] = torch.tensor(new)
            positions[row, pad:] = torch.arange(request.kept, len(request.ids))
            real[row, pad:] = True
            request.seat.slots += range(before + pad, before + longest)
        causal = torch.ones((longest, longest), dtype=torch.bool).tril()
        # A padding token sees itself: a row that sees nothing would give NaN, and NaN spreads through masked values.
        own = (real[:, None, :] & causal) | torch.eye(longest, dtype=torch.bool)
        past = (self._places >= 0)[:, None, :].expand(-1, longest, -1)
        self._places = torch.cat([self._places, positions.where(real, -1)], dim=1)
        return self._forward(ids, positions, torch.cat([past, own], dim=2))

    def _decode(self, requests: list[_Turn], logits: torch.Tensor) -> None:
        """Draws answers token by token until every row has ended its turn or used its tokens."""
        for n in range(self.sampling.max_tokens):
            chosen = self._choose(requests, logits)
            for request, token in zip(requests, chosen, strict=True):
                if request.done:
                    continue
                request.generated.append(token)
                if request.constraint is not None:
                    request.constraint.advance(token)
                ends = self.chat.ends if request.constraint is None else [self.chat.end_of_turn]
                request.done = token in ends
            if all(request.done for request in requests) or n == self.sampling.max_tokens - 1:
                break
            logits = self._feed_tokens(requests, chosen)
        for request in requests:
            request.seat.tokens = (request.ids + request.generated)[: len(request.seat.slots)]

    def _feed_tokens(self, requests: list[_Turn], chosen: list[int]) -> torch.Tensor:
        """Computes one more token of each row; returns the logits [rows, vocabulary] of the next."""
        positions = torch.tensor([[len(r.ids) + len(r.generated) - 1] for r in requests])
        live = torch.tensor([[not request.done] for request in requests])
        for request in requests:
            if not request.done:
                request.seat.slots.append(self._places.shape[1])
        seen = torch.cat([self._places >= 0, torch.ones_like(live)], dim=1)[:, None, :]
        self._places = torch.cat([self._places, positions.where(live, -1)], dim=1)
        return self._forward(torch.tensor(chosen)[:, None], positions, seen)

    def _masks(self, positions: torch.Tensor, seen: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """The mask of tokens [rows, q] over the cached slots [rows, q, slots], for each kind of layer if there are several."""
        masks: dict[str, torch.Tensor] = {FULL: seen}
        keys, positions = self._places[:, None, :], positions[:, :, None]
        for kind, reach in reaches(self.network.config).items():
            near = positions - keys < reach if kind == SLIDING else positions // reach == keys // reach
            masks[kind] = seen & (near | (keys < 0))  # a padding token still sees itself
        for kind, mask in masks.items():
            if self.network.config._attn_implementation != "sdpa":  # others add masks to the scores
                numbers = torch.zeros(mask.shape, dtype=self.network.dtype)
                mask = numbers.masked_fill(~mask, torch.finfo(self.network.dtype).min)
            masks[kind] = mask[:, None].to(self._device)
        kinds = set(layer_kinds(self.network.config))
        return {kind: masks[kind] for kind in kinds} if len(kinds) > 1 else masks[kinds.pop()]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        output = self.network(
            input_ids=ids.to(self._device),
            position_ids=positions.to(self._device),
            attention_mask=self._masks(positions, seen),
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_keyword: self._cache},
        )
        self._cache.length += ids.shape[1]
        return output.logits[:, -1].float().cpu()

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
        watch = _Watch(self.network)
        plain: list[list[torch.Tensor]] = []
        apart: list[list[float]] = []
        try:
            with short_windows(self.network.config, 4):
                for one in rows:
                    logits = self.network(input_ids=torch.tensor([one], device=self._device), use_cache=False).logits
                    plain.append([states[0] for states in watch.take(logits)])
                for place, logits in self._two_turns(rows):
                    states = watch.take(logits[:, None])
                    for k, at in place.items():
                        apart.append([_apart(a[k, -1], b[at]) for a, b in zip(states, plain[k], strict=True)])
        except Exception as error:  # an architecture may fail in any way when it is used otherwise than it knows
            why = f"{watch.name()} does not work with this cache ({first_line(error)})"
            raise PrerequisiteError(refusal(self.name, why)) from error
        finally:
            watch.close()
            self.close()
        # In half precision a mixture of experts may send a single token elsewhere; a wrong mask shows at nearly all.
        half = self.network.dtype.itemsize < 4
        of_layers = [(median(errors) if half else max(errors)) for errors in zip(*apart, strict=True)]
        wrong = [not error <= (0.2 if half else 5e-3) for error in of_layers]
        if not all(bool(states[-1].isfinite().all()) for states in plain):
            raise PrerequisiteError(f"{self.name} gives numbers that are not finite: its weights are damaged.")
        if wrong[-1]:
            where = watch.name(wrong.index(True))
            raise PrerequisiteError(refusal(self.name, f"{where} answers otherwise from a cache than without one"))

    def _two_turns(self, rows: list[list[int]]) -> Iterator[tuple[dict[int, int], torch.Tensor]]:
        """Feeds texts as two turns of two conversations; yields which token of each was the last, and the logits behind it."""
        seats, nobody = [_Seat(self) for _ in rows], cast("asyncio.Future[Completion]", None)
        for share in (0.3, 0.8):
            cuts = [int(share * len(row)) for row in rows]
            requests = [
                _Turn(seat, row[:cut], (), random.Random(0), None, nobody)
                for seat, row, cut in zip(seats, rows, cuts, strict=True)
            ]
            self._keep_prefixes(requests)
            yield {k: cut - 1 for k, cut in enumerate(cuts)}, self._feed_prompts(requests)
            for n in range(2):
                requests[-1].done = n > 0  # one ends its turn before the other
                for request, row, cut in zip(requests, rows, cuts, strict=True):
                    request.generated += [] if request.done else [row[cut + n]]
                logits = self._feed_tokens(requests, [row[cut + n] for row, cut in zip(rows, cuts, strict=True)])
                yield {k: cut + n for k, cut in enumerate(cuts) if not requests[k].done}, logits
            for seat, row in zip(seats, rows, strict=True):
                seat.tokens = row[: len(seat.slots)]

    def _choose(self, requests: list[_Turn], logits: torch.Tensor) -> list[int]:
        """One token per row: the likeliest at temperature 0, else drawn with one uniform number of the row's own stream."""
        for row, request in enumerate(requests):
            if request.done or request.constraint is None:
                continue
            allowed = request.constraint.allowed()
            if allowed is None:
                logits[row, request.constraint.forbidden()] = -torch.inf
            else:
                only = torch.full_like(logits[row], -torch.inf)
                only[allowed] = logits[row, allowed]
                logits[row] = only
        if self.sampling.temperature == 0:
            return logits.argmax(dim=-1).tolist()
        cumulated = torch.softmax(logits / self.sampling.temperature, dim=-1).cumsum(dim=-1)
        draws = torch.tensor([[0.0 if r.done else r.random.random()] for r in requests]) * cumulated[:, -1:]
        chosen = torch.searchsorted(cumulated, draws, right=True)
        # A draw that rounding lifts to the whole sum would fall behind the last token: take the last possible one.
        return chosen.minimum(torch.searchsorted(cumulated, cumulated[:, -1:].contiguous())).squeeze(1).tolist()
