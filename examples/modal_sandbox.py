"""A remote sandbox in one file: task folders in boxes of Modal's (https://modal.com), by its Python client (1.6).

To use it, `pip install modal`, `modal setup`, put the file in a package of yours, and register the class:

    [project.entry-points."leap.sandboxes"]
    modal = "modal_sandbox:ModalProvider"

Then `environment: {name: tasks, options: {path: my-tasks, sandbox: modal}}`. Modal builds `environment/` or fetches
`docker_image`; boxes have no network, and nothing of a task runs on this machine. When a command has to be stopped the files of
its box become an image, from which another box begins: what ran has ended, files stay. What boxes cost goes by their seconds,
which are logged. It was tried with a stand-in of the client alone (`tests/examples/test_modal_sandbox.py`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from leap.core import content_key
from leap.errors import PrerequisiteError
from leap_worlds.sandbox import base
from leap_worlds.sandbox.docker.command import RUN, START, exec_words, result_of
from leap_worlds.sandbox.docker.image import folder_key
from leap_worlds.sandbox.image import Image, Recipe, Report
from leap_worlds.sandbox.pipes import PipeChannel, read_output

log = logging.getLogger(__name__)

APP = "leap"
LIFETIME = 3600
"""Seconds after which Modal ends a box whose process was killed before it could."""
NO_FOLDER = b"leap: no such folder\n"
PART = 2**20


class ModalProvider(base.SandboxProvider):
    """Boxes of Modal's: the first of its sandboxes, then others from its snapshots.

    Args:
        app: Name of the app in whose account they run.
        lifetime: Most seconds that a box may live.
    """

    name = "modal"
    engine = True

    def __init__(self, *, app: str = APP, lifetime: int = LIFETIME) -> None:
        self._app_name, self._lifetime = app, lifetime
        self._images: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._live: set[ModalSandbox] = set()
        self.boxes, self.seconds = 0, 0.0

    def probe(self) -> base.Probe:
        try:
            import modal
        except ImportError:
            return base.Probe(ok=False, detail="the client is missing: `pip install modal`, then `modal setup`")
        try:
            self._app = modal.App.lookup(self._app_name, create_if_missing=True)
        except modal.exception.Error as error:
            return base.Probe(ok=False, detail=f"{_line(error)}. `modal setup` signs in")
        return base.Probe(ok=True, detail=f"boxes of Modal's, app {self._app_name}")

    def build(self, recipe: Recipe, *, report: Report | None = None) -> Image:
        import modal

        if recipe.steps or not (recipe.context or recipe.reference):
            raise PrerequisiteError("modal: only images of a Dockerfile or a registry are built there")
        if recipe.context:
            key = folder_key(recipe.context)
            made = modal.Image.from_dockerfile(recipe.context / "Dockerfile", context_dir=recipe.context)
        else:
            key = content_key(recipe.reference)
            made = modal.Image.from_registry(str(recipe.reference))
        with self._lock:
            self._images.setdefault(key, made)
        if report:
            report(f"building {recipe.context or recipe.reference} at Modal")
        with self.create(Image(key=key)) as box:  # the image itself tells of what its Dockerfile has set
            told = box.ask("pwd; id -u; env -0").decode(errors="replace")
        workdir, user, said = told.split("\n", 2)
        known = {"PWD", "SHLVL", "_", "HOSTNAME", *base.DEFAULT_ENV}
        pairs = (pair.partition("=") for pair in said.split("\0") if pair)
        env = {name: value for name, _, value in pairs if name not in known or name == "PATH"}
        return Image(key=key, reference=key, workdir=workdir, env=env, user="" if user == "0" else user)

    def create(self, image: Image, limits: base.Limits | None = None) -> ModalSandbox:
        return ModalSandbox(self, image, limits or base.Limits())

    def open(self, image: Any, limits: base.Limits) -> Any:
        """A box of an image of Modal's, or of one of ours by its key.

        Raises:
            SandboxError: There is none to be had.
        """
        import modal

        try:
            return modal.Sandbox.create(
                "sleep",
                "infinity",
                app=self._app,
                image=self._images[image] if isinstance(image, str) else image,
                timeout=self._lifetime,
                block_network=True,
                cpu=(min(limits.cpus, 0.125), limits.cpus),
                memory=(128, math.ceil(limits.memory / 2**20)),
            )
        except modal.exception.Error as error:
            raise base.SandboxError(f"no box of Modal's: {_line(error)}") from error

    def opened(self, box: ModalSandbox) -> None:
        """Counts a box that lives."""
        with self._lock:
            self._live.add(box)
            self.boxes += 1

    def closed(self, box: ModalSandbox, seconds: float) -> None:
        """Counts a box that has lived."""
        with self._lock:
            self._live.discard(box)
            self.seconds += seconds

    def close(self) -> None:
        for box in list(self._live):
            box.close()
        if self.boxes:
            log.info("modal: %d boxes, %.0f box seconds", self.boxes, self.seconds)


class ModalSandbox(base.Sandbox):
    """One box. Made by `ModalProvider.create`."""

    def __init__(self, provider: ModalProvider, image: Image, limits: base.Limits) -> None:
        self._provider, self._image, self._limits = provider, image, limits
        self._box: Any = None
        self._open(image.key)

    def _open(self, image: Any) -> None:
        self._box, self._begun = self._provider.open(image, self._limits), time.monotonic()
        self._provider.opened(self)

    def _process(self, words: Sequence[str]) -> Any:
        import modal

        if self._box is None:
            raise base.SandboxError("the sandbox is closed")
        try:
            return self._box.exec(*words, text=False)
        except modal.exception.Error as error:
            self.close()
            raise base.SandboxGone(f"the sandbox has died: {_line(error)}") from error

    def ask(self, script: str) -> bytes:
        """What a script prints in the image's own environment and folder."""
        return self._process(["/bin/sh", "-c", script]).stdout.read()

    def _words(self, argv: Sequence[str], cwd: str, env: Mapping[str, str] | None, script: str) -> list[str] | None:
        entered = (
            f"cd -- {shlex.quote(cwd)} 2>/dev/null || {{ echo '{NO_FOLDER.decode().strip()}'; exit 126; }}; {script}"
        )
        return exec_words(argv, base.environment(self._image) if env is None else env, entered)

    def exec(
        self,
        argv: Sequence[str],
        *,
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout: float = base.DEFAULT_TIMEOUT,
        max_output: int = base.DEFAULT_MAX_OUTPUT,
        input: bytes = b"",
        user: str = "",
    ) -> base.ExecResult:
        if user not in base.ROOT:
            argv = [*_as(user), *argv]
            env = base.environment_of(user, base.environment(self._image) if env is None else env)
        words = None if "\0" in cwd else self._words(argv, cwd, env, RUN)
        if words is None:
            return base.ExecResult(output=b"not a command", exit_code=126, exec_error="not_found")
        deadline = time.monotonic() + timeout
        process = self._process(words)
        output, timed_out = _read(process, input, deadline, max_output)
        capped = len(output) > max_output
        if timed_out or capped:
            self._end_processes()
            return base.ExecResult(output=output[:max_output], exit_code=137, timed_out=timed_out, output_capped=capped)
        code = process.wait()
        if code == 126 and output == NO_FOLDER:
            return base.ExecResult(output=output, exit_code=126, exec_error="cwd")
        if self._box.poll() is not None:
            self.close()
            raise base.SandboxGone("the sandbox has died: Modal has ended it")
        return result_of(argv, output, code)

    def start(self, argv: Sequence[str], *, cwd: str = "/", env: Mapping[str, str] | None = None) -> base.Channel:
        words = self._words(argv, cwd, env, START.removeprefix("echo; "))
        if words is None:
            raise base.SandboxError("nothing that can be started in the sandbox")
        process = self._process(words)
        theirs, ours = os.pipe()
        output = _pumped(process)
        threading.Thread(target=_feed, args=(theirs, process), daemon=True).start()
        return PipeChannel(ours, output, kill=self._end_processes)

    def _end_processes(self) -> None:
        """Another box with the same files."""
        import modal

        try:
            files = self._box.snapshot_filesystem()
        except modal.exception.Error as error:
            self.close()
            raise base.SandboxGone(f"a command could not be stopped: {_line(error)}") from error
        self.close()
        self._open(files)

    def reset(self) -> None:
        self.close()
        self._open(self._image.key)

    def close(self) -> None:
        import modal

        box, self._box = self._box, None
        if box is not None:
            self._provider.closed(self, time.monotonic() - self._begun)
            with contextlib.suppress(modal.exception.Error):  # it has ended, or does by its lifetime
                box.terminate()


def _as(user: str) -> list[str]:
    """What stands before a command that a user runs, for Modal has no word for it."""
    name, _, group = user.partition(":")
    numbers = ["setpriv", f"--reuid={name}", f"--regid={group or name}", "--clear-groups", "--"]
    home = 'HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)} exec "$@"'
    return [*(numbers if name.isdigit() else ["runuser", "-u", name, "--"]), "/bin/sh", "-c", home, "sh"]


def _read(process: Any, given: bytes, deadline: float, most: int) -> tuple[bytes, bool]:
    """What a process prints until its end, a deadline or too much of it; whether the deadline came first."""
    output = _pumped(process, given)
    with os.fdopen(output, "rb", buffering=0) as pipe:
        return read_output(pipe, deadline, most)


def _pumped(process: Any, given: bytes | None = None) -> int:
    """The end of a pipe that a process's output comes out of, once it was given its input, if it gets all of it now."""
    ours, theirs = os.pipe()

    def pump() -> None:
        with (
            contextlib.suppress(Exception),
            os.fdopen(theirs, "wb", buffering=0) as pipe,
        ):  # a box that goes ends what it said
            if given is not None:
                for at in range(0, len(given), PART):
                    process.stdin.write(given[at : at + PART])
                    process.stdin.drain()
                process.stdin.write_eof()
                process.stdin.drain()
            for part in process.stdout:
                pipe.write(part)

    threading.Thread(target=pump, daemon=True).start()
    return ours


def _feed(pipe: int, process: Any) -> None:
    with contextlib.suppress(Exception), os.fdopen(pipe, "rb", buffering=0) as file:
        while part := file.read(PART):
            process.stdin.write(part)
            process.stdin.drain()


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
