"""Lifecycle, bad input and the remedies of each provider."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from leap import registry
from leap.errors import PrerequisiteError, RecipeError
from leap_worlds.sandbox import (
    Image,
    Recipe,
    Sandbox,
    SandboxError,
    SandboxProvider,
    Step,
    sandbox_provider,
)
from leap_worlds.sandbox.docker import DockerProvider
from leap_worlds.sandbox.namespace import cgroups, remedies
from leap_worlds.sandbox.namespace.provider import GRACE, NamespaceProvider


def test_registry_names_them_and_an_unknown_one() -> None:
    assert {"namespace", "docker"} <= set(registry.sandbox.names())
    with pytest.raises(RecipeError, match=r"no sandbox 'x'.*namespace"):
        sandbox_provider("x")


def test_nothing_of_an_episode_is_in_the_next(provider: SandboxProvider, image: Image, box: Sandbox) -> None:
    box.exec(["bash", "-c", "echo x > /left; mkdir /proc2; rm /bin/cat"])
    box.reset()
    assert box.exec(["cat", "/left"]).exit_code == 1
    with provider.create(image) as other:
        assert other.exec(["cat", "/left"]).exit_code == 1


def test_many_at_once_from_many_threads(provider: SandboxProvider, image: Image) -> None:
    barrier = threading.Barrier(16)

    def episode(number: int) -> bytes:
        with provider.create(image) as box:
            barrier.wait(60)
            box.exec(["bash", "-c", f"echo {number} > /own"], timeout=60)
            return box.exec(["cat", "/own"], timeout=60).output

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(episode, range(16))) == [f"{number}\n".encode() for number in range(16)]


def test_slow_commands_run_at_once(provider: SandboxProvider, image: Image) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: stack.enter_context(provider.create(image)), range(16)))
        began = time.monotonic()
        codes = list(pool.map(lambda box: box.exec(["sleep", "1"], timeout=30).exit_code, made))
        assert codes == [0] * 16 and time.monotonic() - began < 5  # 16 s one after another


def test_input_environment_and_channel(box: Sandbox) -> None:
    assert box.exec(["cat"], input=b"\0given" * 100_000).output == b"\0given" * 100_000
    assert box.exec(["env"], env={"A": "b c"}).output == b"A=b c\n"
    channel = box.start(["bash", "-c", "while read line; do echo got $line; done"])
    channel.write(b"one\ntwo\n")
    assert channel.read_line(timeout=20) == b"got one"
    assert box.exec(["echo", "beside"]).output == b"beside\n"
    assert channel.read_line(timeout=20) == b"got two"
    assert channel.read_line(timeout=0.1) is None
    channel.kill()
    assert channel.read_line(timeout=1) is None
    with pytest.raises(SandboxError):
        box.start(["/no/such"])


def test_a_box_with_a_started_program_closes_at_once(namespace: NamespaceProvider) -> None:
    box = namespace.create(namespace.build(Recipe()))
    channel = box.start(["cat"])
    channel.write(b"there\n")
    assert channel.read_line(timeout=20) == b"there"
    began = time.monotonic()
    box.close()
    assert time.monotonic() - began < GRACE / 2  # it was given up after that, for who waits for PID 1 has to reap the program


def test_closed_boxes_say_so(provider: SandboxProvider, image: Image) -> None:
    box = provider.create(image)
    box.close()
    box.close()
    with pytest.raises(SandboxError, match="closed"):
        box.exec(["true"])


def test_images_of_another_provider_are_refused(namespace: NamespaceProvider) -> None:
    with pytest.raises(SandboxError, match="build the image again"):
        namespace.create(Image(key="x", layers=("missing",)))
    with pytest.raises(SandboxError, match="no layers"):
        namespace.create(Image(key="x"))
    with pytest.raises(SandboxError, match="not built for docker"):
        DockerProvider().create(Image(key="x", layers=("missing",)))


def test_boxes_end_with_the_process_that_made_them(namespace: NamespaceProvider) -> None:
    provider, image = namespace, namespace.build(Recipe())
    code = f"""
import os, signal
from pathlib import Path
from leap_worlds.sandbox import Image
from leap_worlds.sandbox.namespace.provider import GRACE, NamespaceProvider
from leap_worlds.sandbox.store import LayerStore
provider = NamespaceProvider(store=LayerStore(Path({str(provider.store.root)!r})))
box = provider.create(Image(key="x", layers={image.layers!r}))
box.exec(["bash", "-c", "sleep 8888 >/dev/null 2>&1 &"])
print(provider._zygote.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    zygote = int(done.stdout)
    for _ in range(200):
        if not Path(f"/proc/{zygote}").exists() or "Z" in Path(f"/proc/{zygote}/stat").read_text():
            break
        threading.Event().wait(0.05)
    sleepers = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"8888" in _bytes(path)]
    assert not sleepers
    assert not list(Path("/sys/fs/cgroup").glob(f"*/leap-{zygote}-*"))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_steps_become_layers_and_are_kept(namespace: NamespaceProvider, rootfs: Path) -> None:
    made: list[str] = []
    recipe = Recipe(
        rootfs=rootfs,
        steps=(Step(argv=("bash", "/s.sh"), files={"/s.sh": b"echo $A > /made; rm -r /bin/tar"}, env={"A": "1"}),),
    )
    image = namespace.build(recipe, report=made.append)
    assert namespace.build(recipe, report=made.append) == image and len(made) == 1
    with namespace.create(image) as box:
        assert box.exec(["bash", "-c", "cat /made; ls /bin/tar; echo $A"]).output.splitlines()[::2] == [b"1", b"1"]
    with pytest.raises(SandboxError, match=r"step `bash -c echo no; false` ended with status 1: no"):
        namespace.build(Recipe(rootfs=rootfs, steps=(Step(argv=("bash", "-c", "echo no; false")),)))
    with pytest.raises(SandboxError, match=r"took over 0.5 s"):
        namespace.build(Recipe(rootfs=rootfs, steps=(Step(argv=("sleep", "60"), timeout=0.5),)))


def test_a_bad_root_file_system(namespace: NamespaceProvider, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"not a tar" * 1000)
    with pytest.raises(PrerequisiteError, match="could not be unpacked"):
        namespace.build(Recipe(rootfs=tmp_path / "bad.tar"))
    with pytest.raises(PrerequisiteError, match="No such file"):
        namespace.build(Recipe(rootfs=tmp_path / "none.tar"))
    assert not [path for path in (namespace.store.root / "layers").iterdir() if path.name.startswith("making")]


def test_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/user").mkdir()
    assert remedies.barred(tmp_path) is None
    (tmp_path / "sys/kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    assert "sysctl kernel.apparmor_restrict_unprivileged_userns=0" in (remedies.barred(tmp_path) or "")
    (tmp_path / "sys/user/max_user_namespaces").write_text("0\n")
    assert "sysctl user.max_user_namespaces" in (remedies.barred(tmp_path) or "")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "docker" in (remedies.barred(tmp_path) or "")


def test_control_groups_of_version_2(tmp_path: Path) -> None:
    own = tmp_path / "user.slice/run.scope"
    own.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    for name, text in {"controllers": "cpu memory pids", "subtree_control": "cpu memory pids", "procs": ""}.items():
        (own / f"cgroup.{name}").write_text(text)
    groups = cgroups.Groups(tmp_path, "0::/user.slice/run.scope\n")
    assert (groups.version, set(groups.controllers)) == (2, {"memory", "pids", "cpu"})
    doors = groups.make("box", {"memory": 1000, "processes": 10, "cpus": 0.5})
    assert doors == [own / "box/cgroup.procs"]
    assert (own / "box/cpu.max").read_text() == "50000 100000" and (own / "box/memory.max").read_text() == "1000"
    assert cgroups.Groups(tmp_path / "none", "0::/\n").version == 0
