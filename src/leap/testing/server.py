"""A real HTTP server that speaks the OpenAI protocol, with faults on demand; it counts what it answered.

    with MockServer(least_json, faults=Faults({"rate_limit": 0.1, "broken": 0.1})) as server:
        model = open_model("openai/mock", sampling, endpoint=EndpointConfig(base_url=server.base_url))

For tests and benchmarks: everything that goes over the wire is real, only the model is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Self

from leap.core import JsonObject
from leap.core.message import characters
from leap.models.base import Completion, Request
from leap.models.mock import Faults, Script, clipped, least_json, spoiled

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(slots=True)
class Counts:
    """What a server did.

    Attributes:
        requests: Calls that arrived.
        answered: Calls answered with 200, spoiled answers included: what an endpoint would bill.
        prompt_tokens: Tokens of the answered calls' prompts.
        completion_tokens: Tokens of the answers.
        statuses: Answers by HTTP status; 0 for those never given.
        most_at_once: Most calls under way at once.
        by_prompt: Answered calls by the last message of the prompt.
    """

    requests: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    most_at_once: int = 0
    by_prompt: Counter[str] = field(default_factory=Counter)


class ServerThread(ABC):
    """A server of this machine in a thread of its own, from entering its `with` block to leaving it. `_serve` answers on one
    connection.

    Attributes:
        port: 0 for any free one.
    """

    port: int = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 24, backlog=1024)

    async def _stop(self) -> None:
        self._server.close()
        serving = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...


@dataclass
class MockServer(ServerThread):
    """Serves a script.

    Attributes:
        script: Makes the answers.
        faults: What goes wrong.
        delay: Seconds per answer.
        hang: Seconds that a call with the fault "timeout" is held before its connection is cut.
        retry_after: Seconds that a 429 asks to wait.
        key: The key that calls must carry; any if None.
        models: Names it serves.
        aliases: Names it also answers to, but does not list, as gateways do.
        context: Most tokens of prompt and answer, at four characters each; endless if None.
        refuses: Parameters of a request that are refused, as some endpoints do: "response_format", "json_schema",
            "temperature", "seed", "stop", "max_tokens", "tools"; "auto" are tools that may be called.
        choice: What stands in each answer's choice beside the message.
        port: 0 for any free one.
        counts: What was done so far.
        last: The last request.
    """

    script: Script = least_json
    _: KW_ONLY
    faults: Faults = field(default_factory=Faults)
    delay: float = 0.0
    hang: float = 60.0
    retry_after: float = 0.05
    key: str | None = None
    models: Sequence[str] = ("mock",)
    aliases: Sequence[str] = ()
    context: int | None = None
    refuses: Sequence[str] = ()
    choice: Mapping[str, object] = field(default_factory=dict)
    port: int = 0
    counts: Counts = field(default_factory=Counts, init=False)
    last: JsonObject = field(default_factory=dict, init=False)
    _at_once: int = field(default=0, init=False)

    @property
    def base_url(self) -> str:
        """Its address, with /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                start, *lines = head.split("\r\n")
                headers = {
                    name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, *_ = start.split(" ")
                status, answer = await self._route(method, path, headers, body)
                if status == 0:
                    break
                payload = json.dumps(answer).encode()
                fields = {"Content-Type": "application/json", "Content-Length": len(payload)}
                if status == 429:
                    fields["Retry-After"] = f"{self.retry_after:g}"
                text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                writer.write(f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\n{text}\r\n".encode() + payload)
                await writer.drain()
        writer.close()

    async def _route(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, JsonObject]:
        if path == "/health":
            return 200, {}
        if not path.startswith("/v1/"):
            return 404, {"detail": "Not Found"}
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            shown = headers.get("authorization", "").removeprefix("Bearer ")
            return 401, _error(f"Incorrect API key provided: {shown}.", "invalid_api_key")
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        if (method, path) != ("POST", "/v1/chat/completions"):
            return 404, {"detail": "Not Found"}
        self._at_once += 1
        self.counts.requests += 1
        self.counts.most_at_once = max(self.counts.most_at_once, self._at_once)
        try:
            status, answer = await self._complete(json.loads(body))
        finally:
            self._at_once -= 1
        self.counts.statuses[status] += 1
        return status, answer

    async def _complete(self, request: JsonObject) -> tuple[int, JsonObject]:
        self.last = request
        if request.get("model") not in [*self.models, *self.aliases]:
            return 404, _error(f"The model `{request.get('model')}` does not exist.", "model_not_found")
        refused = self._refused(request)
        if refused:
            return 400, _error(f"Unsupported parameter: {refused}", "unsupported_parameter")
        messages = [message | {"content": message.get("content") or ""} for message in request["messages"]]
        limit = request.get("max_tokens") or request.get("max_completion_tokens") or 1 << 30
        needed = characters(messages) // 4
        if self.context is not None and needed > self.context:
            text = (
                f"This model's maximum context length is {self.context} tokens. However, you requested {needed} tokens."
            )
            return 400, _error(text, "context_length_exceeded")
        fault = self.faults.draw(self.counts.requests)
        if fault == "timeout":
            await asyncio.sleep(self.hang)
            return 0, {}
        if fault == "rate_limit":
            return 429, _error("Rate limit reached.", "rate_limit_exceeded")
        if fault == "server_error":
            return 500, _error("The server had an error.", None)
        await asyncio.sleep(self.delay)
        shape = request.get("response_format", {}).get("json_schema", {}).get("schema")
        stop = request.get("stop", ())
        said = self.script(
            Request(messages, request.get("seed", 0), schema=shape, tools=request.get("tools", ()), stop=stop)
        )
        calls = [] if isinstance(said, str) else [(name, spoiled(fault, told)[0]) for name, told in said.told()]
        done = clipped(*spoiled(fault, said if isinstance(said, str) else said.content), messages, limit).before(stop)
        self.counts.answered += 1
        self.counts.prompt_tokens += done.prompt_tokens
        self.counts.completion_tokens += done.completion_tokens
        self.counts.by_prompt[messages[-1]["content"][:200]] += 1
        return 200, _chat_completion(request["model"], done, calls, self.choice)

    def _refused(self, request: JsonObject) -> str:
        for name in request.keys() & set(self.refuses):
            other = (
                "; use 'max_completion_tokens' instead."
                if name == "max_tokens"
                else " is not supported with this model."
            )
            return f"'{name}'{other}"
        if "auto" in self.refuses and "tools" in request and request.get("tool_choice") != "none":
            return '"auto" tool choice is not enabled here'
        kind = request.get("response_format", {}).get("type", "")
        return f"this response_format type is unavailable: {kind}" if kind in self.refuses else ""


def _error(message: str, code: str | None) -> JsonObject:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def _chat_completion(
    model: str, done: Completion, calls: Sequence[tuple[str, str]], more: Mapping[str, object]
) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": done.text}
    if calls:
        message["content"] = done.text or None
        message["tool_calls"] = [
            {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": told}}
            for number, (name, told) in enumerate(calls)
        ]
    ended = "length" if done.truncated else "tool_calls" if calls else "stop"
    usage = {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.completion_tokens}
    usage["total_tokens"] = done.prompt_tokens + done.completion_tokens
    choices = [{"index": 0, "message": message, "finish_reason": ended, **more}]
    named = {"id": "chatcmpl-mock", "object": "chat.completion", "created": 0, "model": model}
    return named | {"choices": choices, "usage": usage}
