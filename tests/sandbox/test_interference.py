"""What a process that stays in a box may try on the next command, on other boxes and on the process that made it."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leap_worlds.sandbox import Image, Recipe, Sandbox, SandboxError
from leap_worlds.sandbox.namespace.provider import NamespaceProvider
from leap_worlds.sandbox.namespace.zygote import remove_tree
from leap_worlds.sandbox.store import LayerStore


@pytest.fixture
def own(namespace: NamespaceProvider) -> Iterator[Sandbox]:
    with namespace.create(namespace.build(Recipe())) as box:
        yield box


def daemon(box: Sandbox, code: str) -> None:
    """Leaves a Python program running in the box, which has begun once this returns."""
    box.exec(["bash", "-c", "cat > /d.py; python3 -I -S /d.py </dev/null >/dev/null 2>&1 &"], input=code.encode(), timeout=30)
    for _ in range(100):
        if box.exec(["ls", "/begun"], timeout=30).exit_code != 2:
            return
        time.sleep(0.1)
    raise AssertionError("the program in the box did not begin")


STOPPER = """
import os, signal, time
open("/begun", "w").close()
time.sleep(1)
while True:
    try: os.kill(-1, signal.SIGSTOP)
    except ProcessLookupError: pass  # there is no other process
"""


def test_a_daemon_that_stops_every_process_does_not_hang_the_run(own: Sandbox) -> None:
    daemon(own, STOPPER)
    time.sleep(1.5)
    began = time.monotonic()
    assert own.exec(["sleep", "0.5"], timeout=1).timed_out
    assert own.exec(["echo", "alive"], timeout=20).output == b"alive\n"  # the limit has ended the daemon
    assert time.monotonic() - began < 10


def test_a_daemon_that_stops_a_program_that_is_to_stay(own: Sandbox) -> None:
    daemon(own, STOPPER)
    time.sleep(1.5)
    began = time.monotonic()
    try:
        channel = own.start(["cat"])
        channel.write(b"there\n")
        channel.read_line(timeout=1)
        channel.kill()
    except SandboxError as error:
        assert "in time" in str(error)
    assert own.exec(["echo", "alive"], timeout=20).output == b"alive\n"
    assert time.monotonic() - began < 25


WATCHER = """
import os
open("/begun", "w").close()
seen, own = set(), os.getpid()
while True:
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == own: continue
        try:
            status = open(f"/proc/{name}/status").read()
            line = open(f"/proc/{name}/cmdline").read()
        except OSError: continue
        if "Seccomp:\\t0" in status: seen.add("no filter")
        if "zygote" not in line: continue
        seen.add("seen before it was the command")
        if "/" in line.replace("/proc", "").split("\\0", 1)[1]: seen.add("a path of the host")
        for what in ("mem", "cwd"):
            try:
                if what == "mem": open(f"/proc/{name}/mem", "r+b").close()
                else: os.readlink(f"/proc/{name}/cwd")
                if "zygote" in open(f"/proc/{name}/cmdline").read(): seen.add(what)  # it is not yet the command, so it was not
            except OSError: pass
    open("/seen.new", "w").write(" / ".join(sorted(seen))); os.rename("/seen.new", "/seen")
"""


def test_no_process_is_seen_without_its_filter_or_looked_into_before_it_is_the_command(own: Sandbox) -> None:
    daemon(own, WATCHER)
    seen = b""
    for _ in range(150):
        seen = own.exec(["cat", "/seen"], timeout=30).output
    assert seen in (b"", b"seen before it was the command")


def python(box: Sandbox, code: str) -> str:
    return box.exec(["python3", "-I", "-S", "-c", code], timeout=30).output.decode(errors="replace").strip()


WATCHES = """
import ctypes
libc, made = ctypes.CDLL(None), 0
while made < 2000 and libc.inotify_init() >= 0: made += 1
print(made, flush=True)
"""


def test_one_box_cannot_take_the_watches_of_all(namespace: NamespaceProvider, own: Sandbox) -> None:
    daemon(own, "open('/begun', 'w').close()\n" + WATCHES + "import time; time.sleep(1000)")
    with namespace.create(namespace.build(Recipe())) as other:
        assert 1 <= int(python(other, WATCHES)) <= 8


def test_nothing_that_outlives_its_process_can_be_made_without_limit(own: Sandbox) -> None:
    code = """
import ctypes, errno, os
libc, x = ctypes.CDLL(None, use_errno=True), os.uname().machine == "x86_64"
for number in ((29, 64, 68, 240, 248) if x else (194, 190, 186, 180, 217)):
    result = libc.syscall(ctypes.c_long(number), ctypes.c_long(0), ctypes.c_long(4096), ctypes.c_long(0o1600), ctypes.c_long(0))
    print(errno.errorcode.get(ctypes.get_errno()) if result < 0 else "made")
"""
    assert python(own, code).split() == ["EPERM"] * 5


def test_more_than_1023_open_files(namespace: NamespaceProvider) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip("this process may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3000, hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        with namespace.create(namespace.build(Recipe())) as box:
            assert box.exec(["cat"], input=b"given").output == b"given"
            channel = box.start(["cat"])
            channel.write(b"there\n")
            assert channel.read_line(timeout=20) == b"there"
            channel.kill()
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


DEEP = """
import os
os.mkdir("/deep"); os.chdir("/deep")
for _ in range(1500):
    os.mkdir("d" * 100); os.chdir("d" * 100); open("file", "w").close()
os.chmod("/deep", 0)
"""


def test_deep_folders_on_disk_are_removed(rootfs: Path, tmp_path: Path) -> None:
    provider = NamespaceProvider(store=LayerStore(tmp_path / "store"), rootfs=rootfs, upper="disk")
    try:
        image: Image = provider.build(Recipe())
        with provider.create(image) as box:
            assert python(box, DEEP) == ""
        ended = time.monotonic() + 60
        while list((tmp_path / "store" / "boxes").iterdir()) and time.monotonic() < ended:
            time.sleep(0.05)
        assert not list((tmp_path / "store" / "boxes").iterdir())
    finally:
        provider.close()
        remove_tree(tmp_path / "store")
