"""Students on an engine: what is asked and answered, adapters that come and go, and what is refused before anything is spent.

The server is another process that speaks as vLLM and SGLang do, with a small model of transformers behind it. Where `vllm` is on
the PATH, tests marked `engine` ask a real one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from leap.core.message import Message
from leap.errors import ContextTooLong, LeapError, PrerequisiteError, RecipeError
from leap.models.base import Completion, Model, Request, Sampling
from leap.models.engine import EngineConfig
from leap.recipe import Recipe
from leap.runs.preflight import unmet

pytest.importorskip("torch")
pytest.importorskip("openai")
from stand_in_engine import StandIn, as_vllm, gone

from leap.models.hf import HFModel
from leap.models.served import Engine
from leap.testing.checkpoints import tiny_checkpoint

ASKED: list[Message] = [{"role": "user", "content": "You see a desk 1, a drawer 3 and a mug 1. What now?"}]
ACTIONS = ("go to desk 1", "go to desk 12", "take mug 1 from desk 1", "open drawer 3", "look", "search[<words>]")


def serving(model: Path, *options: str, **more: Any) -> StandIn:
    """A stand-in for an engine at an address."""
    return StandIn(["serve", str(model), "--enable-lora", *options], **more)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base") / "llama", "chatml")


def adapter_of(base: Path, folder: Path, seed: int, rank: int = 4) -> str:
    """An adapter that changes what the base says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"]))
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.3)
    adapted.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return adapter_of(base, tmp_path_factory.mktemp("adapter") / "one", 1)


@pytest.fixture(scope="module")
def server(base: Path) -> Iterator[StandIn]:
    with serving(base) as served:
        yield served


def engine(url: str, base: Path, kind: str = "vllm", **more: Any) -> Engine:
    return Engine(EngineConfig(kind=kind, base_url=url, **more), str(base), dtype="auto", batch=4, lora_rank=4)  # pyright: ignore


def says(
    model: Model, choices: tuple[str, ...] | None = None, seed: int = 0, asked: list[Message] = ASKED
) -> Completion:
    async def one() -> Completion:
        async with model.conversation() as conversation:
            return await conversation.complete(Request(asked, seed=seed, choices=choices))

    return asyncio.run(one())


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("choices", [None, ACTIONS, ("look",), ("search[<words>]",), ("go to desk 1", "go to desk 12")])
def test_it_says_what_the_same_weights_say_in_this_process(
    server: StandIn, base: Path, adapter: str, adapted: bool, choices: tuple[str, ...] | None
) -> None:
    sampling, checkpoint = (
        Sampling(temperature=0, max_tokens=32, max_reason_tokens=9),
        adapter if adapted else str(base),
    )
    here, there = HFModel(checkpoint, sampling), engine(server.url, base).open(checkpoint, sampling)
    expected, found = says(here, choices), says(there, choices)
    reason, _, action = found.text.rpartition("ACTION:")
    if len(choices or ()) > 1 or choices == ("search[<words>]",):  # an action that is chosen may come in other tokens
        heads = [choice.partition("<")[0] for choice in choices or () if "<" in choice]
        assert action.strip() in (choices or ()) or any(action.strip().startswith(head) for head in heads)
        assert reason == expected.text.rpartition("ACTION:")[0] and not found.truncated
    else:
        assert (found.text, found.truncated) == (expected.text, expected.truncated)
        assert found.completion_tokens == expected.completion_tokens
        assert not expected.tokens or found.tokens == expected.tokens
    prompt = here.chat.prompt(ASKED)
    assert found.prompt_tokens == expected.prompt_tokens == len(prompt)
    assert server.noted("prompt")[-1][: len(prompt)] == prompt  # the tokens that training trains on
    assert here.chat.said(found.tokens).answer == found.text
    assert len(found.logprobs) == len(found.tokens) == found.completion_tokens and max(found.logprobs) <= 0
    there.close()
    here.close()


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    choices=st.lists(
        st.from_regex(r"[a-z]{1,6}( [a-z0-9]{1,4}){0,2}|[a-z]{2,4}\[<words>\]", fullmatch=True), min_size=1, max_size=6
    ),
    seed=st.integers(0, 2**40),
    room=st.integers(40, 70),
    reason=st.integers(0, 30),
)
def test_an_answer_always_ends_in_one_of_the_actions(
    server: StandIn, base: Path, choices: list[str], seed: int, room: int, reason: int
) -> None:
    model = engine(server.url, base).open(
        str(base), Sampling(temperature=1.5, max_tokens=room, max_reason_tokens=reason)
    )
    answer = says(model, tuple(choices), seed)
    _, marker, action = answer.text.rpartition("ACTION:")
    heads = {choice.partition("<")[0] for choice in choices if "<" in choice}
    opened = next((head for head in heads if action.strip().startswith(head)), None)
    assert marker and (action.strip() in choices or opened)
    if opened and action.strip() not in choices:
        inside = action.strip().removeprefix(opened)
        assert inside.endswith("]") and inside[:-1].strip() and not set(inside[:-1]) & set("\n[]<>")
    assert not answer.truncated and model.chat.said(answer.tokens).answer == answer.text
    assert says(model, tuple(choices), seed) == answer  # alone on the server the same seed gives the same text


def test_sglang_is_asked_in_its_own_words(base: Path, adapter: str, tmp_path: Path) -> None:
    sampling = Sampling(temperature=0, max_tokens=32, max_reason_tokens=9)
    with serving(base, "--served-model-name", "student", sglang=True) as served:
        serves = engine(served.url, base, "sglang", model="student")
        for checkpoint in (str(base), adapter):
            here, there = HFModel(checkpoint, sampling), serves.open(checkpoint, sampling)
            assert says(there).text == says(here).text
            assert says(there, ACTIONS).text.rpartition("ACTION: ")[2].partition("[")[0] in (*ACTIONS, "search")
            there.close()
        assert len(served.noted("loaded")) == len(served.noted("unloaded")) == 1


def test_adapters_come_and_go_without_a_restart(base: Path, adapter: str, tmp_path: Path) -> None:
    sampling = Sampling(temperature=0, max_tokens=12)
    second = adapter_of(base, tmp_path / "two", 2)
    with serving(base) as served:
        first = engine(served.url, base)
        one, two, plain = first.open(adapter, sampling), first.open(second, sampling), first.open(str(base), sampling)
        texts = [says(model).text for model in (one, two, plain)]
        assert len({*texts}) == 3 and texts == [
            says(HFModel(path, sampling)).text for path in (adapter, second, str(base))
        ]
        assert len({one.identity, two.identity, plain.identity}) == 3
        again = engine(served.url, base).open(adapter, sampling)  # of another process of the run, or after a kill
        assert says(again).text == texts[0] and len(served.noted("loaded")) == 2
        again.close()
        assert says(one).text == texts[0] and not served.noted("unloaded")  # it is the first one's
        one.close()
        assert len(served.noted("unloaded")) == 1 and says(two).text == texts[1]


def test_what_does_not_fit_is_refused(server: StandIn, base: Path, adapter: str, tmp_path: Path) -> None:
    sampling, serves = Sampling(temperature=0, max_tokens=12), engine(server.url, base)
    other = tiny_checkpoint(tmp_path / "other", "llama3")
    with pytest.raises(PrerequisiteError, match=r"is for .*other, but the server at .* runs .*llama"):
        serves.open(adapter_of(other, tmp_path / "foreign", 1), sampling)
    with pytest.raises(PrerequisiteError, match="LoRA rank 32 is greater than max_lora_rank 16"):
        serves.open(adapter_of(base, tmp_path / "large", 1, rank=32), sampling)
    pickled = Path(adapter_of(base, tmp_path / "pickled", 1))
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(PrerequisiteError, match="pickled weights are not read"):
        serves.open(str(pickled), sampling)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "adapter_config.json").write_text("{}")
    with pytest.raises(PrerequisiteError, match="damaged or names no base"):
        serves.open(str(tmp_path / "one"), sampling)
    with pytest.raises(ContextTooLong, match="exceeds the server's 1024"):
        says(serves.open(str(base), sampling), asked=[{"role": "user", "content": "a mug " * 900}])


def recipe(base: Path, url: str, **more: Any) -> Recipe:
    student = {"model": f"hf/{base}", "engine": {"kind": "vllm", "base_url": url, **more.pop("engine", {})}}
    student["sampling"] = {"max_tokens": 48}
    training = {"lora": more.pop("lora", {"rank": 4, "targets": ["q_proj", "v_proj"]})}
    return Recipe.model_validate(
        {"name": "x", "environment": {"name": "alfworld"}, "student": student | more, "training": training}
    )


def missing(of: Recipe) -> str:
    return "\n".join(map(str, unmet(of)))


def test_a_server_that_can_serve_the_run_is_found_so(
    server: StandIn, base: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    before = len(server.noted("loaded"))
    assert missing(recipe(base, server.url)) == ""
    assert (
        len(server.noted("loaded")) == before + 1 and len(server.noted("unloaded")) >= 1 and not [*tmp_path.iterdir()]
    )


@pytest.mark.parametrize(
    ("lacks", "options", "more", "told"),
    [
        ("runtime", [], {}, "loads no adapters while it runs; start it with --enable-lora"),
        ("lora", [], {}, "takes no adapters; start it with --enable-lora"),
        ("ids", [], {}, "gives no token ids"),
        (
            "",
            ["--max-model-len", "512"],
            {},
            "context has 512 tokens, and prompts and answers of this recipe may have 1024",
        ),
        (
            "",
            ["--served-model-name", "student", "--max-lora-rank", "2"],
            {},
            "LoRA rank 4 is greater than max_lora_rank 2",
        ),
        ("", [], {"engine": {"model": "student"}}, "serves .*llama, not student; start it with that model"),
        ("", [], {"lora": None}, "all weights are trained, and the server at .* cannot be started again"),
        ("", [], {"lora": {"rank": 600}}, "rank 512 at most, not 600"),
        ("key", [], {}, "asks for a key"),
        ("gone", [], {}, "nothing can be reached at http://127.0.0.1:9/v1"),
        ("path", [], {}, "does not list its models; is base_url right"),
    ],
)
def test_what_a_server_lacks_is_one_line_before_anything_is_spent(
    base: Path,
    tmp_path: Path,
    lacks: str,
    options: list[str],
    more: dict[str, Any],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(base, *options, lacks=lacks, key="secret" if lacks == "key" else "") as served:
        url = {"gone": "http://127.0.0.1:9/v1", "path": served.url.removesuffix("/v1")}.get(lacks, served.url)
        (problem,) = unmet(recipe(base, url, **more))
    with pytest.raises(type(problem), match=told):
        raise problem
    assert "\n" not in str(problem)


ADDRESSES = {
    "a web page": (b"<html><body>Welcome!</body></html>", "does not list its models; is base_url right"),
    "no list": (b'{"data": {"id": "x"}}', "does not list its models"),
    "other models": (
        b'{"data": [null, {"id": 3}, {"id": "theirs", "root": null}]}',
        "serves theirs, not .*start it with that model",
    ),
    "without an end": (b" " * 9_000_000, "its answer does not end"),
    "drop by drop": (b"", "its answer does not end"),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_that_is_no_such_server_is_one_line(
    name: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, told = ADDRESSES[name]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)
                for _ in range(0 if body else 100):
                    self.wfile.write(b" ")
                    time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("leap.models.vllm.LIST_TIMEOUT", 1.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        (problem,) = unmet(recipe(base, f"http://user:secret@127.0.0.1:{http.server_port}/v1"))
        http.shutdown()
    with pytest.raises(PrerequisiteError, match=told):
        raise problem
    assert "\n" not in str(problem) and "secret" not in str(problem)


def test_the_key_goes_to_the_server_alone(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")  # none of this server's business
    monkeypatch.setenv("MINE", "secret")
    with serving(base, key="secret") as served:
        assert missing(recipe(base, served.url, engine={"api_key_env": "MINE"})) == ""
        monkeypatch.setenv("MINE", "wrong-key")
        problem = missing(recipe(base, served.url, engine={"api_key_env": "MINE"}))
        assert "refuses this one" in problem and "wrong-key" not in problem
        monkeypatch.delenv("MINE")
        assert "set the environment variable MINE" in missing(recipe(base, served.url, engine={"api_key_env": "MINE"}))


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({"kind": "vllm", "options": {"trust_remote_code": True}}, "no option 'trust_remote_code' can be given"),
        ({"kind": "vllm", "options": {"max-model-len": 9}}, "Did you mean 'max_model_len'"),
        ({"kind": "vllm", "options": {"quantization": "--middleware"}}, "quantization must be a word"),
        ({"kind": "vllm", "options": {"quantization": "a/b.py"}}, "quantization must be a word"),
        ({"kind": "vllm", "options": {"max_model_len": "9 --port 1"}}, "max_model_len must be a number"),
        ({"kind": "vllm", "options": {"max_num_seqs": True}}, "max_num_seqs must be a number"),
        ({"kind": "vllm", "options": {"enforce_eager": 1}}, "enforce_eager must be true or false"),
        ({"kind": "vllm", "devices": "1 2"}, "devices"),
        ({"kind": "sglang"}, "leap starts no SGLang server"),
        (
            {"kind": "vllm", "base_url": "http://h/v1", "options": {"seed": 1}},
            "options is for a server that leap starts",
        ),
        ({"kind": "vllm", "base_url": "http://h/v1", "api_key_env": "sk-1-2"}, "name of an environment variable"),
        ({"kind": "vllm", "model": "student"}, "model is for a server at an address"),
        ({"base_url": "http://h/v1"}, "base_url belongs to kind: vllm or sglang"),
        ("vlm", "'hf', 'vllm' or 'sglang'"),
    ],
)
def test_a_section_that_cannot_be_is_refused(engine: object, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        EngineConfig.from_values(engine, "student.engine")


def test_options_become_flags_of_the_program() -> None:
    options = {
        "max_model_len": 4096,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "gpu_memory_utilization": 0.8,
    }
    flags = [
        "--max-model-len",
        "4096",
        "--enforce-eager",
        "--no-enable-prefix-caching",
        "--gpu-memory-utilization",
        "0.8",
    ]
    assert EngineConfig.from_values({"kind": "vllm", "options": options}, "x").flags == flags
    assert EngineConfig.from_values("vllm", "x") == EngineConfig(kind="vllm")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    """The stand-in on the PATH as `vllm`, and what it noted under a word."""
    return as_vllm(tmp_path, monkeypatch)


@pytest.mark.slow
def test_full_weights_are_served_by_a_restart(base: Path, tmp_path: Path, program: Callable[[str], list[Any]]) -> None:
    other, sampling = tiny_checkpoint(tmp_path / "other", "chatml", seed=3), Sampling(temperature=0, max_tokens=8)
    config = EngineConfig(kind="vllm", devices="1,2", options={"max_model_len": 640})
    serves = Engine(config, str(base), dtype="float32", batch=4, lora_rank=None)
    try:
        first = serves.open(str(base), sampling)
        assert says(first).text == says(HFModel(str(base), sampling)).text and first.room == 632
        first.close()
        second = serves.open(str(other), sampling)
        assert says(second).text == says(HFModel(str(other), sampling)).text
        one, two = program("argv")
        assert one[1] == str(base) and two[1] == str(other) and "--enable-lora" not in one
        assert one[one.index("--max-model-len") + 1] == "640" and program("devices") == ["1,2", "1,2"]
        serves.rest()  # while the student trains
        assert not [pid for pid in program("pid") if Path(f"/proc/{pid}").exists()]
        assert says(serves.open(str(other), sampling)).text == says(HFModel(str(other), sampling)).text
        assert len(program("pid")) == 3
    finally:
        serves.close()


@pytest.mark.slow
def test_a_server_that_dies_is_told_and_the_same_call_starts_another(
    base: Path, program: Callable[[str], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_LACKS", "dies")
    sampling = Sampling(temperature=0, max_tokens=8)
    serves = Engine(EngineConfig(kind="vllm"), str(base), dtype="auto", batch=4, lora_rank=4)
    try:
        model = serves.open(str(base), sampling)
        said = [says(model).text, says(model).text]
        with pytest.raises(LeapError, match=r"nothing can be reached|broke off"):
            says(model)
        model.close()
        assert says(serves.open(str(base), sampling)).text == said[0] == said[1] and len(program("pid")) == 2
    finally:
        serves.close()


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("vllm") is None or "LEAP_TEST_MODEL" not in os.environ, reason="vllm and LEAP_TEST_MODEL"
)
def test_a_real_vllm_says_what_the_same_weights_say_in_this_process(tmp_path: Path) -> None:
    """LEAP_TEST_MODEL is the folder of a small instruction-tuned model."""
    base = os.environ["LEAP_TEST_MODEL"]
    adapter = adapter_of(Path(base), tmp_path / "one", 1)
    options = {"enforce_eager": True, "max_model_len": 1024, "max_num_seqs": 8}
    serves = Engine(EngineConfig(kind="vllm", options=options), base, dtype="float32", batch=4, lora_rank=4)
    try:
        for checkpoint in (base, adapter):
            for temperature, same in ((0.0, True), (1.0, False)):
                sampling = Sampling(temperature=temperature, max_tokens=24, max_reason_tokens=8)
                here = HFModel(checkpoint, sampling, dtype="float32")
                there = serves.open(checkpoint, sampling)
                for choices in (None, ACTIONS, ("search[<words>]",)):
                    found = says(there, choices)
                    assert here.chat.said(found.tokens).answer == found.text and len(found.logprobs) == len(
                        found.tokens
                    )
                    if not same:
                        assert says(there, choices) == found
                    elif choices is None:
                        assert found.text == says(here).text
                    else:
                        assert found.text.rpartition("ACTION: ")[2].partition("[")[0] in (*ACTIONS, "search")
                there.close()
    finally:
        serves.close()


@pytest.mark.slow
def test_no_server_is_left_behind_a_kill(base: Path, program: Callable[[str], list[Any]]) -> None:
    code = (
        "import sys; from leap.models.base import Sampling; from leap.models.engine import EngineConfig\n"
        "from leap.models.served import Engine\n"
        f"engine = Engine(EngineConfig(kind='vllm'), {str(base)!r}, dtype='auto', batch=4, lora_rank=4)\n"
        "model = engine.open(engine._base, Sampling()); print('up', flush=True); sys.stdin.read(1)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert starter.stdout is not None and starter.stdout.readline() == b"up\n"
    (pid,) = program("pid")
    assert Path(f"/proc/{pid}").exists()
    starter.send_signal(signal.SIGKILL)
    starter.wait(30)
    assert gone(pid)
