"""The vLLM provider's process handling, with a stand-in for the server program: nothing of it is ever left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leap.errors import PrerequisiteError
from leap.models.base import Model, Request, Sampling
from leap.models.ledger import Ledger
from leap.models.providers import open_model

pytest.importorskip("openai")
from leap.models import vllm
from leap.models.openai import OpenAIModel
from leap.models.vllm import VLLMModel

STAND_IN = Path(__file__).with_name("stand_in_vllm.py")
SAMPLING = Sampling(temperature=0, max_tokens=16)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    """Puts a `vllm` on the PATH; returns what it wrote down under a word."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {STAND_IN} \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # for the outside world, not for this machine

    def noted(word: str) -> list[Any]:
        lines = (tmp_path / "notes").read_text().splitlines() if (tmp_path / "notes").exists() else []
        return [fact[word] for line in lines if word in (fact := json.loads(line))]

    return noted


def adapter(folder: Path, base: str, rank: int = 8) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "r": rank}))
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    return str(folder)


def says(model: Model, text: str = "hello") -> str:
    async def one() -> str:
        async with model.conversation() as conversation:
            return (await conversation.complete(Request([{"role": "user", "content": text}], seed=0))).text

    return asyncio.run(one())


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]]


def gone(pids: list[int]) -> bool:
    for _ in range(300):
        if not alive(pids):
            return True
        time.sleep(0.05)
    return False


def test_a_server_is_started_asked_and_stopped(notes: Callable[[str], list[Any]], tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "calls.sqlite")
    model = open_model("vllm/org/base", SAMPLING, ledger=ledger, batch=7, dtype="bfloat16")
    assert says(model) == "org/base says hello" and model.concurrency == 7 and model.name == "vllm/org/base"
    (argv,), (pids,) = notes("argv"), notes("pids")
    assert argv[:4] == ["serve", "org/base", "--host", "127.0.0.1"] and "--enable-lora" in argv
    assert argv[argv.index("--dtype") + 1] == "bfloat16" and argv[argv.index("--load-format") + 1] == "safetensors"
    assert len(alive(pids)) == 2
    model.close()
    assert gone(pids)
    assert ledger.totals()[0].model == "vllm/org/base"
    other = open_model("vllm/org/base", SAMPLING, ledger=ledger)  # on another port, but the same model
    try:
        assert says(other) == "org/base says hello" and ledger.total().calls == 1
    finally:
        other.close()


def test_an_adapters_directory_is_served_on_its_base(notes: Callable[[str], list[Any]], tmp_path: Path) -> None:
    path = adapter(tmp_path / "one", "org/base", rank=100)
    model = VLLMModel(path, SAMPLING)
    try:
        assert says(model) == f"{path} says hello" and model.name == f"vllm/{path}"
        (argv,) = notes("argv")
        assert argv[1] == "org/base" and argv[argv.index("--max-lora-rank") + 1] == "128"
    finally:
        model.close()


def test_an_adapter_that_is_refused_stops_the_server(notes: Callable[[str], list[Any]], tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="LoRA rank 99 is greater than max_lora_rank 64"):
        VLLMModel(adapter(tmp_path / "refused", "org/base"), SAMPLING)
    assert gone(notes("pids")[0])
    pickled = Path(adapter(tmp_path / "pickled", "org/base"))
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(PrerequisiteError, match="pickled weights are not read"):
        VLLMModel(str(pickled), SAMPLING)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "adapter_config.json").write_text("{}")
    with pytest.raises(PrerequisiteError, match="damaged or names no base"):
        VLLMModel(str(tmp_path / "one"), SAMPLING)


def test_a_server_whose_output_somebody_has_removed_is_stopped_all_the_same(
    notes: Callable[[str], list[Any]], tmp_path: Path
) -> None:
    model = VLLMModel("org/base", SAMPLING)
    Path(model.server._output.name).unlink()
    model.close()
    assert gone(notes("pids")[0])
    with pytest.raises(PrerequisiteError, match="the vLLM server of org/base is gone"):
        model.server.load("late", adapter(tmp_path / "late", "org/base"))


def test_a_server_that_fails_to_start_says_why(
    notes: Callable[[str], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "CUDA is not there")
    with pytest.raises(PrerequisiteError) as caught:
        VLLMModel("org/base", SAMPLING)
    assert str(caught.value) == "vLLM could not serve org/base: ValueError: CUDA is not there"
    assert gone(notes("pids")[0])


def test_a_server_that_never_comes_up_is_stopped(notes: Callable[[str], list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_SLOW", "600")
    with pytest.raises(PrerequisiteError, match=r"did not serve org/base within 2 s: \w+"):
        VLLMModel("org/base", SAMPLING, timeout=2)
    assert gone(notes("pids")[0] if notes("pids") else [])


def test_what_fails_after_the_start_stops_the_server(
    notes: Callable[[str], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: OpenAIModel, *arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(OpenAIModel, "__init__", broken)
    with pytest.raises(KeyboardInterrupt):
        VLLMModel("org/base", SAMPLING)
    assert gone(notes("pids")[0])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
@pytest.mark.slow
def test_the_server_ends_with_its_starter_however_that_ends(notes: Callable[[str], list[Any]], how: int | None) -> None:
    code = (
        "import sys; from leap.models.base import Sampling; from leap.models.vllm import VLLMModel\n"
        "model = VLLMModel('org/base', Sampling()); print('up', flush=True); sys.stdin.read(1); raise SystemExit('left open')"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    starter = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert starter.stdout is not None and starter.stdin is not None
    assert starter.stdout.readline() == b"up\n"
    (pids,) = notes("pids")
    assert len(alive(pids)) == 2
    if how is None:
        starter.stdin.close()  # an error somewhere else, with the model never closed
    else:
        starter.send_signal(how)
    starter.wait(30)
    assert gone(pids)


def test_without_vllm_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm.shutil, "which", lambda *arguments, **more: None)
    with pytest.raises(PrerequisiteError, match=r"no `vllm` on the PATH.*pip install vllm.*openai/NAME"):
        open_model("vllm/org/base", SAMPLING)
