"""What a process that stays in a box may try on the next command, on other boxes and on the process that made it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leap_worlds.sandbox import Image, Recipe, Sandbox, SandboxError, SandboxGone, pipes
from leap_worlds.sandbox.namespace import monitor
from leap_worlds.sandbox.namespace.provider import NamespaceProvider, NamespaceSandbox
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
        if box.exec(["ls", "/begun"], timeout=30).exit_code != 2:  # else there is no such file
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


@pytest.mark.slow
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


def test_a_daemon_that_stops_a_program_that_cannot_begin(own: Sandbox) -> None:
    daemon(own, STOPPER)
    time.sleep(1.5)
    began = time.monotonic()
    for _ in range(10):
        result = own.exec(["/no/such"], timeout=2)
        assert result.exec_error == "not_found" or result.timed_out
    assert time.monotonic() - began < 20


KILLER = STOPPER.replace("SIGSTOP", "SIGKILL")


def test_a_daemon_that_ends_every_process_is_ended_with_all_others(own: Sandbox) -> None:
    assert isinstance(own, NamespaceSandbox)
    for _ in range(3):
        daemon(own, KILLER)
        time.sleep(1.5)
        assert own.exec(["sleep", "5"]).exit_code == 137
        own._ask(({"op": "kill"}, b""), 30)  # as at a limit: the daemon ends whoever is to end it, unless that is quicker
        assert own.exec(["bash", "-c", "rm /begun; echo alive"], timeout=20).output == b"alive\n"


THIEF = """
import os, sys, threading
own = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
def take():
    while True:
        try: os.read(own, 65536)
        except BlockingIOError: pass
threading.Thread(target=take, daemon=True).start()
while True: os.write(1, b"x")
"""


def test_what_was_ready_and_then_is_not_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "_ready", lambda *_: True)
    inner_in, outer_in = os.pipe()
    outer_out, inner_out = os.pipe()
    channel = pipes.PipeChannel(outer_in, outer_out, kill=lambda: None)
    assert channel.read_line(timeout=0.2) is None
    os.write(inner_out, b"line\n")
    assert channel.read_line(timeout=5) == b"line"
    for end in (inner_in, inner_out):
        os.close(end)
    channel.kill()


def test_a_program_that_takes_back_what_it_wrote_keeps_nobody_waiting(own: Sandbox) -> None:
    began = time.monotonic()
    result = own.exec(["python3", "-I", "-S", "-c", THIEF], timeout=3)
    assert result.timed_out or result.output_capped
    channel = own.start(["python3", "-I", "-S", "-c", THIEF])
    assert channel.read_line(timeout=3) is None
    channel.kill()
    assert own.exec(["echo", "alive"], timeout=20).output == b"alive\n"
    assert time.monotonic() - began < 20


def monitor_of(provider: NamespaceProvider, box: Sandbox) -> int:
    """The process id of a box's monitor: the one that is in the box's namespaces."""
    assert provider._zygote is not None
    zygote = provider._zygote.process.pid
    place = os.fsdecode(box.exec(["readlink", "/proc/self/ns/net"]).output).strip()
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    return next(int(pid) for pid in children if str(Path(f"/proc/{pid}/ns/net").readlink()) == place)


# mov eax, 157; mov edi, 1; xor esi, esi; syscall (what its parent's end does to it: nothing); mov eax, 34; syscall (pause); again
STAY = """
import os, time
code = bytes.fromhex("b89d000000 bf01000000 31f6 0f05 b822000000 0f05 ebf7")
at = int(open("/proc/1/syscall").read().split()[-1], 16) - 2
memory = os.open("/proc/1/mem", os.O_RDWR)
os.lseek(memory, at, os.SEEK_SET); os.write(memory, code)
os.kill(1, 17)
time.sleep(0.5)
print(open("/proc/1/syscall").read().split()[0])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the program that is written into PID 1 is x86's")
def test_a_box_ends_with_its_monitor_whatever_its_process_one_has_become(namespace: NamespaceProvider) -> None:
    box = namespace.create(namespace.build(Recipe()))
    assert python(box, STAY) == "34", "PID 1 runs what was written into it"
    box.exec(["bash", "-c", "exec -a leap-remains sleep 9999 >/dev/null 2>&1 &"])
    assert within(20, lambda: bool(remains()))
    os.kill(monitor_of(namespace, box), signal.SIGKILL)
    with pytest.raises(SandboxGone, match="has died"):
        box.exec(["true"])
    assert within(20, lambda: not remains())
    box.reset()
    assert box.exec(["echo", "alive"]).output == b"alive\n"
    box.close()


def within(seconds: float, happened: Callable[[], bool]) -> bool:
    ended = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > ended:
            return False
        time.sleep(0.05)
    return True


def remains() -> list[Path]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path] * path.read_bytes().startswith(b"leap-remains")
        except OSError:
            continue
    return found


IN_FLIGHT = """
import array, os, socket, time
held, sent, rights = [], 0, array.array("i", [1] * 250)
try:
    while sent < 5000:
        held.append(socket.socketpair())
        for _ in range(4): held[-1][0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]); sent += 250
except OSError as error: print(error.strerror, flush=True)
open("/begun", "w").close()
time.sleep(1000)
"""


def test_files_on_their_way_in_one_box_do_not_keep_another_from_starting_programs(namespace: NamespaceProvider) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    provider = NamespaceProvider(store=namespace.store)
    try:
        image = namespace.build(Recipe())
        with provider.create(image) as full, provider.create(image) as other:
            daemon(full, IN_FLIGHT)
            channel = other.start(["cat"])
            channel.write(b"there\n")
            assert channel.read_line(timeout=20) == b"there"
    finally:
        provider.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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


def test_the_monitor_loads_nothing_from_the_box() -> None:
    """Its folders of Python are the box's, who may have made any file there."""
    code = "import sys; sys.path.append('.'); from namespace import command, filters; filters.install = lambda: None\n"
    code += "command.kernel.set_dumpable = lambda _: None; command.close_the_monitor()\n"
    code += "try: import wave\nexcept ImportError: print('none')"
    folder = Path(monitor.__file__).parents[1]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout == "none\n", done.stderr


WATCHES = """
import ctypes
libc, made = ctypes.CDLL(None), 0
while made < 2000 and libc.inotify_init() >= 0: made += 1
print(made, flush=True)
"""


def test_one_box_cannot_take_the_watches_of_all(namespace: NamespaceProvider, own: Sandbox) -> None:
    daemon(own, "open('/begun', 'w').close()\n" + WATCHES + "import time; time.sleep(1000)")
    with namespace.create(namespace.build(Recipe())) as other:
        assert 1 <= int(python(other, WATCHES)) <= 2


def test_nothing_that_outlives_its_process_can_be_made_without_limit(own: Sandbox) -> None:
    code = """
import ctypes, errno, os
libc, x = ctypes.CDLL(None, use_errno=True), os.uname().machine == "x86_64"
for number in ((29, 64, 68, 240, 248, 206) if x else (194, 190, 186, 180, 217, 0)):
    result = libc.syscall(ctypes.c_long(number), ctypes.c_long(0), ctypes.c_long(4096), ctypes.c_long(0o1600), ctypes.c_long(0))
    print(errno.errorcode.get(ctypes.get_errno()) if result < 0 else "made")
"""
    assert python(own, code).split() == ["EPERM"] * 6


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


@pytest.mark.usefixtures("namespace")
def test_what_a_killed_zygote_left_on_disk_goes_with_the_next(rootfs: Path, tmp_path: Path) -> None:
    first = NamespaceProvider(store=LayerStore(tmp_path / "store"), rootfs=rootfs, upper="disk")
    image = first.build(Recipe())
    boxes = tmp_path / "store" / "boxes"
    try:
        live = first.create(image)
        assert first._zygote is not None
        second = NamespaceProvider(store=LayerStore(tmp_path / "store"), upper="disk")
        second.create(image).close()
        assert live.exec(["ls", "/"]).exit_code == 0 and list(boxes.iterdir())
        second.close()
        first._zygote.process.kill()
        first._zygote.process.wait()
        assert list(boxes.iterdir())
        third = NamespaceProvider(store=LayerStore(tmp_path / "store"), upper="disk")
        third.create(image).close()
        assert within(20, lambda: not list(boxes.iterdir()))
        third.close()
    finally:
        first.close()
        remove_tree(tmp_path / "store")


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
