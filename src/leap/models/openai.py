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
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import httpx2
import openai

from leap.core import JsonObject
from leap.core.message import Message, characters, sendable
from leap.envs.tools import in_words
from leap.errors import ContextTooLong, LeapError, ModelError, ModelRefused, PrerequisiteError
from leap.models.base import Completion, EndpointConfig, Model, Request, Sampling, without_login
from leap.models.client import BILLED, connect, for_a_header, key_in, open_files, out_of_files, through_proxy
from leap.models.wire import (
    choice_in,
    count,
    cut_off,
    field,
    parsed,
    said_in,
    sampled_in,
    text_in,
    thought_in,
    tokens_in,
    without_key,
)

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
# What may go wrong in a call: all that the client tells, and what cannot be sent.
_FAILURES = (openai.OpenAIError, ValueError, RecursionError)
# No connection came about; whatever else breaks one, an endpoint was there.
_UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)
LOCAL = ("localhost", "127.0.0.1", "::1")
"""Names of this machine, for which no proxy stands."""


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
        self.calls_at_once = self._at_once = self._places(endpoint.concurrency)
        # Half of the conversations get their next prompt ready (a replay, a step of a game) while the others' calls are
        # under way, so that no place for a call stays empty.
        self.concurrency = 2 * self._at_once
        self.base_url = (endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI).strip().rstrip("/")
        self._host = host_of(self.base_url)
        self._shown = without_login(self.base_url)
        self._key = api_key or key_in(endpoint.api_key_env)
        for variable in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"):  # which the client sends of itself
            for_a_header(variable, os.environ.get(variable, "").replace("\n", ""))
        named = endpoint.api_key_env != EndpointConfig.model_fields["api_key_env"].default
        if not self._key and (named or self._host == "api.openai.com"):
            raise PrerequisiteError(f"{self.name} needs a key: set the environment variable {endpoint.api_key_env}.")
        # OpenAI's reasoning models know only the new name of the limit, many other servers only the old one.
        self._limit = "max_completion_tokens" if self._host == "api.openai.com" else "max_tokens"
        self._formats = ["json_schema", "json_object"]  # those not yet refused
        self._dropped: set[str] = set()  # parameters refused
        # How tools are offered, until it is refused: as such; shown to the model alone (a server that does not parse calls), so
        # that a call stands in the text; in words.
        self._tool_modes = ["auto", "none", "words"]
        self._answered = 0
        self._estimates = False  # whether tokens had to be estimated, which is told once
        self._wire: _Wire | None = None

    def _places(self, wanted: int) -> int:
        """Calls at once that the open files of this process allow: a call holds a connection, the episodes that get ready beside
        it may hold files of their own."""
        files = open_files()
        if files is None or (room := max((files[0] - files[1]) // 3, 1)) >= wanted:
            return wanted
        log.warning(
            "%s: this process may hold %s files and connections open at once, so there are %s calls at once and not the "
            "%s of endpoint.concurrency; `ulimit -n %s` before the command allows them all",
            *(self.name, files[0], room, wanted, 3 * wanted + files[1]),
        )
        return room

    @property
    def identity(self) -> str:
        return f"{self.name}@{self.base_url}"

    def close(self) -> None:
        # The client is closed with its event loop; one without tasks any more is simply let go.
        self._wire = None

    async def check(self) -> Completion | None:
        """Asks for the endpoint's list of models, which costs nothing; where that has not the name (aliases, gateways without
        a list), for an answer of one token."""
        client = (await self._connected()).client
        asked = Request([{"role": "user", "content": "Say OK."}])
        try:
            try:
                listed = await client.with_options(max_retries=1, timeout=20).models.list()
                if self.model in {str(model.id) for model in listed.data}:
                    return None
            except (openai.AuthenticationError, openai.APIConnectionError):
                raise
            except (*_FAILURES, TypeError, AttributeError):
                pass  # a gateway without a list
            body = self._body(asked) | {self._limit: 1}
            return self._read(await _answer(client.with_options(max_retries=1), body), asked)
        except (ModelError, *_REFUSED):
            return None  # the model is there, it only wants to be asked otherwise
        except _FAILURES as error:
            problem = await self._explain(error, client, self._answered)
            if isinstance(problem, PrerequisiteError):
                raise problem from error
            return None  # slow today, but there

    # ---- a call --------------------------------------------------------------------------------------------------

    async def complete(self, request: Request) -> Completion:
        """Answers a request; see `Conversation.complete`. An endpoint cannot be held to `choices`."""
        return await self._call(lambda: self._body(request), lambda content: self._read(content, request))

    async def _call(self, make: Callable[[], JsonObject], read: Callable[[bytes], Completion]) -> Completion:
        """Makes a call.

        Args:
            make: Makes the request's body, anew where a part of it was refused.
            read: Reads the answer.
        """
        wire = await self._connected()
        async with wire.gate:
            answered = self._answered
            BILLED.set(failures := [])
            while True:
                body = make()
                try:
                    completion = read(await _answer(wire.client, body))
                except (ModelError, *_FAILURES) as error:
                    if isinstance(error, _REFUSED) and self._can_do_without(error, body):
                        continue
                    problem = error
                    if not isinstance(error, ModelError):
                        problem = await self._explain(error, wire.client, answered)
                    if isinstance(problem, ModelError):
                        problem.tokens = _sum(problem.tokens, *map(tokens_in, failures))
                    raise problem from (None if problem is error else error)
                self._answered += 1
                spent = _sum((completion.prompt_tokens, completion.completion_tokens), *map(tokens_in, failures))
                return replace(completion, prompt_tokens=spent[0], completion_tokens=spent[1])

    async def _connected(self) -> _Wire:
        """The client of the running event loop; each loop has its own, closed as the loop ends."""
        loop = asyncio.get_running_loop()
        if self._wire is None or self._wire.loop is not loop:
            client = openai.AsyncOpenAI(
                api_key=self._key or "none",  # a server of one's own asks for none
                base_url=self.base_url,
                timeout=httpx2.Timeout(self.endpoint.timeout, connect=min(10.0, self.endpoint.timeout)),
                max_retries=self.endpoint.retries,
                http_client=connect(local=self._host in LOCAL, places=self._at_once),
            )

            async def closed_with_loop() -> AsyncGenerator[None, None]:
                try:
                    yield
                finally:  # asyncio.run ends the generators that are still open
                    await client.close()

            self._wire = _Wire(loop, client, asyncio.Semaphore(self._at_once), closed_with_loop())
            await anext(self._wire.closer)
        return self._wire

    def _body(self, request: Request) -> JsonObject:
        """A request as the endpoint takes it, without what it has refused."""
        messages, tools, schema, mode = request.messages, request.tools, request.schema, self._tool_modes[0]
        if tools and mode == "words":
            messages, tools = in_words(messages, tools), ()
        body: JsonObject = {
            **({"tools": list(tools)} if tools else {}),
            **({"tool_choice": "none"} if tools and mode == "none" else {}),
            "model": self.model,
            "messages": sendable([_sent(message) for message in messages]),
            "temperature": request.temperature(self.sampling.temperature),
            **({"stop": list(request.stop)} if request.stop else {}),
            "seed": request.seed % 2**31,
            self._limit: self.sampling.max_tokens,
            **({"logprobs": True, "extra_body": {"return_token_ids": True}} if self.endpoint.tokens else {}),
        }
        if schema is not None and self._formats:
            shape: JsonObject = {"type": self._formats[0]}
            if self._formats[0] == "json_schema":
                title = re.sub(r"[^A-Za-z0-9_-]", "_", str(schema.get("title", "answer")))[:64]
                shape["json_schema"] = {"name": title, "schema": schema, "strict": True}
            body["response_format"] = shape
        return {key: value for key, value in body.items() if key not in self._dropped}

    def _can_do_without(self, error: openai.APIStatusError, body: JsonObject) -> bool:
        """Whether the endpoint refused something that a call can do without; it is left out from now on."""
        said = f"{getattr(error, 'param', None) or ''} {_said(error)}"
        if _TOO_LONG.search(said):
            return False
        if "max_completion_tokens" in said and "max_tokens" in body:
            self._limit = "max_completion_tokens"
            return True
        format_sent = body.get("response_format", {}).get("type")
        if format_sent and _STRUCTURED.search(said):
            if self._formats[:1] == [format_sent]:  # else another call has noticed already
                self._formats.pop(0)
                log.warning("%s knows no %s answers: %s", self.name, format_sent, _said(error))
            return True
        if "tools" in body and _TOOLS.search(said):
            if body.get("tool_choice", "auto") == self._tool_modes[0]:  # else another call has noticed already
                self._tool_modes.pop(0)
                log.warning("%s takes no tools in this form: %s", self.name, _said(error))
            return True
        for parameter in ("temperature", "seed", "stop", "logprobs", "return_token_ids"):
            key = "extra_body" if parameter == "return_token_ids" else parameter
            if key in body and re.search(rf"\b{parameter}\b", said):
                if key not in self._dropped:
                    log.warning("%s takes no %s: %s", self.name, parameter, _said(error))
                self._dropped.add(key)
                return True
        return False

    def _read(self, content: bytes, request: Request) -> Completion:
        body = parsed(content)
        if not isinstance(body, dict) or "choices" not in body:
            said = said_in(body or content.decode("utf-8", "replace"), "nothing")
            if self._answered or b'"choices"' in content:
                problem = ModelError(f"{self.name}: the endpoint's answer is damaged: {self._redacted(said)}")
                if b'"choices"' in content:  # it was made, so it is billed
                    problem.tokens = self._tokens(None, content.decode("utf-8", "replace"), request, False)
                raise problem
            raise PrerequisiteError(
                f"{self._shown} answers, but not as an OpenAI-compatible endpoint ({self._redacted(said)}); is base_url "
                "right? It mostly ends in /v1."
            )
        choice = choice_in(body)
        message, truncated = choice.get("message"), cut_off(choice)
        text, thought = (text_in(message), thought_in(message)) if isinstance(message, dict) else ("", "")
        tokens = self._tokens(body.get("usage"), thought + text, request, truncated)
        if not isinstance(message, dict) and choice.get("finish_reason") != "content_filter":
            said = self._redacted(said_in({"message": body.get("message") or body.get("detail"), **body}, ""))
            problem = ModelError(f"{self.name}: the endpoint sent an answer without a choice that can be read: {said}")
            problem.tokens = tokens
            raise problem
        details = field(body.get("usage"), "prompt_tokens_details")
        cached, written = (count(details, name) for name in ("cached_tokens", "cache_write_tokens"))
        sampled, logprobs = sampled_in(choice)
        more = {"tokens": sampled, "logprobs": logprobs, "thought": thought}
        answer = Completion(text, *tokens, cached, written, truncated=truncated, **more)
        return answer.before(request.stop)

    def _tokens(self, usage: object, text: str, request: Request, truncated: bool) -> tuple[int, int]:
        """Tokens of prompt and answer. What the endpoint does not tell, or tells as nothing, is estimated: a guess keeps the
        budget honest where a zero would not."""
        prompt, answer = tokens_in(usage)
        if prompt and (answer or not (text or truncated)):
            return prompt, answer
        if not self._estimates:
            self._estimates = True
            log.warning("%s does not tell the tokens of all its answers; the missing ones are estimated", self.name)
        guess = self.sampling.max_tokens if truncated else -(-len(text) // 4)
        return prompt or -(-characters(request.messages, request.tools) // 4), answer or guess

    # ---- errors --------------------------------------------------------------------------------------------------

    async def _explain(self, error: Exception, client: openai.AsyncOpenAI, answered: int) -> LeapError:
        """The error for people: one line; of the kind that ends the run where no call can work."""
        never_worked = self._answered == 0
        cut_off = self._answered == answered  # nobody else has got through meanwhile either
        said = self._redacted(_said(error))
        key, host = self.endpoint.api_key_env, self._shown
        match error:
            case openai.APITimeoutError() if not isinstance(error.__cause__, httpx2.ConnectTimeout):
                times = self.endpoint.retries + 1
                return ModelError(f"{self.name}: no answer within {self.endpoint.timeout:g} s, {times} times in a row")
            case openai.APIConnectionError() if (full := out_of_files(error)) is not None:
                return full
            case openai.APIConnectionError() if not never_worked and not isinstance(error.__cause__, _UNREACHABLE):
                why = self._redacted(_reason(error.__cause__ or error))
                return ModelError(f"{self.name}: the endpoint's answer broke off or is damaged ({why})")
            case openai.APIConnectionError():
                way = "" if self._host in LOCAL else through_proxy()
                text = f"nothing can be reached at {host}{way} ({self._redacted(_reason(error.__cause__ or error))})"
                if cut_off:
                    return PrerequisiteError(f"{text}; is the server running, and is base_url right?")
                return ModelError(f"{self.name}: {text}")
            case openai.AuthenticationError() if self._key:
                return PrerequisiteError(f"{host} refuses the key in the environment variable {key}.")
            case openai.AuthenticationError():
                return PrerequisiteError(f"{host} needs a key: set the environment variable {key}.")
            case openai.PermissionDeniedError() if never_worked:  # later it may be about this one prompt
                return PrerequisiteError(f"the key in {key} may not use {self.model!r} at {host}: {said}")
            case openai.NotFoundError() if never_worked:
                return await self._not_found(said, client)
            case openai.APIStatusError() if error.status_code == 402 or "insufficient_quota" in f"{error.code} {said}":
                return PrerequisiteError(f"the account of the key in {key} has no credit left at {host}: {said}")
            case openai.APIStatusError() if _TOO_LONG.search(f"{error.code} {error.type} {said}"):
                return ContextTooLong(f"{self.name}: the prompt does not fit into the model's context: {said}")
            case openai.BadRequestError() if never_worked and re.search(rf"model.*{re.escape(self.model)}|pinned", said):
                return await self._not_found(said, client)
            case openai.BadRequestError() | openai.UnprocessableEntityError():
                if never_worked and not _FILTERED.search(f"{error.code} {said}"):
                    return PrerequisiteError(f"{host} refuses the very first request for {self.model!r}: {said}")
                return ModelRefused(f"{self.name}: the endpoint answered {error.status_code}: {said}")
            case openai.APIStatusError():
                return ModelError(f"{self.name}: the endpoint answered {error.status_code}: {said}")
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
            return PrerequisiteError(f"{self._shown} has no {self.model!r} ({said}); {hint}.")
        shown = self._redacted(", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) or "none"
        return PrerequisiteError(f"{self._shown} has no model {self.model!r}; it has: {shown}.")

    def _redacted(self, text: str) -> str:
        return without_key(text, self._key)


def host_of(url: str) -> str:
    """The host of an endpoint's address.

    Raises:
        PrerequisiteError: It is no address of one.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            httpx2.URL(url)  # curly quotes, control characters
            return parts.hostname
    except (ValueError, httpx2.InvalidURL):  # a port that is no number
        pass
    raise PrerequisiteError(f"{url!r} is no address of an endpoint; it looks like https://host/v1.")


def _sent(message: Message) -> JsonObject:
    """A message as endpoints take it: the arguments of a call are a text."""
    told = []
    for call in message.get("tool_calls", ()):
        arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        told.append(call | {"function": call["function"] | {"arguments": arguments}})
    return message | {"content": message["content"] or None, "tool_calls": told} if told else dict(message)


async def _answer(client: openai.AsyncOpenAI, request: JsonObject) -> bytes:
    """What the endpoint says, as it came."""
    if "prompt" in request:  # tokens, not messages
        model, prompt, more = request["model"], request["prompt"], {**request}
        del more["model"], more["prompt"]
        raw = await client.completions.with_raw_response.create(model=model, prompt=prompt, extra_body=more)
        return raw.http_response.content
    return (await client.chat.completions.with_raw_response.create(**request)).http_response.content


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _sum(*tokens: tuple[int, int]) -> tuple[int, int]:
    return sum(each[0] for each in tokens), sum(each[1] for each in tokens)


def _said(error: Exception) -> str:
    """What the endpoint itself said."""
    return said_in(getattr(error, "body", None), str(error) or type(error).__name__)
