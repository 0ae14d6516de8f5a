"""A student on an engine: prompts go to the server as token ids and answers come back as token ids, by the same `ChatTokens`
that training uses, so that what is trained on is what was generated.

An answer that is held to admissible actions is generated in two parts. First the reason, freely, up to the marker or to
`max_reason_tokens`; then one of the actions that fit, by a regular expression. Both parts follow `ActionConstraint`, the
constraint of models in this process; only that engines hold an answer to characters, so that an action may come in other tokens
than it is trained in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import openai

from leap.core import JsonObject
from leap.core.message import Message, ToolSpec
from leap.envs.answer import ACTION_MARKER
from leap.errors import ContextTooLong, ModelError, PrerequisiteError
from leap.models.base import Completion, EndpointConfig, Request, Sampling
from leap.models.checkpoints import adapter_config, base_of, identity, load_chat
from leap.models.client import key_in
from leap.models.constraint import ActionConstraint, ActionGrammar
from leap.models.engine import EngineConfig
from leap.models.openai import OpenAIModel
from leap.models.vllm import Server, VLLMServer, adapter_name
from leap.models.wire import choice_in, count, cut_off, field, parsed, said_in
from leap.sync import run_sync

_NEVER = -100.0  # the least that a token's logit can be changed by
_IN_TEXT = r"[^\n\r\[\]<>]"  # of a free text, as in models/constraint.py
_NOT_BLANK = r"[^ \t\n\r\[\]<>]"


class Engine:
    """What serves a run's students, one after another: adapters on a base that stays, or full weights.

    Args:
        config: Which engine, and where.
        base: Checkpoint directory or hub name of the student before any training.
        dtype: Weights' type.
        batch: Conversations held at once.
        lora_rank: Rank of the adapters that training makes; None where it makes none.
    """

    def __init__(self, config: EngineConfig, base: str, *, dtype: str, batch: int, lora_rank: int | None) -> None:
        self.config = config
        self.batch = batch
        self._base, self._dtype, self._rank = base_of(base), dtype, lora_rank
        self._server: Server | None = None
        self._serves = self._base

    def open(self, checkpoint: str, sampling: Sampling) -> ServedModel:
        """A checkpoint on the server; close it when another is due.

        Raises:
            PrerequisiteError: There is no server, or it cannot serve that checkpoint.
        """
        adapter, base = adapter_config(checkpoint), base_of(checkpoint)
        server = self._server_of(base, checkpoint)
        name, context = self._card(server)
        return ServedModel(self, server, checkpoint, sampling, base=name, context=context, adapted=adapter is not None)

    def check(self, needed: int, checkpoint: str) -> None:
        """Finds out whether a server can serve the run, by asking for what the run will ask for: an adapter, and an answer that
        is held to actions.

        Args:
            needed: Tokens of the longest prompt and its answer.
            checkpoint: An adapter of the kind that training makes, or the base.

        Raises:
            PrerequisiteError: It cannot.
        """
        sampling = Sampling(temperature=0, max_tokens=48, max_reason_tokens=2)
        asked = Request([{"role": "user", "content": "Where to?"}], choices=["go north", "go east", "search[<words>]"])
        model = self.open(checkpoint, sampling)
        try:
            if model.context is not None and model.context < needed:
                raise PrerequisiteError(short_context(model.context, needed))
            run_sync(model.complete(asked))
        except ModelError as error:
            raise PrerequisiteError(f"student.engine does not answer as it should: {error}") from error
        finally:
            model.close()

    def rest(self) -> None:
        """Frees the GPU for training, unless the server is to be kept."""
        if not self.config.keep:
            self.close()

    def close(self) -> None:
        """Stops the server, if it was started here."""
        if self._server is not None:
            self._server.stop()
        self._server = None

    def _server_of(self, base: str, checkpoint: str) -> Server:
        """The server of a base, started if it is not there."""
        if not self.config.started:
            if not _same(base, self._base):
                raise PrerequisiteError(
                    f"{checkpoint} is for {base}, but the server at {self.config.address} runs {self._base}; let leap start one."
                )
            self._server = self._server or Server(str(self.config.base_url), self._key(), self.config.kind)
            return self._server
        if self._server is None or not self._server.running or not _same(base, self._serves):
            self.close()
            own = {"flags": self.config.flags, "devices": self.config.devices}
            self._server, self._serves = VLLMServer(base, dtype=self._dtype, lora_rank=self._rank, **own), base
        return self._server

    def _key(self) -> str:
        variable = self.config.api_key_env
        if variable and not key_in(variable):
            raise PrerequisiteError(f"student.engine needs a key: set the environment variable {variable}.")
        return key_in(variable) if variable else ""

    def _card(self, server: Server) -> tuple[str, int | None]:
        """The base's name on a server, and how many tokens its context has.

        Raises:
            PrerequisiteError: It serves another model.
        """
        cards = [card for card in server.cards() if not card.get("parent")]
        wanted = self.config.model
        for card in cards:
            names = [str(card.get(key)) for key in ("id", "root")]
            if wanted == card["id"] if wanted else any(_same(name, self._serves) for name in names):
                longest = card.get("max_model_len")
                return card["id"], longest if isinstance(longest, int) and longest > 0 else None
        there = ", ".join(str(card["id"])[:80] for card in cards[:5]) or "nothing"
        raise PrerequisiteError(
            f"{server.shown} serves {there}, not {wanted or self._serves}; start it with that model, or name it in "
            "student.engine.model if it is there under another name."
        )


def short_context(context: int, needed: int) -> str:
    """What to say where a server's context is too short."""
    return (
        f"student.engine: the server's context has {context} tokens, and prompts and answers of this recipe may have {needed}: "
        "set student.prompt.max_tokens so much lower, or serve with a larger max_model_len."
    )


def _same(one: str, other: str) -> bool:
    """Whether two names are of one checkpoint."""
    paths = [Path(name).resolve() if Path(name).exists() else name.rstrip("/") for name in (one, other)]
    return paths[0] == paths[1]


class ServedModel(OpenAIModel):
    """A checkpoint of the student on an engine.

    Args:
        engine: Whose it is.
        server: Where.
        checkpoint: Directory or hub name; an adapter's is loaded now and unloaded when this is closed.
        sampling: How answers are drawn.
        base: The base's name on the server.
        context: Tokens of the server's context, where it tells.
        adapted: Whether the checkpoint is an adapter.

    Raises:
        PrerequisiteError: The server refuses the adapter, or nothing usable is in the checkpoint.
    """

    constrains = True

    def __init__(
        self,
        engine: Engine,
        server: Server,
        checkpoint: str,
        sampling: Sampling,
        *,
        base: str,
        context: int | None,
        adapted: bool,
    ) -> None:
        config = engine.config
        endpoint = EndpointConfig(base_url=server.url, timeout=config.timeout, concurrency=engine.batch)
        # A key of OpenAI's in the environment is none of this server's business.
        super().__init__(base, sampling, endpoint, name=f"{config.kind}/{checkpoint}", api_key=server.key or "none")
        self.concurrency = self._at_once  # episodes played at once, as for every model on this machine
        self.chat, own = load_chat(checkpoint)
        self.context = context
        self._context = min(own, context or own)
        self.room = self._context - sampling.max_tokens
        self._sglang = config.kind == "sglang"
        self._server, self._checkpoint = server, checkpoint
        self._adapter = adapter_name(checkpoint) if adapted else ""
        self._loaded = bool(self._adapter) and server.load(self._adapter, checkpoint)

    @property
    def identity(self) -> str:
        return f"{self.name}@{identity(self._checkpoint)}"

    def length(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        return self.chat.length(messages, tools)

    def close(self) -> None:
        super().close()
        if self._loaded and self._server.running:
            self._server.unload(self._adapter)
        self._loaded = False

    async def complete(self, request: Request) -> Completion:
        """Answers a request; see `Conversation.complete`."""
        prompt = self.chat.prompt(request.messages, request.tools, request.thinking)
        if len(prompt) + self.sampling.max_tokens > self._context:
            told = f"the prompt has {len(prompt)} tokens; with the answer that exceeds the server's {self._context}"
            raise ContextTooLong(told)
        begin = 0
        if request.choices:
            constraint = ActionConstraint(self._grammar, request.choices, self.sampling, request.thinking)
            drawn = await self._constrained(prompt, request, constraint)
            begin = constraint.thought
        else:
            stop = {"stop": list(request.stop)} if request.stop else {}
            drawn = await self._draw(prompt, request, {"max_tokens": self.sampling.max_tokens, **stop})
        said = self.chat.said(drawn.tokens[begin:], request.tools, None if begin else request.thinking)
        known = {"prompt_tokens": len(prompt), "completion_tokens": len(drawn.tokens), "thought": said.thought}
        return replace(drawn, text=said.answer, **known).before(request.stop)

    # ---- an admissible action ----------------------------------------------------------------------------------------

    @cached_property
    def _grammar(self) -> ActionGrammar:
        return ActionGrammar(self.chat)

    async def _constrained(self, prompt: list[int], request: Request, constraint: ActionConstraint) -> Completion:
        """A reason, the marker, and one of the choices."""
        grammar = self._grammar
        tokens: list[int] = []
        logprobs: list[float] = []
        cached = 0

        def take(token: int, logprob: float = 0.0) -> None:  # what is forced is certain
            tokens.append(token)
            logprobs.append(logprob)

        free: JsonObject = {
            "stop": [ACTION_MARKER],
            "logit_bias": {str(token): _NEVER for token in grammar.not_in_reason},
        }
        while left := constraint.reason_left:
            drawn = await self._draw([*prompt, *tokens], request, {**free, "max_tokens": left}, len(tokens))
            cached = cached or drawn.cached_tokens
            for token, logprob in _with_logprobs(drawn):
                if token in grammar.not_in_reason:  # of a server that takes no biases
                    constraint.end_reason()
                if not constraint.reason_left:
                    break
                take(token, logprob)
                constraint.advance(token)
            if not drawn.tokens:
                constraint.end_reason()
        for token in constraint.end_reason():
            take(token)
            constraint.advance(token)
        fitting, end, truncated = constraint.fitting(), grammar.chat.end_of_turn, False
        if len(fitting) == 1 and not fitting[0][1]:
            for token in fitting[0][0]:
                take(token)
        else:
            drawn = await self._act([*prompt, *tokens], request, len(tokens), fitting)
            for token, logprob in _with_logprobs(drawn):
                take(end if token in self.chat.ends else token, logprob)
            if drawn.truncated:
                said = self.chat.decode(drawn.tokens)
                if any(opens and said.startswith(self.chat.decode(head)) for head, opens in fitting):
                    if not said.endswith("]"):
                        take(grammar.closing)
                else:
                    truncated = said not in [self.chat.decode(whole) for whole, _ in fitting]
        if not truncated and tokens[-1] != end and len(tokens) < self.sampling.max_tokens:
            take(end)
        told = () if any(map(math.isnan, logprobs)) else tuple(logprobs)
        return Completion("", 0, 0, cached, truncated=truncated, tokens=tuple(tokens), logprobs=told)

    async def _act(
        self, prompt: list[int], request: Request, taken: int, fitting: Sequence[tuple[list[int], bool]]
    ) -> Completion:
        """One of the actions that fit, by a regular expression of their texts. For the token that closes a free text room is
        kept. A token may be a single byte of an action, so that others can take more tokens than they were counted with."""
        opened, texts = any(opens for _, opens in fitting), [self.chat.decode(tokens) for tokens, _ in fitting]
        behind = rf" ?{_NOT_BLANK}{_IN_TEXT}*\]"
        told = "|".join(_escaped(text) + behind * opens for text, (_, opens) in zip(texts, fitting, strict=True))
        longest = 0 if opened else 1 + max(len(text.encode()) for text in texts)
        left = self.sampling.max_tokens - taken
        room = min(max(left - opened, longest), self._context - len(prompt))
        held: JsonObject = {"regex": told} if self._sglang else {"structured_outputs": {"regex": told}}
        return await self._draw(prompt, request, {"max_tokens": room, **held}, taken)

    # ---- a call ------------------------------------------------------------------------------------------------------

    async def _draw(self, prompt: list[int], request: Request, more: JsonObject, taken: int = 0) -> Completion:
        """What the model says behind some tokens, as it is drawn: the tokens alone, without their text."""
        adapted = {"lora_path": self._adapter} if self._adapter and self._sglang else {}
        body: JsonObject = {
            "model": self.model if adapted or not self._adapter else self._adapter,
            "prompt": prompt,
            "temperature": request.temperature(self.sampling.temperature),
            "seed": (request.seed + taken) % 2**31,  # each part of an answer draws anew
            # Else the server's own defaults apply, which it may have from the model's generation_config.
            **{"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
            "stop_token_ids": self.chat.ends,
            "logprobs": 1,
            "return_token_ids": True,
            **adapted,
            **({"no_stop_trim": True} if self._sglang else {}),
            **more,
        }
        return await self._call(lambda: body, self._read_tokens)

    def _can_do_without(self, error: openai.APIStatusError, body: JsonObject) -> bool:
        """Nothing that is sent here can be left out."""
        return False

    def _read_tokens(self, content: bytes) -> Completion:
        body = parsed(content)
        choice = choice_in(body)
        tokens, size = choice.get("token_ids"), len(self.chat.tokenizer)
        if choice and tokens is None:
            raise PrerequisiteError(
                f"{self._shown} gives no token ids (return_token_ids), which a student's engine must: vLLM from 0.10.2 on does."
            )
        if not isinstance(tokens, list) or not all(type(token) is int and 0 <= token < size for token in tokens):
            said = self._redacted(said_in(body or content.decode("utf-8", "replace"), "nothing"))
            raise ModelError(f"{self.name}: the server's answer is damaged: {said[:300]}")
        told = field(choice.get("logprobs"), "token_logprobs")
        told = told[: len(tokens)] if isinstance(told, list) else []
        known = len(told) == len(tokens) and all(type(one) in (int, float) for one in told)
        details = field(field(body, "usage"), "prompt_tokens_details")
        return Completion(
            "",
            len(tokens) and 1,
            len(tokens),
            count(details, "cached_tokens"),
            truncated=cut_off(choice),
            tokens=tuple(tokens),
            logprobs=tuple(float(one) for one in told) if known else (),
        )


def _with_logprobs(drawn: Completion) -> Iterator[tuple[int, float]]:
    """The tokens of a part of an answer, each with its log-probability; not a number where the server gives none."""
    return zip(drawn.tokens, drawn.logprobs or [math.nan] * len(drawn.tokens), strict=True)


def _escaped(text: str) -> str:
    """A text as a regular expression, in the escapes that all engines know."""
    return re.sub(r"([\\.^$|?*+(){}\[\]])", r"\\\1", text)
