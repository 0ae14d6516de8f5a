"""`openai/NAME`: a model behind any OpenAI-compatible endpoint: OpenAI, vLLM, SGLang, llama.cpp, Ollama, gateways.

Calls go through the official client, whose own retries (429, 5xx, time-outs, lost connections; exponential back-off with
jitter, Retry-After kept to) are the only ones. What an endpoint does not know (a JSON schema, a seed, a temperature) it
refuses once; it is then left out for good.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from openai.types.chat import ChatCompletion

from leap.core.message import Message, ToolSpec, characters
from leap.envs.tools import calls_as_text, in_words
from leap.errors import ContextTooLong, LeapError, ModelError, PrerequisiteError
from leap.models.base import Completion, Conversation, EndpointConfig, Model, Sampling

log = logging.getLogger(__name__)

# What endpoints of all makers say when a prompt does not fit: OpenAI, vLLM, SGLang, llama.cpp, Ollama, gateways.
_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|maximum (input|model|prompt) length|(prompt|input) is too long|"
    r"reduce the length of the|exceed_context_size|longer than the model's|max_model_len|must be at least 1, got -",
    re.IGNORECASE,
)
# Words by which a refusal names a structured-answer mode.
_STRUCTURED = re.compile(r"response_format|json_object|schema|grammar|guided|structured", re.IGNORECASE)
# Words by which a refusal names tools.
_TOOLS = re.compile(r"\btools?\b|tool_choice|tool_calls|function.call", re.IGNORECASE)
_FILTERED = re.compile(r"content[_ ](policy|filter|management)|safety|moderation|invalid_prompt", re.IGNORECASE)
_OPENAI = "https://api.openai.com/v1/"
_REFUSED = (openai.BadRequestError, openai.UnprocessableEntityError)


@dataclass(slots=True)
class _Wire:
    """A client and its limit on concurrency. Both belong to one event loop."""

    loop: asyncio.AbstractEventLoop
    client: openai.AsyncOpenAI
    gate: asyncio.Semaphore
    closer: AsyncGenerator[None, None]


class OpenAIModel(Model):
    """A model behind an OpenAI-compatible endpoint.

    Args:
        model: Its name there.
        sampling: How answers are drawn.
        endpoint: Where it is and how calls are made.
        name: `provider/model` for the record; `openai/MODEL` by default.
        api_key: The key, for a server of our own; read from the environment by default.

    Raises:
        PrerequisiteError: There is no key for an endpoint that needs one, or the address is none.
    """

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        endpoint: EndpointConfig | None = None,
        *,
        name: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self.endpoint = endpoint = endpoint or EndpointConfig()
        self.model = model
        self.name = name or f"openai/{model}"
        self.sampling = sampling
        self.calls_at_once = endpoint.concurrency
        # Half of the conversations get their next prompt ready (a replay, a step of a game) while the others' calls are
        # under way, so that no place for a call stays empty.
        self.concurrency = 2 * endpoint.concurrency
        self.base_url = (endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI).rstrip("/")
        self._host = _host(self.base_url)
        self._key = api_key or os.environ.get(endpoint.api_key_env, "").strip()
        if not self._key and self._host == "api.openai.com":
            raise PrerequisiteError(f"{self.name} needs a key: set the environment variable {endpoint.api_key_env}.")
        # OpenAI's reasoning models know only the new name of the limit, many other servers only the old one.
        self._limit = "max_completion_tokens" if self._host == "api.openai.com" else "max_tokens"
        self._formats = ["json_schema", "json_object"]  # those not yet refused
        self._dropped: set[str] = set()  # parameters refused
        # How tools are offered, until it is refused: as such; shown to the model alone (a server that does not parse calls), so
        # that a call stands in the text; in words.
        self._tool_modes = ["auto", "none", "words"]
        self._answered = 0
        self._wire: _Wire | None = None

    @property
    def identity(self) -> str:
        return f"{self.name}@{self.base_url}"

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        yield self  # an endpoint is told everything each time

    def close(self) -> None:
        # The client is closed with its event loop; one without tasks any more is simply let go.
        self._wire = None

    async def check(self) -> Completion | None:
        """Asks for the endpoint's list of models, which costs nothing; where that has not the name (aliases, gateways without
        a list), for an answer of one token."""
        client = (await self._connected()).client
        asked: list[Message] = [{"role": "user", "content": "Say OK."}]
        try:
            try:
                listed = await client.with_options(max_retries=1, timeout=20).models.list()
                if self.model in {str(model.id) for model in listed.data}:
                    return None
            except (openai.AuthenticationError, openai.APIConnectionError):
                raise
            except (openai.OpenAIError, ValueError, TypeError, AttributeError):
                pass  # a gateway without a list
            request: dict[str, Any] = self._request(asked, 0, None, ()) | {self._limit: 1}
            return self._read(await client.with_options(max_retries=1).chat.completions.create(**request), asked)
        except (ModelError, *_REFUSED):
            return None  # the model is there, it only wants to be asked otherwise
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            problem = await self._explain(error, client, self._answered)
            if isinstance(problem, PrerequisiteError):
                raise problem from error
            return None  # slow today, but there

    # ---- a call --------------------------------------------------------------------------------------------------

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        seed: int,
        choices: Sequence[str] | None = None,
        schema: dict[str, Any] | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Completion:
        """Answers a prompt; see `Conversation.complete`. An endpoint cannot be held to `choices`."""
        wire = await self._connected()
        async with wire.gate:
            answered = self._answered
            while True:
                request = self._request(messages, seed, schema, tools)
                try:
                    answer = await wire.client.chat.completions.create(**request)
                except (openai.OpenAIError, json.JSONDecodeError) as error:
                    if not (isinstance(error, _REFUSED) and self._can_do_without(error, request)):
                        raise await self._explain(error, wire.client, answered) from error
                else:
                    completion = self._read(answer, messages)
                    self._answered += 1
                    return completion

    async def _connected(self) -> _Wire:
        """The client of the running event loop; each loop has its own, closed as the loop ends."""
        loop = asyncio.get_running_loop()
        if self._wire is None or self._wire.loop is not loop:
            local = self._host in ("localhost", "127.0.0.1", "::1")
            client = openai.AsyncOpenAI(
                api_key=self._key or "none",  # a server of one's own asks for none
                base_url=self.base_url,
                timeout=httpx2.Timeout(self.endpoint.timeout, connect=min(10.0, self.endpoint.timeout)),
                max_retries=self.endpoint.retries,
                # A proxy for the outside world is none for this machine.
                http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if local else None,
            )

            async def closed_with_loop() -> AsyncGenerator[None, None]:
                try:
                    yield
                finally:  # asyncio.run ends the generators that are still open
                    await client.close()

            self._wire = _Wire(loop, client, asyncio.Semaphore(self.endpoint.concurrency), closed_with_loop())
            await anext(self._wire.closer)
        return self._wire

    def _request(
        self, messages: Sequence[Message], seed: int, schema: dict[str, Any] | None, tools: Sequence[ToolSpec]
    ) -> dict[str, Any]:
        mode = self._tool_modes[0]
        if tools and mode == "words":
            messages, tools = in_words(messages, tools), ()
        request: dict[str, Any] = {
            **({"tools": list(tools)} if tools else {}),
            **({"tool_choice": "none"} if tools and mode == "none" else {}),
            "model": self.model,
            "messages": [_sent(message) for message in messages],
            "temperature": self.sampling.temperature,
            "seed": seed % 2**31,
            self._limit: self.sampling.max_tokens,
        }
        if schema is not None and self._formats:
            shape: dict[str, Any] = {"type": self._formats[0]}
            if self._formats[0] == "json_schema":
                title = re.sub(r"[^A-Za-z0-9_-]", "_", str(schema.get("title", "answer")))[:64]
                shape["json_schema"] = {"name": title, "schema": schema, "strict": True}
            request["response_format"] = shape
        return {key: value for key, value in request.items() if key not in self._dropped}

    def _can_do_without(self, error: openai.APIStatusError, request: dict[str, Any]) -> bool:
        """Whether the endpoint refused something that a call can do without; it is left out from now on."""
        said = f"{getattr(error, 'param', None) or ''} {_said(error)}"
        if _TOO_LONG.search(said):
            return False
        if "max_completion_tokens" in said and "max_tokens" in request:
            self._limit = "max_completion_tokens"
            return True
        format_sent = request.get("response_format", {}).get("type")
        if format_sent and _STRUCTURED.search(said):
            if self._formats[:1] == [format_sent]:  # else another call has noticed already
                self._formats.pop(0)
                log.warning("%s knows no %s answers: %s", self.name, format_sent, _said(error))
            return True
        if "tools" in request and _TOOLS.search(said):
            if request.get("tool_choice", "auto") == self._tool_modes[0]:  # else another call has noticed already
                self._tool_modes.pop(0)
                log.warning("%s takes no tools in this form: %s", self.name, _said(error))
            return True
        for parameter in ("temperature", "seed"):
            if parameter in request and re.search(rf"\b{parameter}\b", said):
                if parameter not in self._dropped:
                    log.warning("%s takes no %s, so its own applies: %s", self.name, parameter, _said(error))
                self._dropped.add(parameter)
                return True
        return False

    def _read(self, answer: Any, messages: Sequence[Message]) -> Completion:
        if not isinstance(answer, ChatCompletion) or not isinstance(answer.choices, list):
            if self._answered:
                raise ModelError(f"{self.name}: the endpoint's answer is damaged")
            raise PrerequisiteError(
                f"{self.base_url} answers, but not as an OpenAI-compatible endpoint; is base_url right? It mostly ends in /v1."
            )
        if not answer.choices:
            raise ModelError(f"{self.name}: the endpoint sent an answer without choices")
        choice = answer.choices[0]
        content = getattr(choice.message, "content", None)
        text = content if isinstance(content, str) else ""  # none where all tokens went into hidden reasoning
        text = calls_as_text(text, _calls(choice.message))
        usage, truncated = answer.usage, choice.finish_reason == "length"
        if usage is None:  # rare; a guess keeps the budget honest where nothing would not
            return Completion(text, -(-characters(messages) // 4), -(-len(text) // 4), truncated=truncated)
        details = usage.prompt_tokens_details
        return Completion(
            text,
            _count(usage.prompt_tokens),
            _count(usage.completion_tokens),
            cached_tokens=_count(details and details.cached_tokens),
            cache_write_tokens=_count(details and details.cache_write_tokens),
            truncated=truncated,
        )

    # ---- errors --------------------------------------------------------------------------------------------------

    async def _explain(self, error: Exception, client: openai.AsyncOpenAI, answered: int) -> LeapError:
        """The error for people: one line; of the kind that ends the run where no call can work."""
        never_worked = self._answered == 0
        cut_off = self._answered == answered  # nobody else has got through meanwhile either
        said = self._redacted(_said(error))
        key, host = self.endpoint.api_key_env, self.base_url
        match error:
            case openai.APITimeoutError() if not isinstance(error.__cause__, httpx2.ConnectTimeout):
                times = self.endpoint.retries + 1
                return ModelError(f"{self.name}: no answer within {self.endpoint.timeout:g} s, {times} times in a row")
            case openai.APIConnectionError():
                text = f"nothing can be reached at {host} ({self._redacted(str(error.__cause__ or error))})"
                if cut_off:
                    return PrerequisiteError(f"{text}; is the server running, and is base_url right?")
                return ModelError(f"{self.name}: {text}")
            case openai.AuthenticationError() if self._key:
                return PrerequisiteError(f"{host} refuses the key in the environment variable {key}.")
            case openai.AuthenticationError():
                return PrerequisiteError(f"{host} needs a key: set the environment variable {key}.")
            case openai.PermissionDeniedError() if cut_off:
                return PrerequisiteError(f"the key in {key} may not use {self.model!r} at {host}: {said}")
            case openai.NotFoundError():
                return await self._not_found(said, client)
            case openai.APIStatusError() if error.status_code == 402 or (
                isinstance(error, openai.RateLimitError) and "insufficient_quota" in f"{error.code} {said}"
            ):
                return PrerequisiteError(f"the account of the key in {key} has no credit left at {host}: {said}")
            case openai.APIStatusError() if _TOO_LONG.search(f"{error.code} {error.type} {said}"):
                return ContextTooLong(f"{self.name}: the prompt does not fit into the model's context: {said}")
            case openai.BadRequestError() if never_worked and re.search(
                rf"model.*{re.escape(self.model)}|pinned", said
            ):
                return await self._not_found(said, client)
            case openai.APIStatusError() if (
                isinstance(error, _REFUSED) and never_worked and not _FILTERED.search(f"{error.code} {said}")
            ):
                return PrerequisiteError(f"{host} refuses the very first request for {self.model!r}: {said}")
            case openai.APIStatusError():
                return ModelError(f"{self.name}: the endpoint answered {error.status_code}: {said}")
            case json.JSONDecodeError() | openai.APIResponseValidationError():
                return ModelError(f"{self.name}: the endpoint's answer is damaged: {said}")
        return ModelError(f"{self.name}: {said}")

    async def _not_found(self, said: str, client: openai.AsyncOpenAI) -> LeapError:
        """No such model, or no such address: the endpoint's own list of models tells which."""
        try:
            listed = await client.with_options(max_retries=0, timeout=10).models.list()
            names = [str(model.id) for model in listed.data]
        except Exception:  # whatever goes wrong here, the first error is the one to tell
            names = None
        if names is None or self.model in names:
            hint = "is base_url right? It mostly ends in /v1"
            return PrerequisiteError(f"{self.base_url} has no {self.model!r} ({said}); {hint}.")
        shown = self._redacted(", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) or "none"
        return PrerequisiteError(f"{self.base_url} has no model {self.model!r}; it has: {shown}.")

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "(the key)") if len(self._key) > 6 else text


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return parts.hostname
    except ValueError:  # a port that is no number
        pass
    raise PrerequisiteError(f"{url!r} is no address of an endpoint; it looks like https://host/v1.")


def _sent(message: Message) -> dict[str, Any]:
    """A message as endpoints take it: the arguments of a call are a text."""
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    functions = [
        call["function"] | {"arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}
        for call in calls
    ]
    told = [call | {"function": function} for call, function in zip(calls, functions, strict=True)]
    return message | {"content": message["content"] or None, "tool_calls": told}


def _calls(message: Any) -> list[tuple[str, str]]:
    """Name and arguments of the calls that an answer makes, whatever shape they have."""
    found = []
    for call in getattr(message, "tool_calls", None) or ():
        function = getattr(call, "function", None) or getattr(call, "custom", None)
        arguments = getattr(function, "arguments", None)
        if arguments is None:
            arguments = getattr(function, "input", "")
        told = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
        found.append((str(getattr(function, "name", "")), told))
    return found


def _count(number: Any) -> int:
    """A number of tokens as an endpoint tells it, which may be missing or nonsense."""
    return number if isinstance(number, int) and number > 0 else 0


def _said(error: Exception) -> str:
    """What the endpoint itself said."""
    return said_in(getattr(error, "body", None), str(error) or type(error).__name__)


def said_in(body: Any, otherwise: str) -> str:
    """The message in the body of an error, in one line of bearable length."""
    text = otherwise
    if isinstance(body, dict):
        inner = body.get("error", body)
        found = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
        text = str(found or body.get("detail") or body)
    elif isinstance(body, str) and body.strip():
        text = re.sub(r"<[^>]*>", " ", body)  # an error page of some proxy
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= 300 else text[:297] + "..."
