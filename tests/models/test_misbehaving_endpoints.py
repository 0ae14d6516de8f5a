"""Endpoints that misbehave, over a real socket: each answer is read right or refused in one line with the endpoint's words, is
billed, takes no longer than its time-out, and the next call works."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leap.errors import LeapError, ModelError, ModelRefused, PrerequisiteError
from leap.models.base import Completion, EndpointConfig, Request, Sampling
from leap.models.ledger import Budget, BudgetReached, Ledger
from leap.models.metered import MeteredModel
from leap.models.prices import Price

pytest.importorskip("openai")
from leap.models import client
from leap.models.openai import OpenAIModel

KEY = "sk-secret-of-the-test-0123456789"
TEXT = "REASON: I look around.\nACTION: look"
USAGE = {"prompt_tokens": 70, "completion_tokens": 9, "total_tokens": 79}
SAMPLING = Sampling(temperature=0, max_tokens=50)
PROMPT = "fault " * 40  # 60 tokens by the estimate
TIMEOUT = 0.5


def answer(content: Any = TEXT, finish: Any = "stop", usage: Any = USAGE, **message: Any) -> dict[str, Any]:
    told = {"role": "assistant", "content": content, **message}
    return {"choices": [{"index": 0, "finish_reason": finish, "message": told}], "usage": usage}


def with_choice(choice: Any) -> dict[str, Any]:
    return answer() | {"choices": [choice]}


def http(body: Any, status: int = 200, *headers: str, length: int | None = None, kind: str = "application/json") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = [f"Content-Type: {kind}", f"Content-Length: {len(content) if length is None else length}", *headers]
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} X", *fields, "Connection: close", ""))
    return head.encode() + content


Reply = bytes | Callable[[], AsyncIterator[bytes]]


async def hang() -> AsyncIterator[bytes]:
    await asyncio.sleep(3600)
    yield b""


async def drip() -> AsyncIterator[bytes]:
    whole = http(answer(), length=1 << 20)
    yield whole
    while True:
        await asyncio.sleep(0.05)
        yield b"  "


async def drip_head() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        await asyncio.sleep(0.05)
        yield b"X-Wait: 1\r\n"


async def endless() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    while True:
        yield b" " * 65536


class Server:
    """Answers the prompts that begin with "fault" by what it is told, all others well."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.asked = 0
        self.last: dict[str, Any] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            length = next((int(line[16:]) for line in lines if line.startswith("content-length: ")), 0)
            body = await reader.readexactly(length)
            faulty = b"fault" in body or not body
            self.last = json.loads(body or b"{}")
            reply: Reply = self.replies[min(self.asked, len(self.replies) - 1)] if faulty else http(answer("fine"))
            self.asked += faulty
            if isinstance(reply, bytes):
                writer.write(reply)
                await writer.drain()
            else:
                async for part in reply():
                    writer.write(part)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Server, str]]:
    server, loop = Server(), asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(server.serve, "127.0.0.1", 0), loop).result(10)
    yield server, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"

    async def end() -> None:
        listening.close()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)


@pytest.fixture
def at(served: tuple[Server, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., OpenAIModel]:
    """A model at a server that gives these replies, the last one for ever."""
    server, url = served
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(client, "LONGEST_ANSWER", 1 << 20)

    def model(*replies: Reply, retries: int = 0, timeout: float = 30) -> OpenAIModel:
        server.replies, server.asked = list(replies), 0
        return OpenAIModel("m", SAMPLING, EndpointConfig(base_url=url, retries=retries, timeout=timeout, concurrency=2))

    return model


async def say(model: Any, prompt: str = PROMPT, **more: Any) -> Completion:
    async with model.conversation() as conversation:
        return await conversation.complete(Request([{"role": "user", "content": prompt}], seed=0, **more))


CALL = {"id": "1", "type": "function", "function": {"name": "act", "arguments": '{"a": "look"}'}}
CALLED = '<tool_call>\n{"name": "act", "arguments": {"a": "look"}}\n</tool_call>'
CUT = len(json.dumps(answer())) - 30

READ: dict[str, tuple[bytes, str]] = {
    "plain": (http(answer()), TEXT),
    "parts": (http(answer([{"type": "text", "text": TEXT[:9]}, {"type": "text", "text": TEXT[9:]}])), TEXT),
    "parts with thinking": (
        http(answer([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": TEXT}])),
        TEXT,
    ),
    "parts with reasoning": (http(answer([{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": TEXT}])), TEXT),
    "parts without types": (http(answer([{"text": TEXT}])), TEXT),
    "parts that are texts": (http(answer([TEXT[:9], TEXT[9:]])), TEXT),
    "parts of nonsense": (http(answer([None, 3, [[]], {}, {"type": "image_url"}, {"type": "text", "text": None}])), ""),
    "one part alone": (http(answer({"type": "text", "text": TEXT})), TEXT),
    "content is JSON": (http(answer({"action": "lóok"})), '{"action": "lóok"}'),
    "content is a number": (http(answer(42)), "42"),
    "content is null": (http(answer(None)), ""),
    "no content": (http(with_choice({"message": {}, "finish_reason": "stop"})), ""),
    "reasoning_content alone": (http(answer(None, reasoning_content=TEXT)), ""),
    "reasoning alone": (http(answer("\n", reasoning=TEXT)), ""),
    "a thought in the content": (http(answer(f"<think>ACTION: jump</think>\n\n{TEXT}")), TEXT),
    "a thought cut off": (http(answer(f"<think>ACTION: jump\n{TEXT}", "length")), ""),
    "a thought that the prompt began": (http(answer(f"ACTION: jump\n</think>\n\n{TEXT}")), TEXT),
    "a thought within a line": (http(answer(f"ACTION: jump.</think>\n{TEXT}")), TEXT),
    "a thought of Magistral": (http(answer(f"[THINK]ACTION: jump[/THINK]{TEXT}")), TEXT),
    "channels": (
        http(answer(f"<|channel|>analysis<|message|>ACTION: jump<|end|><|start|>assistant<|channel|>final<|message|>{TEXT}")),
        TEXT,
    ),
    "reasoning_content as well": (http(answer(TEXT, reasoning_content="ACTION: jump")), TEXT),
    "reasoning_content cut off": (http(answer(None, "length", reasoning_content="ACTION: perhaps")), ""),
    "reasoning_content of nonsense": (http(answer(TEXT, reasoning_content=[1], refusal=[])), TEXT),
    "cut off, in Mistral's word": (http(answer(TEXT, "model_length")), TEXT),
    "cut off, in Gemini's word": (http(answer(TEXT, "MAX_TOKENS")), TEXT),
    "refusal": (http(answer(None, refusal="I cannot help.")), "I cannot help."),
    "refusal as a part": (http(answer([{"type": "refusal", "refusal": "No."}])), "No."),
    "content filter": (http(with_choice({"message": None, "finish_reason": "content_filter"})), ""),
    "first choice null": (http(answer() | {"choices": [None, *answer()["choices"]]}), TEXT),
    "choice twice": (http(answer() | {"choices": answer()["choices"] * 2}), TEXT),
    "odd finish reason": (http(answer(TEXT, {"reason": ["stop"]})), TEXT),
    "error of null": (http(answer() | {"error": None}), TEXT),
    "tool call": (http(answer(None, "tool_calls", tool_calls=[CALL])), CALLED),
    "tool call with an object": (
        http(answer(None, tool_calls=[{"function": {"name": "act", "arguments": {"a": "look"}}}])),
        CALLED,
    ),
    "tool call outside a list": (http(answer(None, tool_calls=CALL)), CALLED),
    "a part's text as an object": (http(answer([{"type": "text", "text": {"value": TEXT}}])), TEXT),
    "function call of old": (http(answer(None, function_call=CALL["function"])), CALLED),
    "tool calls of nonsense": (http(answer(TEXT, tool_calls=[None, 3, {}, {"function": "act"}])), TEXT),
    "tool calls of no list": (http(answer(TEXT, tool_calls="act", function_call=[])), TEXT),
    "tool call without a name": (
        http(answer(None, tool_calls=[{"function": {"name": None, "arguments": None}}])),
        '<tool_call>\n{"name": "", "arguments": ""}\n</tool_call>',
    ),
    "half a surrogate pair": (http(answer("a\ud83d b")), "a\ud83d b"),
    "control characters": (http(answer("a\x00b\x1b[2J\r\n")), "a\x00b\x1b[2J\r\n"),
    "JSON as a web page": (http(answer(), kind="text/html"), TEXT),
    "byte order mark": (http(b"\xef\xbb\xbf" + json.dumps(answer()).encode()), TEXT),
    "blanks before": (http(b" \n" * 500 + json.dumps(answer()).encode()), TEXT),
    "packed": (http(gzip.compress(json.dumps(answer()).encode()), 200, "Content-Encoding: gzip"), TEXT),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(answer()).encode(), TEXT),
    "fields without a name": (http(answer() | {"": [], "model": None, "id": {}, "object": 3}), TEXT),
}


@pytest.mark.parametrize("mode", READ)
def test_an_odd_answer_is_read(mode: str, at: Callable[..., OpenAIModel]) -> None:
    reply, text = READ[mode]

    async def both() -> tuple[Completion, Completion]:
        return await say(model := at(reply)), await say(model, "well?")

    odd, next_one = asyncio.run(both())
    assert (odd.text, odd.prompt_tokens, odd.completion_tokens) == (text, 70, 9)
    assert odd.truncated == ("cut off" in mode) and next_one.text == "fine"


GUESS = (60, 9)  # of the prompt and of TEXT
TOKENS: dict[str, tuple[Any, tuple[int, int]]] = {
    "null": (None, GUESS),
    "empty": ({}, GUESS),
    "zeros": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, GUESS),
    "text": ({"prompt_tokens": "70", "completion_tokens": " 9", "total_tokens": "79"}, (70, 9)),
    "words": ({"prompt_tokens": "many", "completion_tokens": "few"}, GUESS),
    "fractions": ({"prompt_tokens": 70.0, "completion_tokens": 9.0}, (70, 9)),
    "negative": ({"prompt_tokens": -70, "completion_tokens": -9, "total_tokens": -79}, GUESS),
    "beyond 2^63": ({"prompt_tokens": 10**25, "completion_tokens": 2**63}, GUESS),
    "beyond floats": ({"prompt_tokens": 10**400, "completion_tokens": 9}, (60, 9)),
    "far too many": ({"prompt_tokens": 10**15, "completion_tokens": 10**12}, GUESS),
    "no number": ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, GUESS),
    "true": ({"prompt_tokens": True, "completion_tokens": [9]}, GUESS),
    "a list": ([70, 9], GUESS),
    "a text": ("70", GUESS),
    "a number": (79, GUESS),
    "prompt alone": ({"prompt_tokens": 70}, (70, 9)),
    "by their total": ({"prompt_tokens": 70, "total_tokens": 90}, (70, 20)),
    "other names": ({"input_tokens": 70, "output_tokens": 20}, (70, 20)),
    "reasoning in the total alone": ({**USAGE, "total_tokens": 579}, (70, 509)),
    "other names, nothing beside": ({"prompt_tokens": 0, "input_tokens": 70, "output_tokens": 20}, (70, 20)),
    "details of nonsense": ({**USAGE, "prompt_tokens_details": {"cached_tokens": -5}, "completion_tokens_details": 3}, (70, 9)),
    "details of another kind": ({**USAGE, "prompt_tokens_details": [1]}, (70, 9)),
}


@pytest.mark.parametrize("mode", TOKENS)
def test_tokens_told_badly_are_estimated_and_keep_the_cap(mode: str, at: Callable[..., OpenAIModel], tmp_path: Path) -> None:
    usage, expected = TOKENS[mode]
    ledger = Ledger(tmp_path / "calls.sqlite", {"openai/m": Price(input=1e6, output=1e6)}, Budget(usd=3 * sum(expected)))
    model = MeteredModel(at(http(answer(usage=usage))), SAMPLING, ledger)

    async def calls() -> list[Completion]:
        return [await say(model, PROMPT + "x" * (number % 2)) for number in range(2)] + [await say(model, "fault")]

    one, two, _ = asyncio.run(calls())
    assert (one.prompt_tokens, one.completion_tokens) == expected and one.cached_tokens == 0
    assert one.cost == sum(expected) <= two.cost and ledger.spent[1] <= 3 * sum(expected)
    with pytest.raises(BudgetReached):
        for number in range(40):
            asyncio.run(say(model, f"{PROMPT}{number}"))
    assert ledger.spent[0] < 4 * sum(expected) + 3


def test_an_answer_that_is_cut_off_before_a_word_is_billed_as_long_as_it_may_be(at: Callable[..., OpenAIModel]) -> None:
    told = asyncio.run(say(at(http(answer(None, "length", usage=None, reasoning_content="hm")))))
    assert (told.text, told.truncated, told.completion_tokens) == ("", True, SAMPLING.max_tokens)


def failing(words: Any, **more: Any) -> bytes:
    return http({"error": words, **more})


OVERLOADED = {"message": "Provider returned error", "code": 502}
REFUSED: dict[str, tuple[Reply, str]] = {
    "error in 200": (failing(OVERLOADED), "answered 502: Provider returned error"),
    "error in 200, a text": (failing("model not loaded"), "model not loaded"),
    "error in 200, a list": (http({"errors": [{"message": "busy"}]}), "busy"),
    "error in 200, true": (failing(True, message="busy"), "busy"),
    "error in 200, its code a text": (failing({"message": "busy", "code": "429"}), "answered 429: busy"),
    "error in 200, its code a word": (failing({"message": "busy", "code": "overloaded"}), "busy"),
    "error in 200, its code nonsense": (failing({"message": "busy", "code": [1e400]}), "busy"),
    "error in 200, no choices": (failing(OVERLOADED, choices=[], usage=None), "Provider returned error"),
    "error in 200, the provider's words": (
        failing({**OVERLOADED, "metadata": {"raw": "upstream\nburns", "provider_name": "X"}}),
        r"Provider returned error \(upstream burns\)",
    ),
    "error in 200, as vLLM had it": (http({"object": "error", "message": "busy", "code": 500}), "answered 500: busy"),
    "error in the choice": (
        http(with_choice({"finish_reason": "error", "error": {"code": 503, "message": "overloaded"}, "message": None})),
        "answered 503: overloaded",
    ),
    "error in the choice, words beside": (http(answer("", "error") | {"error": {"message": "overloaded"}}), "overloaded"),
    "error as the end": (http(answer("half an ans", "error")), "ended in an error"),
    "aborted": (http(answer("half an ans", "abort")), "ended in an error"),
    "choices null": (http({"choices": None, "message": "no capacity"}), "no capacity"),
    "choices empty": (http(answer() | {"choices": []}), "without a choice"),
    "choice null": (http(with_choice(None)), "without a choice"),
    "choice a number": (http(with_choice(3)), "without a choice"),
    "choices an object": (http(answer() | {"choices": {"0": {}}}), "without a choice"),
    "no message": (http(with_choice({"index": 0})), "without a choice"),
    "message a text": (http(with_choice({"message": TEXT})), "without a choice"),
    "a list": (http([1, 2, 3]), "damaged"),
    "a text": (http("hello"), "damaged"),
    "nothing": (http(b""), "damaged"),
    "no content": (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", "damaged"),
    "null": (http(None), "damaged"),
    "a web page": (http(b"<html><body>Sign in</body></html>", kind="text/html"), "damaged: Sign in"),
    "a stream": (http(b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\ndata: [DONE]\n\n'), "damaged"),
    "nested without end": (http(b"[" * 200_000), "damaged"),
    "nested choices": (http(b'{"choices": ' + b"[" * 200_000), "damaged"),
    "nested error": (http(b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}"), "the endpoint"),
    "digits without end": (http(b'{"choices": ' + b"9" * 9000 + b"}"), "damaged"),
    "half an answer": (http(json.dumps(answer()).encode()[:CUT]), "damaged"),
    "no UTF-8": (http(b'{"choices": "\xff\xfe"}'), "damaged"),
    "too short for its length": (http(answer(), length=10**6), "broke off"),
    "too long for its length": (http(answer(), length=20), "damaged"),
    "closed at once": (b"", "broke off"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "broke off"),
    "unpacks to nonsense": (http(b"\x00\x01\x02", 200, "Content-Encoding: gzip"), "broke off or is damaged"),
    "a bomb": (http(gzip.compress(bytes(2 << 20)), 200, "Content-Encoding: gzip"), "longer than 1 MB"),
    "huge": (http(answer("y" * (2 << 20))), "longer than 1 MB"),
    "endless": (endless, "longer than 1 MB"),
    "silence": (hang, "no answer within 0.5 s"),
    "drips": (drip, "no answer within 0.5 s"),
    "drips its head": (drip_head, "no answer within 0.5 s"),
    "redirects in a circle": (http(b"", 307, "Location: /v1/chat/completions"), "redirect"),
    "redirects to nowhere": (http(b"", 307, "Location: http://:99999/"), "the endpoint|m: "),
    "slow down": (http({"error": {"message": "slow down"}}, 429), "answered 429: slow down"),
    "slow down for a day": (http({"error": {"message": "slow down"}}, 429, "Retry-After: 99999"), "answered 429"),
    "bad gateway": (http(b"<html><h1>502 Bad Gateway</h1></html>", 502, kind="text/html"), "answered 502: 502 Bad Gateway"),
    "an error of text": (http({"error": "overloaded", "detail": ["x"]}, 503), "answered 503: overloaded"),
    "an error without words": (http(b"", 500), "answered 500"),
    "an error that repeats the key": (http({"error": {"message": f"bad header: Bearer {KEY}"}}, 500), r"Bearer \(the key\)"),
    "an error of status 600": (http({}, 599), "answered 599"),
    "refused": (http({"error": {"message": "invalid prompt"}}, 400), "answered 400: invalid prompt"),
    "forbidden": (http({"error": {"message": f"no: {KEY}"}}, 403), r"\(the key\)"),
}


@pytest.mark.parametrize("mode", REFUSED)
def test_a_bad_answer_is_refused_in_one_line_and_the_next_call_works(mode: str, at: Callable[..., OpenAIModel]) -> None:
    reply, words = REFUSED[mode]

    async def three() -> Completion:
        model = at(reply, timeout=TIMEOUT)
        assert (await say(model, "well?")).text == "fine"
        began = time.monotonic()
        # While others get through, which tells one bad answer from a server that is gone.
        outcomes = await asyncio.gather(say(model), say(model, "well?"), return_exceptions=True)
        assert time.monotonic() - began < TIMEOUT + 1
        assert isinstance(outcomes[1], Completion)
        assert type(outcomes[0]) is (ModelRefused if mode == "refused" else ModelError)  # a refusal is not tried again
        said = str(outcomes[0])
        assert re.search(words, said)
        assert "\n" not in said and KEY not in said and len(said) < 450
        return await say(model, "well?")

    assert asyncio.run(three()).text == "fine"


@pytest.mark.parametrize("mode", [mode for mode, (reply, _) in REFUSED.items() if isinstance(reply, bytes)])
def test_a_bad_answer_to_the_very_first_call_is_an_error_for_people(mode: str, at: Callable[..., OpenAIModel]) -> None:
    with pytest.raises(LeapError) as caught:
        asyncio.run(say(at(REFUSED[mode][0])))
    assert "\n" not in str(caught.value) and KEY not in str(caught.value)
    if "error in" in mode:
        assert "OpenAI-compatible" not in str(caught.value)


@pytest.mark.parametrize("mode", ["a stream", "half an answer", "too long for its length", "a web page"])
def test_an_answer_that_arrives_damaged_is_billed_all_the_same(mode: str, at: Callable[..., OpenAIModel]) -> None:
    async def second() -> None:
        model = at(REFUSED[mode][0])
        await say(model, "well?")
        await say(model)

    with pytest.raises(ModelError) as caught:
        asyncio.run(second())
    assert (caught.value.tokens > (10, 0)) is (mode != "a web page")


def test_what_passes_is_retried(at: Callable[..., OpenAIModel], served: tuple[Server, str]) -> None:
    crowded = http({"error": {"message": "Too many requests, slow down", "code": 400}}, 400)
    for bad in (failing(OVERLOADED), http(answer("", "error")), http(b"", 503), crowded):
        told = asyncio.run(say(at(bad, http(answer()), retries=1)))
        assert (told.text, served[0].asked) == (TEXT, 2)
        # An answer of failure that tells its usage is billed.
        assert (told.prompt_tokens, told.completion_tokens) == ((140, 18) if b"finish" in bad else (70, 9))
    with pytest.raises(PrerequisiteError, match="refuses the key"):
        asyncio.run(say(at(failing({"message": "no", "code": 401}), retries=3)))
    assert served[0].asked == 1


@pytest.mark.parametrize(
    "reply", [
        http(answer() | {"choices": []}),
        http({"choices": None, "usage": {}}),
        failing(OVERLOADED, usage=USAGE),
        http(answer("", "error")),
    ],
)
def test_answers_of_no_use_count_against_the_cap(reply: bytes, at: Callable[..., OpenAIModel], tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "calls.sqlite", {"openai/m": Price(input=1e6, output=1e6)}, Budget(usd=300))
    model = MeteredModel(at(reply), SAMPLING, ledger)
    model.model._answered = 1  # type: ignore[attr-defined]
    failed = 0
    with pytest.raises(BudgetReached):
        for number in range(40):
            try:
                asyncio.run(say(model, f"{PROMPT}{number}"))
            except ModelError:
                failed += 1
    assert failed == ledger.total().failed in (4, 5) and ledger.total().cost == ledger.spent[0] >= 300


def test_halves_of_surrogate_pairs_go_out_as_what_can_be_sent(at: Callable[..., OpenAIModel], served: tuple[Server, str]) -> None:
    assert asyncio.run(say(at(http(answer())), "fault \ud83d\ude00 \ud83d é")).text == TEXT
    assert served[0].last["messages"][0]["content"] == "fault 😀 \ufffd é"
