"""A root file system made of this machine's own programs, so that the suite needs no download and no root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import host_state, sh

from leap_worlds.sandbox import Image, Limits, Recipe, Sandbox, SandboxProvider
from leap_worlds.sandbox.docker import DockerProvider
from leap_worlds.sandbox.namespace import remedies
from leap_worlds.sandbox.namespace.provider import NamespaceProvider
from leap_worlds.sandbox.store import LayerStore

PROGRAMS = (  # noqa: SIM905
    "bash sh ls cat echo rm mkdir rmdir mv cp ln chmod chown touch dd head tail yes sleep true false id env sort wc df stat "
    "readlink mknod mkfifo chroot mktemp setsid mount umount unshare nsenter tar find ps kill seq dmesg tr"
).split()


def _libraries(programs: list[str]) -> set[str]:
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    return {
        word for line in listed.splitlines() for word in line.split() if word.startswith("/") and not word.endswith(":")
    }


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("ldd"):
        pytest.skip("no ldd to find a program's libraries with")
    python = os.path.realpath(sys.executable)
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    target = tmp_path_factory.mktemp("rootfs") / "rootfs.tar"

    def slim(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = Path(info.name).parts
        return (
            None
            if {
                "test",
                "site-packages",
                "dist-packages",
                "__pycache__",
                "idlelib",
                "ensurepip",
                "lib2to3",
                "tkinter",
                "pydoc_data",
            }
            & set(parts)
            else info
        )

    with tarfile.open(target, "w") as tar:
        programs = {name: found for name in PROGRAMS if (found := shutil.which(name))} | {"python3": python}
        for name, found in programs.items():
            tar.add(os.path.realpath(found), f"bin/{name}")
        modules = [str(path) for path in stdlib.glob("lib-dynload/*.so")]
        for library in _libraries([*programs.values(), *modules]):
            tar.add(os.path.realpath(library), library.lstrip("/"))
        tar.add(stdlib, str(stdlib).lstrip("/"), filter=slim)
        for folder in ("tmp", "root", "proc", "sys", "dev", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
    return target


@pytest.fixture(scope="session")
def namespace(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NamespaceProvider]:
    if reason := remedies.barred():
        pytest.skip(reason)
    made = NamespaceProvider(store=LayerStore(tmp_path_factory.mktemp("store")), rootfs=rootfs)
    probe = made.probe()
    if not probe.ok:
        pytest.skip(probe.detail)
    yield made
    made.close()


@pytest.fixture(scope="session")
def engine(rootfs: Path) -> Iterator[DockerProvider]:
    """A real engine, by the command in $LEAP_TEST_ENGINE: whoever has one installed need not want containers from a test."""
    command = os.environ.get("LEAP_TEST_ENGINE")
    if not command:
        pytest.skip("set LEAP_TEST_ENGINE=docker (or podman) to run on a real engine")
    made = DockerProvider(command=command, rootfs=rootfs)
    probe = made.probe()
    if not probe.ok:
        pytest.skip(probe.detail)
    before = _images(made)
    yield made
    made.close()
    for reference in _images(made) - before:
        made.call("image", "rm", "-f", reference, timeout=60)


def _images(engine: DockerProvider) -> set[str]:
    listed = engine.call("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", timeout=60).stdout.decode()
    return {line for line in listed.split() if "leap-sandbox:" in line or "leap-rootfs:" in line}


@pytest.fixture(scope="session", params=["namespace", "namespace-with-users", "engine"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def provider(kind: str, request: pytest.FixtureRequest) -> SandboxProvider:
    made: SandboxProvider = request.getfixturevalue(kind.removesuffix("-with-users"))
    if kind.endswith("users") and (problem := made.users_missing()):
        pytest.skip(problem)
    return made


@pytest.fixture(scope="session")
def image(provider: SandboxProvider, kind: str) -> Image:
    return provider.build(Recipe(users=kind.endswith("users")))


@pytest.fixture
def box(provider: SandboxProvider, image: Image) -> Iterator[Sandbox]:
    with provider.create(image) as made:
        yield made


@pytest.fixture(scope="session")
def neighbour(provider: SandboxProvider, image: Image) -> Iterator[Sandbox]:
    """Another episode that goes on while one misbehaves."""
    with provider.create(image) as made:
        made.exec(["bash", "-c", "echo mine > /mine; sleep 3000 >/dev/null 2>&1 &"])
        yield made


@pytest.fixture
def others_untouched(box: Sandbox, neighbour: Sandbox) -> Iterator[None]:
    before = host_state()
    yield
    assert host_state() == before
    seen = neighbour.exec(["bash", "-c", "cat /mine; ls -d /proc/[0-9]*/ | wc -l"], timeout=30).output
    assert seen.startswith(b"mine\n")
    assert int(seen.split()[1]) >= 3  # PID 1, its sleep, and what looks
    assert sh(box, "echo alive", 30).output == b"alive\n", "the episode goes on"


@pytest.fixture
def limited(box: Sandbox, provider: SandboxProvider) -> None:
    """An engine without control groups has no limits: then what uses everything up is not tried."""
    if isinstance(provider, NamespaceProvider):
        return
    for name in ("memory/memory.limit_in_bytes", "pids/pids.max"):
        old, new = f"/sys/fs/cgroup/{name}", f"/sys/fs/cgroup/{name.split('/')[0]}.max"
        seen = sh(box, f"cat {old} 2>/dev/null || cat {new}").output.strip()
        if not seen.isdigit() or int(seen) > Limits().memory:
            pytest.skip(f"this engine does not limit {name.split('/')[0]}")
