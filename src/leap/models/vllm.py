"""`vllm/NAME`: a local vLLM server, started, waited for and stopped by leap; LoRA adapters come and go at run time.

vLLM is not a dependency of leap: install it beside it (or in an environment of its own) so that `vllm` is on the PATH. A
server that runs elsewhere is reached as `openai/NAME` with its base_url.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import httpx2

from leap.core import JsonObject, content_key
from leap.errors import PrerequisiteError
from leap.models.base import EndpointConfig, Sampling, without_login
from leap.models.checkpoints import adapter_config, base_of, identity
from leap.models.openai import LOCAL, OpenAIModel, host_of
from leap.models.wire import field, parsed, said_in, without_key

log = logging.getLogger(__name__)

START_TIMEOUT = 1800.0
"""Seconds until a server must be up; the first start of a large model downloads and compiles."""
LIST_TIMEOUT = 60.0
"""Seconds until a server must have told what it serves."""
_LONGEST = 8_000_000
"""Most bytes of an answer about models and adapters."""
_RANK = 64  # of adapters that are loaded later, at most
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's --max-lora-rank takes."""


OTHERWISE = ("hf/", "as openai/NAME with its base_url")
"""What does without a server of one's own, and how another is reached."""

_NO_LIST = "{} does not list its models; is base_url right? It mostly ends in /v1."


def vllm_program(wanted: str, instead: str, elsewhere: str) -> str:
    """Path of the `vllm` program.

    Args:
        wanted: What needs it, for the message where it is missing.
        instead: What does without it.
        elsewhere: How a server that runs is reached.

    Raises:
        PrerequisiteError: It is not installed.
    """
    program = shutil.which("vllm") or shutil.which("vllm", path=str(Path(sys.executable).parent))
    if program is None:
        raise PrerequisiteError(
            f"{wanted} needs vLLM, and there is no `vllm` on the PATH. Install it (pip install vllm, on a machine with "
            f"a GPU), use {instead} instead, or reach a running server {elsewhere}."
        )
    return program


class Server:
    """A server that speaks OpenAI's protocol and takes LoRA adapters while it runs.

    Args:
        url: Its address, up to and with /v1.
        key: Its key; empty where it asks for none.
        kind: vllm, or whatever speaks as that does, or sglang.

    Raises:
        PrerequisiteError: The address is none.
    """

    def __init__(self, url: str, key: str, kind: str = "vllm") -> None:
        self.url, self.key, self.kind = url.strip().rstrip("/"), key, kind
        self.shown = without_login(self.url)
        self._local = host_of(self.url) in LOCAL

    def cards(self) -> list[JsonObject]:
        """What the server says of each model that it serves, adapters among them.

        Raises:
            PrerequisiteError: It cannot be reached, or is no such server.
        """
        cards = field(self._ask("GET", f"{self.url}/models", timeout=LIST_TIMEOUT), "data")
        if not isinstance(cards, list):
            raise PrerequisiteError(_NO_LIST.format(self.shown))
        return [card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)]

    def load(self, name: str, path: str) -> bool:
        """Loads an adapter.

        Args:
            name: Under which it is to be served: always the same weights under the same name.
            path: Its folder, which the server must see.

        Returns:
            Whether it was not there before.

        Raises:
            PrerequisiteError: The server refuses; the message carries its reason.
        """
        try:
            self._adapter("load", {"lora_name": name, "lora_path": str(Path(path).resolve())})
        except PrerequisiteError as error:
            if "already" not in str(error):  # of another process of the run, or of a run that was killed
                raise
            return False
        return True

    def unload(self, name: str) -> None:
        """Unloads an adapter.

        Raises:
            PrerequisiteError: The server refuses.
        """
        self._adapter("unload", {"lora_name": name})

    def _adapter(self, what: str, body: JsonObject) -> None:
        root = self.url if self.kind == "vllm" else self.url.removesuffix("/v1")
        said = self._ask("POST", f"{root}/{what}_lora_adapter", body)
        if isinstance(said, dict) and said.get("success") is False:  # SGLang
            raise PrerequisiteError(f"{self.shown} refuses to {what} an adapter: {said.get('error_message')}")

    def _ask(self, method: str, url: str, body: JsonObject | None = None, timeout: float = 600) -> object:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        ends, content = time.monotonic() + timeout, b""
        own = {"json": body, "headers": headers, "timeout": timeout}
        try:  # a proxy for the outside world is none for this machine
            with httpx2.stream(method, url, **own, trust_env=not self._local) as answer:
                for part in answer.iter_bytes():
                    content += part
                    if time.monotonic() > ends or len(content) > _LONGEST:
                        raise httpx2.ReadTimeout("its answer does not end")
        except httpx2.HTTPError as error:
            raise self._gone(error) from error
        said, text = parsed(content), content.decode("utf-8", "replace")
        if answer.is_error:
            raise PrerequisiteError(self._refusal(url.rpartition("/")[2], answer.status_code, said, text))
        return said if said is not None else text

    def _refusal(self, what: str, status: int, said: object, text: str) -> str:
        """What to say of a request that the server refused."""
        told = without_key(said_in(said or text, f"status {status}"), self.key or "")
        if status in (401, 403):
            return f"{self.shown} asks for a key, or refuses this one: set student.engine.api_key_env and that variable ({told})."
        if what == "models":
            return _NO_LIST.format(self.shown)
        if "adapter" in what and (status in (404, 405) and not isinstance(field(said, "error"), dict)):
            return (
                f"{self.shown} loads no adapters while it runs; start it with --enable-lora, and vLLM with "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment."
            )
        if "adapter" in what and re.search(r"lora.*(not enabled|not supported)|enable.lora", told, re.IGNORECASE):
            return f"{self.shown} takes no adapters; start it with --enable-lora ({told})."
        return f"{self.shown} refuses {what}: {told}"

    def _gone(self, error: Exception) -> PrerequisiteError:
        return PrerequisiteError(f"nothing can be reached at {self.shown} ({error}); is the server running?")

    @property
    def running(self) -> bool:
        """Whether it is there, as far as is known here."""
        return True

    def stop(self) -> None:
        """Stops the server, if it was started here."""


class VLLMServer(Server):
    """A `vllm serve` process.

    Args:
        model: Checkpoint directory or hub name of full weights.
        dtype: Weights' type.
        lora_rank: Largest rank of an adapter that will be loaded; None for none.
        timeout: Seconds to wait for it.
        flags: More of its command line.
        devices: What CUDA_VISIBLE_DEVICES is for it; this process's if None.

    Raises:
        PrerequisiteError: vLLM is not installed, or the server did not come up.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        lora_rank: int | None,
        timeout: float = START_TIMEOUT,
        flags: Sequence[str] = (),
        devices: str | None = None,
    ) -> None:
        self.model = model
        program, port = vllm_program(f"vllm/{model}", *OTHERWISE), _free_port()
        super().__init__(f"http://127.0.0.1:{port}/v1", secrets.token_urlsafe(24))  # others here may reach the port
        command = [program, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--dtype", dtype]
        command += ["--load-format", "safetensors"]  # weights in pickles are not read
        command += ["--logprobs-mode", "processed_logprobs"]  # as sampled: at the temperature, under the constraint
        if lora_rank is not None:
            rank = next((rank for rank in RANKS if rank >= lora_rank), lora_rank)
            command += ["--enable-lora", "--max-lora-rank", str(rank)]
        own = {"VLLM_API_KEY": self.key, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
        own |= {} if devices is None else {"CUDA_VISIBLE_DEVICES": devices}
        self._output = NamedTemporaryFile(prefix="leap-vllm-", suffix=".log")  # noqa: SIM115 - closed when it stops
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server_guard.py")), *command, *flags],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=os.environ | own,
            start_new_session=True,  # Ctrl-C is for leap, which then stops the server
        )
        try:
            self._wait(timeout)
        except BaseException:
            self.stop()
            raise

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Stops the server and everything it started; fine to call twice."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(45)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(OSError):  # whoever cleans the folder of temporary files may have been here
            self._output.close()

    def _refusal(self, what: str, status: int, said: object, text: str) -> str:
        return f"vLLM refuses {what}: {said_in(said or text, f'status {status}')}"

    def _gone(self, error: Exception) -> PrerequisiteError:
        return PrerequisiteError(f"the vLLM server of {self.model} is gone ({error}); {self._last_words()}")

    def _wait(self, timeout: float) -> None:
        began = time.monotonic()
        health = f"{self.url.removesuffix('/v1')}/health"
        log.info("vLLM starts for %s", self.model)
        while time.monotonic() < began + timeout:
            if not self.running:
                raise PrerequisiteError(f"vLLM could not serve {self.model}: {self._last_words()}")
            with suppress(httpx2.HTTPError):
                if httpx2.get(health, timeout=5, trust_env=False).status_code == 200:
                    log.info("vLLM serves %s after %.0f s", self.model, time.monotonic() - began)
                    return
            time.sleep(0.2)
        raise PrerequisiteError(f"vLLM did not serve {self.model} within {timeout:.0f} s: {self._last_words()}")

    def _last_words(self) -> str:
        """The last line of the server's output that names an error, or just the last."""
        output = ""
        with suppress(OSError):
            output = Path(self._output.name).read_text(encoding="utf-8", errors="replace")[-20_000:]
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        told = [line for line in lines if "Error" in line or "error:" in line]
        return (told or lines or ["it said nothing"])[-1][-300:]


class VLLMModel(OpenAIModel):
    """A model on a vLLM server of its own.

    Args:
        model: Checkpoint directory or hub name; a LoRA adapter's directory is served on its base.
        sampling: How answers are drawn.
        endpoint: Time-outs and retries; its address and key are not used.
        batch: Conversations held at once.
        dtype: Weights' type.
        timeout: Seconds to wait for the server.

    Raises:
        PrerequisiteError: vLLM or the checkpoint is missing, or the server refuses the adapter.
    """

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        endpoint: EndpointConfig | None = None,
        *,
        batch: int = 64,
        dtype: str = "auto",
        timeout: float = START_TIMEOUT,
    ) -> None:
        adapter = adapter_config(model)
        rank = max(_RANK, int(adapter.get("r", 0))) if adapter else _RANK
        self.server = VLLMServer(base_of(model), dtype=dtype, lora_rank=rank, timeout=timeout)
        try:
            served = adapter_name(model) if adapter else model
            if adapter:
                self.server.load(served, model)
            own = {"base_url": self.server.url, "concurrency": batch}
            own = (endpoint or EndpointConfig()).model_copy(update=own)
            super().__init__(served, sampling, own, name=f"vllm/{model}", api_key=self.server.key)
        except BaseException:
            self.server.stop()
            raise
        self.concurrency = self._at_once  # episodes played at once, as for every model on this machine

    @property
    def identity(self) -> str:
        """The weights, not the address: the same ones on another port give the same answers."""
        return f"{self.name}@{identity(self.name.removeprefix('vllm/'))}"

    def close(self) -> None:
        super().close()
        self.server.stop()


class Served(NamedTuple):
    """A model that replicas on a cluster serve.

    Attributes:
        url: Its address in this run, up to and with /v1.
        weights: Names the weights by what they are: the same ones at another address give the same answers.
    """

    url: str
    weights: str


class ReplicasModel(OpenAIModel):
    """A model that replicas on a cluster serve.

    Args:
        model: Its name there, without `vllm/`.
        sampling: How answers are drawn.
        endpoint: Time-outs, retries and concurrency; its address and key are not used.
        served: Where it is, and what.
    """

    def __init__(self, model: str, sampling: Sampling, endpoint: EndpointConfig, served: Served) -> None:
        there = endpoint.model_copy(update={"base_url": served.url})
        super().__init__(model, sampling, there, name=f"vllm/{model}", api_key="none")  # OpenAI's is none of its business
        self._weights = served.weights

    @property
    def identity(self) -> str:
        return f"{self.name}@{self._weights}"


def adapter_name(path: str) -> str:
    """The name under which a LoRA adapter is served: that of its weights."""
    return f"adapter-{content_key(path, identity(path))[:12]}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
