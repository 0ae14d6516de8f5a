"""The remote sandbox of the examples, against a stand-in of Modal's client whose boxes are this machine's own."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_tasks import FOLDERS, make_tasks

from leap import registry
from leap_worlds.sandbox import Limits, Recipe, SandboxError, SandboxGone
from leap_worlds.sandbox.namespace.provider import NamespaceProvider
from leap_worlds.tasks.dockerfile import read_dockerfile
from leap_worlds.tasks.env import TasksConfig, TasksEnvironment
from modal_sandbox import ModalProvider

KEPT = "app logs tests solution srv tmp"


class Process:
    """A process of Modal's: its command begins when its input has ended, or its output is asked for."""

    def __init__(self, box: Any, words: tuple[str, ...], env: dict[str, str]) -> None:
        self.stdin = self.stdout = self
        self._box, self._words, self._env, self._given, self._eof = box, words, env, b"", threading.Event()

    def write(self, data: bytes) -> None:
        self._given += data

    def write_eof(self) -> None:
        self._eof.set()

    def drain(self) -> None:
        pass

    def read(self) -> bytes:
        self._eof.set()
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        self._eof.wait()
        done = self._box.exec(self._words, cwd=self._env["PWD"], env=self._env, timeout=3, input=self._given)
        self._code = done.exit_code
        yield done.output

    def wait(self) -> int:
        return self._code


def stand_in(provider: NamespaceProvider) -> types.ModuleType:
    modal: Any = types.ModuleType("modal")
    modal.exception = types.SimpleNamespace(Error=type("Error", (Exception,), {}))
    modal.signed_in, modal.live, modal.asked = True, [], []

    class Sandbox:
        @staticmethod
        def create(*words: str, image: Any, **asked: Any) -> Sandbox:
            modal.asked.append(asked)
            made = Sandbox()
            built, files = image
            made.built = built
            made.box = provider.create(built, Limits())
            made.env = {"PATH": "/usr/bin:/bin", "COLOUR": "red", **built.env, "PWD": built.workdir}
            made.box.exec(["/bin/mkdir", "-p", built.workdir])
            if files:
                made.box.exec(["/bin/sh", "-c", "tar -C / -xf -"], input=files)
            modal.live.append(made)
            return made

        def exec(self, *words: str, text: bool) -> Process:
            if self not in modal.live:
                raise modal.exception.Error("Sandbox has already shut down.\nmore")
            return Process(self.box, words, self.env)

        def poll(self) -> int | None:
            return None if self in modal.live else 137

        def snapshot_filesystem(self) -> Any:
            return self.built, self.box.exec(["/bin/sh", "-c", f"cd / && tar -cf - {KEPT} 2>/dev/null"]).output

        def terminate(self) -> None:
            if self in modal.live:
                modal.live.remove(self)
                self.box.close()

    def from_dockerfile(path: Path, *, context_dir: Path) -> Any:
        found = read_dockerfile(context_dir, "Dockerfile", {"debian:*": "machine"})
        return replace(provider.build(found.recipe), workdir=found.workdir), b""

    def lookup(name: str, *, create_if_missing: bool) -> object:
        if not modal.signed_in:
            raise modal.exception.Error("Token missing.")
        return object()

    modal.Sandbox, modal.App = Sandbox, types.SimpleNamespace(lookup=lookup)
    modal.Image = types.SimpleNamespace(from_dockerfile=from_dockerfile)
    return modal


@pytest.fixture
def modal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    make_tasks(tmp_path / "probe").close()  # skips where namespaces do not work
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path))
    provider = NamespaceProvider()
    made = stand_in(provider)
    monkeypatch.setitem(sys.modules, "modal", made)
    yield made
    provider.close()


@pytest.fixture
def provider(modal: Any) -> ModalProvider:
    made = ModalProvider()
    assert made.probe().ok
    return made


def test_task_folders_are_judged_in_remote_boxes_as_they_are_here(modal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.sandbox("modal")(ModalProvider)
    values = {"path": FOLDERS, "sandbox": "modal"}
    environment = TasksEnvironment(TasksConfig.from_values(values, "tasks"))
    for name in ("plain-old", "judged-elsewhere"):
        (task,) = (task for task in environment.tasks("all") if task.id == name)
        assert environment.prove(task) == ""
    assert all(asked["block_network"] and asked["timeout"] == 3600 for asked in modal.asked)
    remote = environment.images.provider
    environment.close()
    assert modal.live == [] and isinstance(remote, ModalProvider)
    assert remote.boxes == len(modal.asked) and remote.seconds > 0


def test_commands_limits_and_what_is_stopped(modal: Any, provider: ModalProvider) -> None:
    image = provider.build(Recipe(context=FOLDERS / "bytes-out" / "environment"))
    assert (image.workdir, image.user, image.env) == ("/app", "", {"COLOUR": "red", "PATH": "/usr/bin:/bin"})
    with provider.create(image) as box:
        echoed = box.exec(["/bin/sh", "-c", "cat; echo $A$COLOUR >&2; exit 3"], env={"A": "b"}, input=b"x" * 3_000_000)
        assert (echoed.output[-3:], len(echoed.output), echoed.exit_code) == (b"xb\n", 3_000_002, 3)
        assert box.exec(["/bin/pwd"], cwd="/none").exec_error == "cwd"
        assert box.exec(["/bin/none"]).exec_error == "not_found"
        box.exec(["/bin/sh", "-c", "echo kept > /app/file"])
        assert box.exec(["/bin/sleep", "9"], timeout=0.5).timed_out
        assert box.exec(["/bin/sh", "-c", "head -c 100000 /dev/zero"], max_output=1000).output_capped
        assert box.exec(["/bin/cat", "/app/file"]).output == b"kept\n"
        box.start(["/bin/sh", "-c", "read -r _"]).kill()
        assert box.exec(["/bin/cat", "/app/file"]).output == b"kept\n"
        box.reset()
        assert box.exec(["/bin/cat", "/app/file"]).exit_code == 1
    with pytest.raises(SandboxError, match="closed"):
        box.exec(["/bin/true"])


def test_a_box_that_ends_is_gone_and_faults_are_one_line(modal: Any, provider: ModalProvider) -> None:
    image = provider.build(Recipe(context=FOLDERS / "bytes-out" / "environment"))
    box = provider.create(image)
    modal.live[-1].terminate()
    with pytest.raises(SandboxGone, match=r"^the sandbox has died: Sandbox has already shut down$"):
        box.exec(["/bin/true"])
    modal.signed_in = False
    assert ModalProvider().probe().detail == "Token missing. `modal setup` signs in"
    sys.modules["modal"] = None  # type: ignore[assignment]
    assert ModalProvider().probe().detail.startswith("the client is missing")
