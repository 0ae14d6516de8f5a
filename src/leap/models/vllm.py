"""`vllm/NAME`: a local vLLM server, started, waited for and stopped by leap; LoRA adapters come and go at run time.

vLLM is not a dependency of leap: install it beside it (or in an environment of its own) so that `vllm` is on the PATH. A
server that runs elsewhere is reached as `openai/NAME` with its base_url.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import httpx2

from leap.core import content_key
from leap.errors import PrerequisiteError
from leap.models.base import EndpointConfig, Sampling
from leap.models.checkpoints import adapter_config, base_of, identity
from leap.models.openai import OpenAIModel
from leap.models.wire import parsed, said_in

START_TIMEOUT = 1800.0
"""Seconds until a server must be up; the first start of a large model downloads and compiles."""
_RANK = 64  # of adapters that are loaded later, at most
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values that vLLM's --max-lora-rank takes


def vllm_program(model: str) -> str:
    """Path of the `vllm` program.

    Raises:
        PrerequisiteError: It is not installed.
    """
    program = shutil.which("vllm") or shutil.which("vllm", path=str(Path(sys.executable).parent))
    if program is None:
        raise PrerequisiteError(
            f"vllm/{model} needs vLLM, and there is no `vllm` on the PATH. Install it (pip install vllm, on a machine with "
            "a GPU), use hf/ instead, or reach a running server as openai/NAME with its base_url."
        )
    return program


class VLLMServer:
    """A `vllm serve` process.

    Args:
        model: Checkpoint directory or hub name of full weights.
        dtype: Weights' type.
        lora_rank: Largest rank of an adapter that will be loaded.
        timeout: Seconds to wait for it.

    Raises:
        PrerequisiteError: vLLM is not installed, or the server did not come up.
    """

    def __init__(self, model: str, *, dtype: str, lora_rank: int, timeout: float) -> None:
        self.model = model
        self.key = secrets.token_urlsafe(24)  # others on this machine may reach the port
        program, port = vllm_program(model), _free_port()
        self.url = f"http://127.0.0.1:{port}"
        rank = next((rank for rank in _RANKS if rank >= lora_rank), lora_rank)
        command = [program, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--dtype", dtype]
        command += ["--load-format", "safetensors"]  # weights in pickles are not read
        command += ["--enable-lora", "--max-lora-rank", str(rank)]
        self._output = NamedTemporaryFile(prefix="leap-vllm-", suffix=".log")  # noqa: SIM115 - closed when it stops
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server_guard.py")), *command],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"VLLM_API_KEY": self.key, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
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

    def post(self, path: str, body: dict[str, str]) -> None:
        """Sends a command to the server.

        Raises:
            PrerequisiteError: It refuses; the message carries its reason.
        """
        headers = {"Authorization": f"Bearer {self.key}"}
        try:  # a proxy for the outside world is none for this machine
            answer = httpx2.post(self.url + path, json=body, headers=headers, timeout=600, trust_env=False)
        except httpx2.HTTPError as error:
            raise PrerequisiteError(f"the vLLM server of {self.model} is gone ({error}); {self._last_words()}") from error
        if answer.is_error:
            said = said_in(parsed(answer.content) or answer.text, answer.reason_phrase)
            raise PrerequisiteError(f"vLLM refuses {path}: {said}")

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.running:
                raise PrerequisiteError(f"vLLM could not serve {self.model}: {self._last_words()}")
            with suppress(httpx2.HTTPError):
                if httpx2.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200:
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
    """A model on a vLLM server of its own, or a LoRA adapter on another model's.

    Args:
        model: Checkpoint directory or hub name; a LoRA adapter's directory is served on its base.
        sampling: How answers are drawn.
        endpoint: Time-outs and retries; its address and key are not used.
        batch: Conversations held at once.
        dtype: Weights' type.
        timeout: Seconds to wait for the server.
        server: A running server of an adapter's base; one is started by default.

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
        server: VLLMServer | None = None,
    ) -> None:
        adapter = adapter_config(model)
        rank = max(_RANK, int(adapter.get("r", 0))) if adapter else _RANK
        self.server = server or VLLMServer(base_of(model), dtype=dtype, lora_rank=rank, timeout=timeout)
        self._shared = server is not None
        try:
            served = self._load(model) if adapter or self._shared else model
            own = {"base_url": f"{self.server.url}/v1", "concurrency": batch}
            own = (endpoint or EndpointConfig()).model_copy(update=own)
            super().__init__(served, sampling, own, name=f"vllm/{model}", api_key=self.server.key)
        except BaseException:
            if not self._shared:
                self.server.stop()
            raise
        self.concurrency = self._at_once  # episodes played at once, as for every model on this machine

    @property
    def identity(self) -> str:
        """The weights, not the address: the same ones on another port give the same answers."""
        return f"{self.name}@{identity(self.name.removeprefix('vllm/'))}"

    def adapted(self, path: str, sampling: Sampling | None = None) -> VLLMModel:
        """A LoRA adapter on this model's server, loaded now, unloaded when closed.

        Args:
            path: The adapter's directory.
            sampling: How answers are drawn; as this model's by default.

        Raises:
            PrerequisiteError: There is no adapter, it is for another base, or vLLM refuses it.
        """
        return VLLMModel(path, sampling or self.sampling, self.endpoint, batch=self.concurrency, server=self.server)

    def close(self) -> None:
        super().close()
        if not self._shared:
            self.server.stop()
        elif self.server.running:
            self.server.post("/v1/unload_lora_adapter", {"lora_name": self.model})

    def _load(self, path: str) -> str:
        """Loads an adapter; returns the name under which it is served."""
        base, there = base_of(path), self.server.model
        if base == path:
            raise PrerequisiteError(f"there is no LoRA adapter at {path}: its adapter_config.json is missing.")
        paths = [Path(one).resolve() if Path(one).exists() else one.rstrip("/") for one in (base, there)]
        if paths[0] != paths[1]:
            raise PrerequisiteError(f"the LoRA adapter {path} is for {base}, but the server runs {there}.")
        served = f"adapter-{content_key(path, identity(path))[:12]}"
        self.server.post("/v1/load_lora_adapter", {"lora_name": served, "lora_path": str(Path(path).resolve())})
        return served


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
