"""The `namespace` provider, as the training process sees it."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from leap_worlds.sandbox import base
from leap_worlds.sandbox.image import Image, Recipe, Report, own_rootfs
from leap_worlds.sandbox.namespace import images, remedies, users, wire
from leap_worlds.sandbox.pipes import PipeChannel
from leap_worlds.sandbox.store import SNAPSHOT, LayerStore

START_TIMEOUT = 30.0
GRACE = 15.0
"""Seconds that a monitor may answer late before it is taken for dead."""


class NamespaceProvider(base.SandboxProvider):
    """Sandboxes of Linux namespaces. See the package's docstring.

    Args:
        store: Where the layers are; the cache's by default.
        upper: Where an episode's changes go: `memory` (bounded in bytes and inodes, the default), or `disk`, where the
            kernel is older than 6.6 (its tmpfs cannot carry what an overlay needs); `auto` chooses.
        rootfs: A tar to build images on, instead of a Debian made by mmdebstrap; `$LEAP_ROOTFS` by default.
    """

    name = "namespace"
    snapshots = True

    def __init__(self, *, store: LayerStore | None = None, upper: str = "auto", rootfs: Path | None = None) -> None:
        self._rootfs = rootfs or own_rootfs()
        self.store = store or LayerStore()
        self.store.ids, self._users_missing = users.found()
        self._upper = ("memory" if remedies.kernel_version() >= (6, 6) else "disk") if upper == "auto" else upper
        self._lock = threading.Lock()
        self._zygote: _Zygote | None = None

    def probe(self) -> base.Probe:
        if problem := remedies.barred():
            return base.Probe(ok=False, detail=problem)
        try:
            self.store.prepare()
            zygote = self._connect()
        except (OSError, base.SandboxError) as error:
            return base.Probe(ok=False, detail=f"cannot start: {error}")
        warnings = []
        if "memory" not in zygote.controllers:
            warnings.append(remedies.NO_CGROUPS)
        if self._upper == "disk":
            warnings.append(remedies.DISK_UPPER)
        if self._users_missing:
            warnings.append(f"boxes have no user but root: {self._users_missing}")
        groups = ", ".join(zygote.controllers) or "none"
        return base.Probe(ok=True, detail=f"user namespaces work; control groups: {groups}", warnings=tuple(warnings))

    def create(self, image: Image, limits: base.Limits | None = None, *, on_disk: bool = False) -> NamespaceSandbox:
        """A fresh box; with `on_disk`, its changes go to a folder and can become a layer
        (`NamespaceSandbox.commit`)."""
        if not image.layers:
            raise base.SandboxError(f"image {image.key} has no layers: build it with this provider's `build`")
        if missing := [layer for layer in image.layers if not self.store.layer(layer).is_dir()]:
            raise base.SandboxError(f"image layer {missing[0]} is not in {self.store.root}: build the image again")
        return NamespaceSandbox(self, image, limits or base.Limits(), on_disk or self._upper == "disk")

    def _connect(self) -> _Zygote:
        with self._lock:
            if self._zygote is None or not self._zygote.usable():
                self.store.prepare()
                self._zygote = _Zygote(self.store)
            return self._zygote

    def build(self, recipe: Recipe, *, report: Report | None = None) -> Image:
        if self._rootfs and recipe.rootfs is None:
            recipe = replace(recipe, rootfs=self._rootfs)
        return images.build(self, recipe, report)

    def users_missing(self) -> str:
        return self._users_missing

    def drop(self, image: Image) -> None:
        if image.layers and image.layers[0].startswith(SNAPSHOT):
            self._connect().tell(op="remove", folder=self.store.place(image.layers[0]))

    def close(self) -> None:
        with self._lock:
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None


class _Zygote:
    """The small process and the socket to it."""

    def __init__(self, store: LayerStore) -> None:
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.control, theirs = socket.socketpair()
        here = Path(__file__).parent
        # By its folder and not by its path: until it has executed a command, a process of a box shows this command line.
        boot = "import os, sys; sys.path.append(os.getcwd()); from namespace import zygote; zygote.main()"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", boot],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={},
                cwd=here.parent,
                start_new_session=True,  # a Ctrl-C at the terminal is not for it
            )
        settings = {"store": str(store.root), "canary": str(store.canary), "drop_to": store.drop_to, "ids": store.ids}
        try:
            self.control.settimeout(START_TIMEOUT)
            wire.send(self.control, settings)
            self.controllers: tuple[str, ...] = tuple(wire.receive(self.control)[0]["controllers"])
        except (wire.Gone, TimeoutError):
            self.process.kill()
            text = self.process.communicate()[1].decode(errors="replace").strip().splitlines()
            raise base.SandboxError(f"the sandbox helper did not start: {text[-1] if text else 'no message'}") from None
        atexit.register(self.close)

    def usable(self) -> bool:
        """Whether it can be asked for boxes: not after a fork (the parent owns it), nor once it has ended."""
        return self.owner == os.getpid() and self.process.poll() is None

    def create(self, config: dict[str, Any]) -> socket.socket:
        """Asks for a box; returns the socket to its monitor."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, self.lock:
                wire.send(self.control, {"op": "create", "config": config})
                socket.send_fds(self.control, [b"\0"], [theirs.fileno()])
        except (wire.Gone, OSError) as error:
            ours.close()
            raise base.SandboxError("the sandbox helper has ended; a new provider starts another") from error
        return ours

    def tell(self, **order: str) -> None:
        """Has a box ended (`op="end", id=...`) or a folder of the store removed (`op="remove", folder=...`)."""
        with self.lock, contextlib.suppress(wire.Gone):
            wire.send(self.control, order)

    def close(self) -> None:
        if self.owner != os.getpid():
            return
        atexit.unregister(self.close)
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(START_TIMEOUT)
        if self.process.stderr:
            self.process.stderr.close()


class NamespaceSandbox(base.Sandbox):
    """One box, by the socket to its monitor. Made by `NamespaceProvider.create`.

    Attributes:
        box: Its name in the store and the control groups.
    """

    def __init__(self, provider: NamespaceProvider, image: Image, limits: base.Limits, on_disk: bool) -> None:
        self._provider, self._image, self._limits = provider, image, limits
        self._on_disk = on_disk
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._env = base.environment(image)
        self._open()

    def _open(self) -> None:
        self.box = uuid.uuid4().hex[:16]
        config = {
            "id": self.box,
            "layers": [self._provider.store.place(layer) for layer in self._image.layers],
            "upper": f"boxes/{self.box}" if self._on_disk else None,
            "limits": asdict(self._limits),
            "hostname": base.HOSTNAME,
            "env": self._env,
            "users": self._image.users,
        }
        self._zygote = self._provider._connect()
        self._socket = self._zygote.create(config)
        self._ask(None, START_TIMEOUT)

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
        request = self._request("exec", argv, cwd, env, user) | {"timeout": timeout, "max_output": max_output}
        with self._lock:
            answer, output = self._ask((request, input), timeout + GRACE)
        return base.ExecResult(output=output, **answer)

    def start(self, argv: Sequence[str], *, cwd: str = "/", env: Mapping[str, str] | None = None) -> base.Channel:
        with self._lock:
            self._ask((self._request("start", argv, cwd, env), b""), START_TIMEOUT)
            assert self._socket is not None
            _, fds, *_ = socket.recv_fds(self._socket, 1, 2, socket.MSG_CMSG_CLOEXEC)
            if len(fds) != 2:
                self._drop()
                raise base.SandboxGone("the sandbox has died: it could not hand over the program's input and output")

        def kill() -> None:
            with self._lock, contextlib.suppress(base.SandboxError):
                self._ask(({"op": "kill"}, b""), START_TIMEOUT)

        return PipeChannel(*fds, kill=kill)

    def _request(
        self, op: str, argv: Sequence[str], cwd: str, env: Mapping[str, str] | None, user: str = ""
    ) -> dict[str, Any]:
        who = "" if user in base.ROOT else user
        own = base.environment_of(who, self._env if env is None else env)
        return {"op": op, "argv": list(argv), "cwd": cwd, "env": own, "user": who}

    def _ask(
        self, message: tuple[dict[str, Any], bytes] | None, timeout: float, handed: int | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """Sends the monitor a request, with an open file if there is one to hand over, and waits for its answer."""
        if self._socket is None:
            raise base.SandboxError("the sandbox is closed")
        try:
            self._socket.settimeout(timeout)
            if message is not None:
                wire.send(self._socket, *message)
            if handed is not None:
                socket.send_fds(self._socket, [b"\0"], [handed])
            answer, body = wire.receive(self._socket)
        except (wire.Gone, OSError) as error:
            self._zygote.tell(op="end", id=self.box)
            self._drop()
            if message is None or not self._zygote.usable():
                raise base.SandboxError("the sandbox's helper has ended, or does not answer") from error
            raise base.SandboxGone("the sandbox has died: its files and processes are gone") from error
        if "error" in answer:
            if message is None or answer.get("gone"):
                self._drop()
            if message is None:
                raise base.SandboxError(f"no sandbox: {remedies.explain(answer['error'])}")
            kind = base.SandboxGone if answer.get("gone") else base.SandboxError
            raise kind(f"the sandbox could not do it: {answer['error']}")
        return answer, body

    def snapshot(self, *, quiet: bool = False) -> Image:
        name, store = f"{SNAPSHOT}{uuid.uuid4().hex[:16]}", self._provider.store
        image = replace(self._image, key=name, layers=(name, *self._image.layers))
        folder = store.layer(name)
        try:
            folder.mkdir()
            if store.drop_to:
                os.chown(folder, *store.drop_to)
            handed = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise base.SandboxError(f"no snapshot: {folder}: {error.strerror}") from error
        order = {"op": "snapshot", "quiet": quiet, "most": 2 * self._limits.disk, "timeout": START_TIMEOUT}
        try:
            with self._lock:
                self._ask((order, b""), START_TIMEOUT + GRACE, handed)
        except base.SandboxError:
            self._provider.drop(image)
            raise
        finally:
            os.close(handed)
        return image

    def commit(self, layer: str) -> None:
        """Ends the box and makes what it changed a layer of the store. Only for a box opened `on_disk`."""
        with self._lock:
            self._ask(({"op": "end"}, b""), START_TIMEOUT)
            target = self._provider.store.layer(layer)
            try:
                (self._provider.store.root / "boxes" / self.box / "u").rename(target)
            except OSError as error:
                if not target.is_dir():  # else another process made the same layer meanwhile
                    raise base.SandboxError(f"layer {layer} cannot be kept: {error.strerror}") from error
            self.close()

    def reset(self) -> None:
        with self._lock:
            self.close()
            self._open()

    def close(self) -> None:
        with self._lock:
            with contextlib.suppress(base.SandboxError):  # it may be closed already
                self._ask(({"op": "close"}, b""), GRACE)
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            self._drop()  # the monitor sees the socket close and ends the box
