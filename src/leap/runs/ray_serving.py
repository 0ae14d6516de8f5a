"""`teacher.serve: ray`: a model behind replicas of `ray.serve.llm` on the run's cluster. It starts when it is first asked and
stops with the run. Ray Serve outlives whoever started it: where a driver was killed, the next one finds the replicas by name.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap.core import content_key
from leap.errors import PrerequisiteError, RunError, last_line
from leap.models.checkpoints import identity
from leap.models.engine import ServeConfig

if TYPE_CHECKING:
    from leap.models.vllm import Served

log = logging.getLogger(__name__)

_ROUTED = 60.0
"""Seconds until the proxy must know of replicas that are up."""


def check_serving(name: str) -> None:
    """Looks for what serves a model, without starting it.

    Raises:
        PrerequisiteError: It is not installed, or the model cannot be served.
    """
    if find_spec("openai") is None:
        raise PrerequisiteError("teacher.serve needs the openai client: pip install 'leap-agents[endpoints]'")
    try:
        import ray.serve.llm  # noqa: F401
    except ImportError as error:
        raise PrerequisiteError(
            "teacher.serve: ray needs Ray Serve and vLLM, on this machine and on the nodes with GPUs: "
            f"pip install 'ray[serve,llm]' ({last_line(error)})"
        ) from error
    if (Path(name) / "adapter_config.json").exists():
        raise PrerequisiteError(f"teacher.serve: {name} is a LoRA adapter; merge it into its base first.")


def settings(name: str, serve: ServeConfig) -> dict[str, Any]:
    """Arguments of `LLMConfig`. Weights in pickles are not read."""
    return {
        "model_loading_config": {"model_id": name, "model_source": name},
        "engine_kwargs": {"tensor_parallel_size": serve.gpus, "load_format": "safetensors", **serve.options},
        "deployment_config": {"num_replicas": serve.replicas},
    }


def application(name: str, serve: ServeConfig) -> Any:
    """The application that Ray Serve is to run: OpenAI's protocol before the replicas."""
    from ray.serve.llm import LLMConfig, build_openai_app

    return build_openai_app({"llm_configs": [LLMConfig(**settings(name, serve))]})


class Serving:
    """The teacher of a run on the cluster that this process is connected to.

    Args:
        model: The teacher's name, without `vllm/`.
        serve: How it is served.
        run: The run directory.
    """

    def __init__(self, model: str, serve: ServeConfig, run: Path) -> None:
        self._model, self._serve = model, serve
        self._run = f"leap-{content_key(socket.gethostname(), str(run.absolute()))[:12]}"
        self._name = f"{self._run}-{content_key(model, serve.model_dump(mode='json'))[:8]}"
        self._served: Served | None = None
        self._left = False

    def served(self) -> Served:
        """Where the model is, started if it is not there.

        Raises:
            PrerequisiteError: It cannot be served; the message says why.
            RunError: `stop` was called meanwhile.
        """
        from leap.models.vllm import Served

        if self._served is None:
            url = self._start()
            self._wait()
            self._listens(url)
            self._served = Served(url, identity(self._model))
        return self._served

    def _start(self) -> str:
        """Has the cluster start the replicas; returns their address."""
        from ray import serve
        from ray.serve.context import _get_global_client

        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)  # what matters is told by errors, in one line
        head, port = _head(), self._serve.port
        running = _get_global_client(raise_if_no_controller_running=False) is not None
        with suppress(OSError):
            socket.create_connection((head, port), timeout=2).close()
            if not running:
                raise PrerequisiteError(f"teacher.serve.port: something listens at {head}:{port} already; choose another.")
        try:
            if not running:
                serve.start(proxy_location="HeadOnly", http_options={"host": head, "port": port})
            there = serve.status().applications
            for other in there:
                if other.startswith(self._run) and other != self._name:  # of this run with other settings
                    serve.delete(other)
            if self._name not in there or there[self._name].status not in ("RUNNING", "DEPLOYING"):
                target = serve.RunTarget(application(self._model, self._serve), self._name, f"/{self._name}")
                serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
            client: Any = _get_global_client()
        except Exception as error:
            raise PrerequisiteError(f"teacher.serve: Ray Serve cannot start {self._model}: {last_line(error)}") from error
        given = client.http_config  # whoever started Ray Serve has said where it listens
        host = head if given.host in ("0.0.0.0", "::") else given.host
        return f"http://{f'[{host}]' if ':' in host else host}:{given.port}{given.root_path}/{self._name}/v1"

    def _wait(self) -> None:
        """Waits until all replicas are up."""
        from ray import serve

        log.info("Ray Serve starts %s", self._model)
        until = time.monotonic() + self._serve.timeout
        while (there := serve.status().applications.get(self._name)) is None or there.status != "RUNNING":
            told = [deployment.message for deployment in there.deployments.values() if deployment.message] if there else []
            says = (told or [there.message if there else ""])[-1].strip().rpartition("\n")[2][-300:]
            if self._left:
                raise RunError("teacher.serve: nobody wants it any more")
            if there is not None and there.status == "DEPLOY_FAILED":
                raise PrerequisiteError(f"teacher.serve: {self._model} cannot be served: {says}")
            if time.monotonic() > until:
                raise PrerequisiteError(
                    f"teacher.serve: {self._model} is not up after {self._serve.timeout:g} s (teacher.serve.timeout): {says}"
                )
            time.sleep(0.2)

    def _listens(self, url: str) -> None:
        """Looks whether the address answers: a proxy hears of new replicas a moment later."""
        from leap.models.vllm import Server

        until = time.monotonic() + _ROUTED
        while True:
            try:
                Server(url, "").cards()
                return
            except PrerequisiteError as error:
                if time.monotonic() > until or self._left:
                    raise PrerequisiteError(f"teacher.serve: {self._model} is up, but not to be had: {error}") from error
            time.sleep(0.2)

    def stop(self) -> None:
        """Stops the replicas, those that a killed driver has left too. Ray Serve itself stays on the cluster, for others."""
        self._left, self._served = True, None
        with suppress(Exception):  # a cluster that is gone, or no Ray Serve
            from ray import serve

            for name in serve.status().applications:
                if name.startswith(self._run):
                    serve.delete(name)


def _head() -> str:
    """The head node's address: there Ray Serve listens, for all nodes and for no more than these."""
    import ray

    return next(node["NodeManagerAddress"] for node in ray.nodes() if "node:__internal_head__" in node["Resources"])
