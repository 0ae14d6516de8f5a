"""OpenAIModel against real HTTP servers: what is sent, what is retried, and what people are told when it cannot work."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from leap.errors import ContextTooLong, ModelError, PrerequisiteError
from leap.models.base import Completion, EndpointConfig, Request, Sampling
from leap.models.mock import Faults, prose
from leap.models.wire import said_in, without_key
from leap.testing.server import MockServer

pytest.importorskip("openai")
from leap.models.openai import OpenAIModel

KEY = "sk-secret-of-the-test-0123456789"
SAMPLING = Sampling(temperature=0.3, max_tokens=64)
SCHEMA = {"title": "Answer", "type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def model_at(url: str, *, name: str = "mock", sampling: Sampling = SAMPLING, **endpoint: Any) -> OpenAIModel:
    return OpenAIModel(name, sampling, EndpointConfig(base_url=url, **({"retries": 2, "timeout": 5} | endpoint)))


def ask(model: OpenAIModel, *prompts: str, seed: int = 0, **more: Any) -> list[Completion]:
    """All prompts at once, in one event loop."""

    async def one(prompt: str) -> Completion:
        async with model.conversation() as conversation:
            return await conversation.complete(Request([{"role": "user", "content": prompt}], seed=seed, **more))

    async def everything() -> list[Completion]:
        return list(await asyncio.gather(*(one(prompt) for prompt in prompts)))

    return asyncio.run(everything())


def echo(request: Request) -> str:
    return f"You said: {request.messages[-1]['content']}"


def test_an_answer_with_its_tokens_and_what_was_sent() -> None:
    with MockServer(echo) as server:
        (answer,) = ask(model_at(server.base_url), "hello", seed=2**40 + 7)
        assert answer == Completion("You said: hello", 2, 4)
        sent = server.last
        assert sent["messages"] == [{"role": "user", "content": "hello"}]
        assert (sent["temperature"], sent["seed"], sent["max_tokens"]) == (0.3, 7, 64)
        assert "response_format" not in sent


def test_halves_of_characters_come_as_they_are_said_and_are_asked_about_all_the_same() -> None:
    odd = "half \ud83d, both \ud83d\ude00, \0"
    with MockServer(lambda request: odd) as server:
        assert [answer.text for answer in ask(model_at(server.base_url), odd, "x")] == ["half \ud83d, both \U0001f600, \0"] * 2
        ask(model_at(server.base_url), odd)
        assert server.last["messages"][0]["content"] == "half \ufffd, both \U0001f600, \0"


def test_one_model_serves_many_event_loops_and_leaves_no_connection_open() -> None:
    with MockServer(echo) as server:
        model = model_at(server.base_url)
        for n in range(3):
            assert [a.text for a in ask(model, f"a{n}", f"b{n}")] == [f"You said: a{n}", f"You said: b{n}"]
            assert model._wire is not None and model._wire.client.is_closed()  # with its loop
        model.close()


def test_no_more_calls_at_once_than_allowed() -> None:
    with MockServer(echo, delay=0.02) as server:
        ask(model_at(server.base_url, concurrency=3), *map(str, range(12)))
        assert server.counts.most_at_once == 3


class First(Faults):
    """The first call alone goes wrong."""

    def draw(self, number: int) -> str | None:
        return next(iter(self.rates)) if number == 1 else None


@pytest.mark.parametrize("kind", ["rate_limit", "server_error", "timeout"])
def test_passing_failures_are_retried(kind: str) -> None:
    with MockServer(echo, faults=First({kind: 1.0}), hang=5) as server:
        answers = ask(model_at(server.base_url, timeout=1.5 if kind == "timeout" else 5), "a", "b")
        assert [a.text for a in answers] == ["You said: a", "You said: b"]
        assert server.counts.requests == 3 and server.counts.answered == 2


def test_retry_after_is_kept_to() -> None:
    with MockServer(echo, faults=First({"rate_limit": 1.0}), retry_after=1.2) as server:
        began = time.monotonic()
        ask(model_at(server.base_url), "x")
        assert time.monotonic() - began >= 1.2  # the client's own first pause is half a second at most


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("rate_limit", "answered 429: Rate limit"),
        ("server_error", "answered 500"),
        ("timeout", "no answer within 1.5 s, 2 times"),
    ],
)
def test_lasting_failures_end_in_one_line(kind: str, told: str) -> None:
    with MockServer(echo, faults=Faults({kind: 1.0}), hang=5) as server:
        with pytest.raises(ModelError, match=told) as caught:
            ask(model_at(server.base_url, timeout=1.5 if kind == "timeout" else 5, retries=1), "x")
        assert "\n" not in str(caught.value)
        assert server.counts.requests == 2 and server.counts.answered == 0


def test_truncated_and_empty_answers_are_told_as_such() -> None:
    with MockServer(lambda request: "word " * 400) as server:
        (answer,) = ask(model_at(server.base_url), "x")
        assert answer.truncated and answer.completion_tokens == 64
    with MockServer(echo, faults=Faults({"empty": 1.0})) as server:
        (answer,) = ask(model_at(server.base_url), "x")
        assert answer.text == "" and not answer.truncated and answer.prompt_tokens == 1


# ---- what an endpoint does not know ----------------------------------------------------------------------------------


def test_json_schema_mode_is_used_where_there_is_one() -> None:
    with MockServer() as server:
        (answer,) = ask(model_at(server.base_url), "x", schema=SCHEMA)
        assert answer.text == '{"x": "mock"}'
        assert server.last["response_format"]["json_schema"] == {"name": "Answer", "schema": SCHEMA, "strict": True}


@pytest.mark.parametrize(
    ("refuses", "left"), [(["json_schema"], "json_object"), (["json_schema", "json_object"], None), (["response_format"], None)]
)
def test_a_refused_schema_mode_is_remembered(refuses: list[str], left: str | None) -> None:
    with MockServer(prose, refuses=refuses) as server:
        model = model_at(server.base_url)
        ask(model, *"abcdef", schema=SCHEMA)
        before = server.counts.requests
        (answer,) = ask(model, "x", schema=SCHEMA)
        assert answer.text.startswith("I am sorry")
        assert server.counts.requests == before + 1
        assert server.last.get("response_format", {}).get("type") == left


@pytest.mark.parametrize("refused", ["temperature", "seed", "max_tokens"])
def test_refused_parameters_are_left_out(refused: str) -> None:
    with MockServer(echo, refuses=[refused]) as server:
        model = model_at(server.base_url)
        assert len(ask(model, "a", "b", "c")) == 3
        assert refused not in server.last
        assert server.last.get("max_completion_tokens") == (64 if refused == "max_tokens" else None)
        before = server.counts.requests
        ask(model, "d")
        assert server.counts.requests == before + 1


SAMPLED = {"token_ids": [5, 6], "logprobs": {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": 0}]}}


@pytest.mark.parametrize("refuses", [[], ["logprobs"], ["return_token_ids"]])
def test_tokens_as_sampled_are_asked_for_where_the_recipe_says_so(refuses: list[str]) -> None:
    with MockServer(echo, choice=SAMPLED, refuses=refuses) as server:
        (answer,) = ask(model_at(server.base_url, tokens=True), "x")
        assert (answer.tokens, answer.logprobs) == ((5, 6), (-0.5, 0.0))
        asked = {"logprobs": True, "return_token_ids": True}
        assert {name: server.last.get(name) for name in asked} == asked | dict.fromkeys(refuses)
        ask(model_at(server.base_url), "x")
        assert not {"logprobs", "return_token_ids"} & server.last.keys()


@pytest.mark.parametrize(
    "choice",
    [
        {"token_ids": "12"},
        {"token_ids": [1, -2]},
        {"token_ids": [True, 1.0]},
        {"logprobs": SAMPLED["logprobs"]},
        {"token_ids": [1, 2], "logprobs": {"content": [{"logprob": "x"}, None]}},
        {"token_ids": [1, 2], "logprobs": [3]},
    ],
)
def test_tokens_that_are_nonsense_are_none(choice: dict[str, Any]) -> None:
    with MockServer(echo, choice=choice) as server:
        (answer,) = ask(model_at(server.base_url), "x")
        assert answer.logprobs == () and answer.tokens == ((1, 2) if choice.get("token_ids") == [1, 2] else ())
        assert answer.text == "You said: x"


# ---- what cannot work ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refuses", [[], ["stop"]])
def test_an_answer_ends_where_it_is_asked_to_end_whoever_ends_it(
    refuses: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with MockServer(lambda request: "<think>\nDONE?</think>Look.\nDONE and more", refuses=refuses) as server:
        model = model_at(server.base_url)
        answers = [ask(model, "x", stop=["\nDONE", "\nEND"])[0] for _ in range(2)]
        assert {(answer.thought, answer.text) for answer in answers} == {("DONE?", "Look.")}
        assert server.last.get("stop") == (None if refuses else ["\nDONE", "\nEND"])
        assert server.counts.statuses[400] == len(refuses) and len(caplog.records) == len(refuses)
        ask(model, "x")
        assert "stop" not in server.last


def test_a_warmer_request() -> None:
    with MockServer(echo) as server:
        model = model_at(server.base_url)
        for warmer, temperature in ((0.0, 0.3), (0.3, 0.6), (2.0, 1.0)):
            ask(model, "x", warmer=warmer)
            assert server.last["temperature"] == pytest.approx(temperature)


def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrerequisiteError, match="set the environment variable MY_KEY"):
        OpenAIModel("gpt-4o", SAMPLING, EndpointConfig(api_key_env="MY_KEY"))
    with MockServer(echo, key=KEY) as server:
        with pytest.raises(PrerequisiteError, match="needs a key: set the environment variable MY_KEY"):
            ask(model_at(server.base_url, api_key_env="MY_KEY"), "x")
        monkeypatch.setenv("MY_KEY", KEY)
        assert ask(model_at(server.base_url, api_key_env="MY_KEY"), "x")[0].text == "You said: x"


def test_a_wrong_key_ends_the_run_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with MockServer(echo, key="another") as server:  # whose error repeats the key that was sent
        with pytest.raises(PrerequisiteError, match="refuses the key in the environment variable OPENAI_API_KEY") as caught:
            ask(model_at(server.base_url), "x")
        assert KEY not in str(caught.value)


def test_an_unknown_model_and_those_there_are() -> None:
    with MockServer(echo, models=["small", "large"]) as server, pytest.raises(PrerequisiteError) as caught:
        ask(model_at(server.base_url, name="tiny"), "x")
    assert str(caught.value) == f"{server.base_url} has no model 'tiny'; it has: small, large."


def test_a_wrong_path() -> None:
    with MockServer(echo) as server, pytest.raises(PrerequisiteError, match="is base_url right"):
        ask(model_at(server.base_url.removesuffix("/v1")), "x")


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "http://host:many/v1", "http:///v1"])
def test_no_address_at_all(url: str) -> None:
    with pytest.raises(PrerequisiteError, match="no address of an endpoint"):
        model_at(url)


def test_nothing_at_the_address() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(PrerequisiteError, match="nothing can be reached at") as caught:
        ask(model_at(f"http://127.0.0.1:{port}/v1", retries=1), "x")
    assert "\n" not in str(caught.value)
    with pytest.raises(PrerequisiteError, match="nothing can be reached at"):
        ask(model_at("http://no-such-host.invalid/v1", retries=0), "x")


@pytest.mark.parametrize("body", [b"<html><body>Welcome</body></html>", b"{}", b'{"choices": null}', b"[1]", b"{broken"])
@pytest.mark.parametrize("kind", [b"text/html", b"application/json"])
def test_something_else_at_the_address(body: bytes, kind: bytes) -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(body), body)) as url:
        with pytest.raises((PrerequisiteError, ModelError)) as caught:
            ask(model_at(url, retries=0), "x")
        assert "\n" not in str(caught.value) and "endpoint" in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": [], "usage": null}',
        b'{"choices": [{"message": null, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": ["a"]}}], "usage": {"prompt_tokens": "many", "completion_tokens": -4}}',
        b'{"choices": [{"message": {"content": "ok"}}], "usage": {"prompt_tokens_details": {"cached_tokens": 1e99}}}',
    ],
)
def test_hostile_answers_never_get_further_than_an_empty_answer_or_an_error(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    with raw_server(head + body) as url:
        try:
            (answer,) = ask(model_at(url, retries=0), "x")
        except (ModelError, PrerequisiteError):
            return
        assert answer.text in ("", "a", "ok") and answer.prompt_tokens >= 0 and answer.completion_tokens >= 0


@pytest.mark.parametrize(
    "said",
    [
        '{"error": {"message": "This model\'s maximum context length is 10 tokens.", "code": "context_length_exceeded"}}',
        '{"object": "error", "message": "You passed 1015 input tokens and requested 10 output tokens. However, the model\'s '
        'context length is only 1024 tokens.", "type": "BadRequestError", "param": "input_tokens", "code": 400}',
        '{"error": {"code": 400, "message": "request (4390 tokens) exceeds the available context size (4096 tokens), try '
        'increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 4390}}',
        '{"error": {"message": "The input (9 tokens) is longer than the model\'s context length (4 tokens)."}}',
        '{"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}',
    ],
)
def test_a_context_too_long_is_told_apart_in_every_dialect(said: str) -> None:
    body = said.encode()
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    with raw_server(head + body) as url, pytest.raises(ContextTooLong, match="does not fit") as caught:
        ask(model_at(url), "x", schema=SCHEMA)
    assert "\n" not in str(caught.value)


def test_the_mock_servers_context_too() -> None:
    with MockServer(echo, context=10) as server:
        model = model_at(server.base_url)
        assert ask(model, "short")[0].text == "You said: short"
        with pytest.raises(ContextTooLong):
            ask(model, "long " * 100)


def test_a_strange_refusal_ends_the_run_at_first_and_an_episode_later() -> None:
    said = b'{"error": {"message": "top_k must be\\n positive"}}'
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(said)
    with raw_server(head + said) as url:
        model = model_at(url)
        with pytest.raises(PrerequisiteError, match="very first request for 'mock': top_k must be positive"):
            ask(model, "x")
        model._answered = 1
        with pytest.raises(ModelError, match="answered 400: top_k must be positive"):
            ask(model, "x")


def test_a_server_that_dies_under_way_ends_the_run() -> None:
    with MockServer(echo) as server:
        model = model_at(server.base_url, retries=0)
        ask(model, "x")
    with pytest.raises(PrerequisiteError, match="nothing can be reached"):
        ask(model, "x")


class raw_server:
    """Answers every request with the same bytes."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply

    def __enter__(self) -> str:
        import threading

        self.socket = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    connection, _ = self.socket.accept()
                except OSError:
                    return
                with connection:
                    data = b""
                    while b"\r\n\r\n" not in data:
                        data += connection.recv(65536)
                    head, _, body = data.partition(b"\r\n\r\n")
                    length = next((int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-l")), 0)
                    while len(body) < length:
                        body += connection.recv(65536)
                    connection.sendall(self.reply.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"

    def __exit__(self, *exception: object) -> None:
        self.socket.close()


# ---- a server of the field -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A tiny checkpoint behind `transformers serve`, in a thread: the address and the model's name."""
    for package in ("torch", "fastapi", "uvicorn"):
        pytest.importorskip(package)
    from transformers.cli.serve import Serve

    from leap.testing.checkpoints import tiny_checkpoint

    checkpoint = str(tiny_checkpoint(tmp_path_factory.mktemp("served"), "chatml"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serving = Serve(force_model=checkpoint, host="127.0.0.1", port=port, device="cpu", non_blocking=True)
    try:
        yield f"http://127.0.0.1:{port}/v1", checkpoint
    finally:
        serving.kill_server()


def test_transformers_serve_gives_the_answers_of_the_model_in_process(served: tuple[str, str]) -> None:
    from leap.models.hf import HFModel

    url, checkpoint = served
    sampling = Sampling(temperature=0, max_tokens=8)
    messages: list[Any] = [{"role": "user", "content": "You see a desk 1, a bed 2, and a drawer 3."}]

    async def by(model: Any, schema: Any) -> Completion:
        async with model.conversation() as conversation:
            return await conversation.complete(Request(messages, seed=0, schema=schema))

    here = asyncio.run(by(HFModel(checkpoint, sampling), None))
    # That server knows no schemas and answers as if none were given, where a model in this process keeps to them.
    there = asyncio.run(by(model_at(url, name=checkpoint, sampling=sampling, timeout=60), SCHEMA))
    assert there.text == here.text and there.prompt_tokens == here.prompt_tokens
    assert there.truncated == here.truncated


def test_transformers_serve_names_another_model(served: tuple[str, str]) -> None:
    url, _ = served
    with pytest.raises(PrerequisiteError, match=r"has no .*'other/model'"):
        ask(model_at(url, name="other/model", timeout=60), "x")


# ---- what this machine does not allow --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1", "speaks SOCKS, which needs: pip install socksio"),
        ("HTTPS_PROXY", "ftp://user:secret-word@proxy:21", "is no address of one"),
        ("http_proxy", "“http://proxy:1”", "is no address of one"),
        ("HTTP_PROXY", "http://127.0.0.1:9", "nothing can be reached at .* through the proxy in HTTP_PROXY"),
        ("SSL_CERT_FILE", "/nonexistent.pem", "cannot be used: No such file"),
        ("SSL_CERT_FILE", "/etc/hostname", "cannot be used: .*no certificate"),
        ("SSL_CERT_FILE", "/", "cannot be used: Is a directory"),
        ("OPENAI_API_KEY", "sk-“abcdefgh”", "holds '“'"),
        ("OPENAI_API_KEY", "sk-abc\ndefgh", "which no header takes"),
        ("OPENAI_ORG_ID", "‘org’", "holds '‘'"),
        ("OPENAI_CUSTOM_HEADERS", "X-A: “b”", "holds '“'"),
        ("OPENAI_BASE_URL", "“http://host/v1”", "no address of an endpoint"),
        ("OPENAI_BASE_URL", "http://“host”/v1", "no address of an endpoint"),
    ],
)
def test_a_setting_that_no_call_can_work_with_is_named(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://llm.example.invalid/v1")
    monkeypatch.setenv(variable, value)
    with pytest.raises(PrerequisiteError, match=told) as caught:
        ask(OpenAIModel("m", SAMPLING, EndpointConfig(retries=0, timeout=2)), "x")
    said = str(caught.value)
    assert "\n" not in said and "secret-word" not in said and (variable in said or variable == "OPENAI_BASE_URL")


def test_a_proxy_for_the_outside_world_is_none_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")
    with MockServer(echo) as server:
        assert ask(model_at(server.base_url), "x")[0].text == "You said: x"


MANY_CALLS = """
import asyncio, resource, sys
from leap.models.base import EndpointConfig, Request, Sampling
from leap.models.openai import OpenAIModel

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
many, later = (
    OpenAIModel("mock", Sampling(), EndpointConfig(base_url=sys.argv[1], concurrency=n, retries=0)) for n in (500, 2)
)

async def one(n, model=many):
    async with model.conversation() as conversation:
        return (await conversation.complete(Request([{"role": "user", "content": f"call {n}"}], seed=0))).text

async def main():
    assert await asyncio.gather(*map(one, range(400))) == [f"You said: call {n}" for n in range(400)]
    held = []
    try:
        while True:
            held.append(open("/dev/null"))
    except OSError:
        await one(0, later)

asyncio.run(main())
"""


def test_more_calls_at_once_than_open_files_are_allowed() -> None:
    with MockServer(echo, delay=0.02) as server:
        done = subprocess.run([sys.executable, "-c", MANY_CALLS, server.base_url], capture_output=True, text=True)
        assert 60 < server.counts.most_at_once < 100
    warned, *_, last = done.stderr.strip().splitlines()
    assert "may hold 256 files and connections open at once, so there are" in warned and "not the 500" in warned
    assert last.startswith("leap.errors.PrerequisiteError: this process may hold 256 files") and "`ulimit -n`" in last


@pytest.mark.parametrize("before", range(250, 301))
def test_no_part_of_a_key_is_told_where_an_error_is_cut(before: int) -> None:
    key = "sk-0123456789abcdefghijklmnopqrstuvwxyz"
    told = without_key(said_in({"error": {"message": f"{'x' * before} {key} is wrong"}}, ""), key)
    assert key[:7] not in told and len(told) <= 310
