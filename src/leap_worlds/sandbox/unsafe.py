"""`unsafe-local`: no sandbox at all. For a machine that is thrown away afterwards, by a flag that says so, never as root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from leap.errors import PrerequisiteError
from leap_worlds.sandbox import base
from leap_worlds.sandbox.image import Image, Recipe, Report
from leap_worlds.sandbox.pipes import read_output

FLAG = "LEAP_UNSAFE_LOCAL"
WORD = "the-model-may-do-anything-to-this-machine"


class UnsafeLocalProvider(base.SandboxProvider):
    """Runs commands on this very machine, as the user who runs leap. It protects nothing.

    Raises:
        PrerequisiteError: As root, or without the flag.
    """

    name = "unsafe-local"

    def __init__(self) -> None:
        if problem := _refusal():
            raise PrerequisiteError(problem)

    def probe(self) -> base.Probe:
        return base.Probe(
            ok=True, detail="no isolation: commands run on this machine as you", warnings=("it protects nothing",)
        )

    def create(
        self, image: Image, limits: base.Limits | None = None, *, hostname: str = base.DEFAULT_HOSTNAME
    ) -> base.Sandbox:
        if problem := _refusal():
            raise PrerequisiteError(problem)
        if image.layers or image.reference:
            raise base.SandboxError("unsafe-local has no images: only tasks that need none can run in it")
        return _LocalSandbox(dict(image.env))

    def build(self, recipe: Recipe, *, report: Report | None = None) -> Image:
        if recipe.steps:
            raise base.SandboxError(
                "unsafe-local runs no set-up scripts: they begin with `rm -rf` of this machine's folders"
            )
        return Image(key="local")


def _refusal() -> str | None:
    if os.geteuid() == 0:
        return "unsafe-local is refused as root: a model's command could destroy this machine. Use `namespace` or `docker`."
    if os.environ.get(FLAG) != WORD:
        return f"unsafe-local has no isolation. If this machine may be destroyed, set {FLAG}={WORD}."
    return None


class _LocalSandbox(base.Sandbox):
    """A temporary folder; each command a process group of its own."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = dict(base.DEFAULT_ENV) | env
        self._folder: Path | None = Path(tempfile.mkdtemp(prefix="leap-unsafe-"))

    def exec(
        self,
        argv: Sequence[str],
        *,
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout: float = base.DEFAULT_TIMEOUT,
        max_output: int = base.DEFAULT_MAX_OUTPUT,
        input: bytes = b"",
    ) -> base.ExecResult:
        if self._folder is None:
            raise base.SandboxError("the sandbox is closed")
        where = self._folder if cwd == "/" else Path(cwd)
        if not where.is_dir():
            return base.ExecResult(exit_code=126, exec_error="cwd")
        with tempfile.TemporaryFile() as given:
            given.write(input)
            given.seek(0)
            try:
                process = subprocess.Popen(
                    list(argv),
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=where,
                    env=dict(self._env if env is None else env),
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                return base.ExecResult(output=str(error).encode(), exit_code=126, exec_error="not_found")
        assert process.stdout is not None
        deadline = time.monotonic() + timeout
        with process.stdout:
            output, over = read_output(process.stdout, deadline, max_output)
            capped = len(output) > max_output
            if not over and not capped:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    over = True
            if over or capped:
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        code = 137 if over or capped else code if code >= 0 else 128 - code
        return base.ExecResult(output=output[:max_output], exit_code=code, timed_out=over, output_capped=capped)

    def start(self, argv: Sequence[str], *, cwd: str = "/", env: Mapping[str, str] | None = None) -> base.Channel:
        raise base.SandboxError("unsafe-local keeps no programs running")

    def reset(self) -> None:
        self.close()
        self._folder = Path(tempfile.mkdtemp(prefix="leap-unsafe-"))

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # the folder made above and nothing else
            self._folder = None
