"""More of what a model may try, kind by kind: processes, the kernel's rarer doors, names and files, channels, what is shared.

Every provider takes it, as test_hostile.py. Where an engine's own defaults decide, the test says so in its place.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from hostile import processes_left, py, sh

from leap_worlds.sandbox import Image, Limits, Sandbox, SandboxError, SandboxGone, SandboxProvider
from leap_worlds.sandbox.namespace import filters
from leap_worlds.sandbox.namespace.provider import NamespaceProvider

pytestmark = pytest.mark.usefixtures("others_untouched")


def left_running(box: Sandbox, code: str) -> None:
    """Leaves a Python program running, which has made /begun by the time that this returns."""
    command = "cat > /d.py; setsid python3 -I -S /d.py </dev/null >/dev/null 2>&1 &"
    box.exec(["bash", "-c", command], input=code.encode(), timeout=30)
    for _ in range(100):
        if box.exec(["cat", "/begun"], timeout=30).exit_code != 1:  # else there is no such file; or it has ended even this
            return
        time.sleep(0.1)
    raise AssertionError("the program in the box did not begin")


# Processes

BOMB = """
import os, threading, time
def more():
    for _ in range(4):
        try:
            if os.fork() == 0: os.setsid(); more()
            threading.Thread(target=time.sleep, args=(7000,)).start()
        except (OSError, RuntimeError): pass
more()
open("/begun", "w").close()
time.sleep(7000)
"""


@pytest.mark.usefixtures("limited")
def test_daemons_with_threads_in_sessions_of_their_own(box: Sandbox, neighbour: Sandbox) -> None:
    left_running(box, BOMB)
    assert sh(neighbour, "for i in $(seq 40); do sleep 0.2 & done; wait; echo on").output == b"on\n"
    assert sh(box, "while :; do :; done", timeout=2).exit_code == 137
    assert processes_left(box) == 2


@pytest.mark.usefixtures("limited")
def test_processes_that_nobody_reaps(box: Sandbox) -> None:
    code = """
import os, time
made = 0
try:
    while made < 5000:
        if os.fork() == 0: os._exit(0)
        made += 1
except OSError: pass
open("/made", "w").write(str(made))
os.rename("/made", "/begun")
time.sleep(7000)
"""
    left_running(box, code)
    assert 1 < int(box.exec(["cat", "/begun"]).output) < Limits().processes + 1
    assert box.exec(["echo", "alive"], timeout=20).output == b"alive\n"
    sh(box, "while :; do :; done", timeout=2)
    assert processes_left(box) == 2


@pytest.mark.parametrize("name", ["SIGSTOP", "SIGKILL", "SIGCONT"])
def test_a_daemon_that_signals_every_process(box: Sandbox, name: str) -> None:
    code = f"""
import os, signal, time
open("/begun", "w").close()
time.sleep(1.5)
while True:
    try: os.kill(-1, signal.{name})
    except ProcessLookupError: pass
"""
    left_running(box, code)
    time.sleep(2)
    began = time.monotonic()
    box.exec(["sleep", "30"], timeout=1)
    box.reset()
    assert processes_left(box) == 2
    assert time.monotonic() - began < 40


def test_no_process_is_ever_seen_without_its_filter(box: Sandbox, provider: SandboxProvider) -> None:
    if not isinstance(provider, NamespaceProvider):
        pytest.skip("an engine's own starter is in the container before its filter is on")
    code = """
import os
open("/begun", "w").close()
bare = 0
while True:
    for name in filter(str.isdigit, os.listdir("/proc")):
        try: bare += "Seccomp:\\t0" in open(f"/proc/{name}/status").read()
        except OSError: pass
    open("/seen.new", "w").write(str(bare)); os.rename("/seen.new", "/seen")
"""
    left_running(box, code)
    for _ in range(60):
        box.exec(["true"], timeout=30)
    assert box.exec(["cat", "/seen"], timeout=30).output == b"0"


def test_no_process_can_be_traced_or_written_to_by_way_of_the_kernel(box: Sandbox, provider: SandboxProvider) -> None:
    code = """
import ctypes, os, signal, time
c = ctypes.CDLL(None, use_errno=True); x = os.uname().machine == "x86_64"
def call(*a):
    r = c.syscall(*(ctypes.c_long(v) for v in a)); return ctypes.get_errno() if r < 0 else 0
child = os.fork()
if child == 0: time.sleep(100)
trace = 101 if x else 117
print(call(trace, 0, 0, 0, 0), call(trace, 16, child, 0, 0), call(trace, 0x4206, child, 0, 0), call(trace, 16, 1, 0, 0))
print(call(310 if x else 270, child, 0, 0, 0, 0, 0), call(311 if x else 271, child, 0, 0, 0, 0, 0))
print(call(438, os.pidfd_open(1), 0, 0), call(440, os.pidfd_open(child), 0, 0, 0, 0))
os.kill(child, signal.SIGKILL)
"""
    seen = py(box, code).split()
    if not isinstance(provider, NamespaceProvider):
        pytest.skip("newer engines let a container's processes trace each other")
    assert seen == ["1"] * 8


# The kernel's rarer doors


def test_every_denied_call_is_denied(box: Sandbox, provider: SandboxProvider) -> None:
    if not isinstance(provider, NamespaceProvider):
        pytest.skip("an engine's filter is its own")
    code = f"""
import ctypes, os
c = ctypes.CDLL(None, use_errno=True); at = 0 if os.uname().machine == "x86_64" else 1
for name, numbers in {filters.DENIED!r}.items():
    if numbers[at] < 0: continue
    ctypes.set_errno(0)
    if c.syscall(*(ctypes.c_long(v) for v in (numbers[at], -1, -1, -1, -1, -1))) != -1 or ctypes.get_errno() != 1:
        print(name, ctypes.get_errno())
print("all tried")
"""
    assert py(box, code) == "all tried\n"


def test_no_setting_of_the_kernel_can_be_written(box: Sandbox) -> None:
    code = """
import os
opened = []
for top in ("/proc/sys", "/proc/irq", "/proc/bus", "/sys"):
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            try: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)); opened.append(path)
            except OSError: pass
print(opened)
"""
    assert py(box, code, timeout=120).strip() == "[]"


def test_the_clock_cannot_be_set(box: Sandbox) -> None:
    code = """
import ctypes, time
for clock in (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC):
    try: time.clock_settime(clock, 0)
    except OSError as error: print(error.errno)
print(ctypes.CDLL(None).settimeofday(bytes(16), None), time.time() > 10**9)
"""
    assert py(box, code).split() in (["1", "1", "-1", "True"], ["1", "22", "-1", "True"])


def test_a_crash_leaves_no_core(box: Sandbox, provider: SandboxProvider) -> None:
    code = "import os, resource; print(*resource.getrlimit(resource.RLIMIT_CORE), flush=True); os.chdir('/tmp'); os.abort()"
    result = box.exec(["python3", "-I", "-S", "-c", code], timeout=20)
    assert result.exit_code == 134
    if isinstance(provider, NamespaceProvider):  # of 1 byte: with 0 the host's own program for crashes would be started
        assert result.output.split() == [b"1", b"1"]
    assert sh(box, "find / -xdev -name 'core*' -type f -size +0 -newer /bin/python3 -path '/tmp/*'").output == b""


def test_one_box_cannot_take_the_terminals_of_all(provider: SandboxProvider, image: Image, box: Sandbox) -> None:
    if not isinstance(provider, NamespaceProvider):
        pytest.skip("an engine does not bound the terminals of a container")
    left_running(box, """
import os, time
held = []
try:
    while True: held.append(os.open("/dev/ptmx", os.O_RDWR))
except OSError: pass
open("/made", "w").write(str(len(held)))
os.rename("/made", "/begun")
time.sleep(7000)
""")  # fmt: skip
    assert 1 <= int(box.exec(["cat", "/begun"]).output) <= 16
    with provider.create(image) as other:
        assert py(other, "import os; print(len(os.openpty()))") == "2\n"


def test_typing_into_a_terminal_is_denied(box: Sandbox, provider: SandboxProvider) -> None:
    code = """
import fcntl, os
os.setsid() if os.getsid(0) != os.getpid() else None
leader, follower = os.openpty()
for what in (0x5412, 0x541C):
    try: fcntl.ioctl(follower, what, b"x"); print("typed")
    except OSError as error: print(error.errno)
"""
    if isinstance(provider, NamespaceProvider):
        assert py(box, code).split() == ["1", "1"]
    else:  # an engine lets a container type into its own terminals; a command has none of the host's
        assert "typed" not in py(box, code.replace("follower, what", "os.open('/dev/tty', os.O_RDWR), what"))


# Files and their names


def test_programs_and_devices_replaced_by_what_never_answers(provider: SandboxProvider, image: Image) -> None:
    with provider.create(image) as doomed:
        sh(doomed, "rm -f /dev/null; mkfifo /dev/null; rm -f /bin/echo /bin/cat; mkfifo /bin/echo; ln -s /proc/kcore /bin/cat")
        sh(doomed, "cd /etc && for f in hosts resolv.conf; do rm -f $f; mkfifo $f; done; mv /tmp /t; mkfifo /tmp")
        began = time.monotonic()
        assert doomed.exec(["echo", "x"], timeout=5).exit_code != 0
        assert doomed.exec(["cat", "/mine"], timeout=5).exit_code != 0
        assert doomed.exec(["true"], cwd="/tmp", timeout=5).exec_error == "cwd"
        assert sh(doomed, "printf on").output == b"on"
        assert time.monotonic() - began < 40


def test_a_lease_on_a_program_keeps_it_no_longer_than_the_time_limit(box: Sandbox) -> None:
    code = """
import fcntl, signal, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = open("/leased", "r+")
fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
open("/begun", "w").close()
time.sleep(7000)
"""
    sh(box, "cp /bin/echo /leased")
    try:
        left_running(box, code)
    except AssertionError:
        pytest.skip("files here cannot be leased")
    began = time.monotonic()
    box.exec(["/leased", "x"], timeout=2)
    assert time.monotonic() - began < 30
    assert box.exec(["echo", "alive"], timeout=30).output == b"alive\n"


def test_names_of_any_bytes(box: Sandbox) -> None:
    code = """
import os
for name in (b"a\\nb", b"\\xff\\xfe", b"x" * 255, b"\\x1b[2J", b"-rf", b" ", b"*"): os.makedirs(b"/odd/" + name)
"""
    assert py(box, code) == ""
    listed = sh(box, "cd /odd && printf '%s\\0' *").output.split(b"\0")[:-1]
    assert sorted(listed) == sorted([b"a\nb", b"\xff\xfe", b"x" * 255, b"\x1b[2J", b"-rf", b" ", b"*"])
    for name in listed:
        assert box.exec(["ls", "-a"], cwd=f"/odd/{os.fsdecode(name)}", timeout=30).output == b".\n..\n"


def test_huge_sparse_files(box: Sandbox) -> None:
    code = """
import os
for size in (2**62, 2**40, 10**9):
    try: os.truncate(os.open("/sparse", os.O_CREAT | os.O_WRONLY), size); print("made")
    except OSError as error: print(error.errno)
"""
    result = box.exec(["python3", "-I", "-S", "-c", "import signal; signal.signal(25, signal.SIG_IGN)\n" + code], timeout=20)
    assert b"made" not in result.output and b"27" in result.output


def test_folders_as_deep_as_they_go(provider: SandboxProvider, image: Image) -> None:
    code = """
import os
os.mkdir("/deep"); os.chdir("/deep")
for made in range(100_000):
    try: os.mkdir("d"); os.chdir("d"); os.chmod("..", 0)
    except OSError: break
print(made)
"""
    with provider.create(image) as deep:
        assert int(py(deep, code, timeout=120)) > 1000
        assert sh(deep, "echo on").output == b"on\n"
        began = time.monotonic()
        deep.reset()
        assert time.monotonic() - began < 60
        assert sh(deep, "ls -d /deep").exit_code != 0


def test_written_memory_of_shared_code_is_the_writers_own(box: Sandbox) -> None:
    code = """
import ctypes, os
at = ctypes.cast(ctypes.CDLL(None).getppid, ctypes.c_void_p).value
with open("/proc/self/mem", "r+b", buffering=0) as memory:
    memory.seek(at); memory.write(b"\\x0f\\x0b" * 4)
print(open("/proc/self/maps").read().count("libc") > 0)
"""
    py(box, code)
    assert py(box, "import os; print(os.getppid())").strip().isdigit()


# Channels and output


def test_a_channel_flooded_without_a_line(box: Sandbox) -> None:
    channel = box.start(["python3", "-I", "-S", "-c", "import os\nwhile True: os.write(1, bytes(65536))"])
    began = time.monotonic()
    assert channel.read_line(timeout=20, max_bytes=1_000_000) is None
    assert time.monotonic() - began < 20
    channel.kill()
    assert processes_left(box) == 2


def test_a_channel_whose_ends_are_closed_or_kept_by_others(box: Sandbox) -> None:
    code = """
import os, time
if os.fork() == 0: time.sleep(7000)
print("\\0\\x1b]0;x\\a", flush=True)
os.close(0); os.close(1)
time.sleep(7000)
"""
    channel = box.start(["python3", "-I", "-S", "-c", code])
    assert channel.read_line(timeout=20) == b"\0\x1b]0;x\a"
    assert channel.read_line(timeout=1) is None
    channel.kill()
    assert processes_left(box) == 2
    deaf = box.start(["python3", "-I", "-S", "-c", "import os, time; os.close(0); print(flush=True); time.sleep(7000)"])
    assert deaf.read_line(timeout=20) == b""
    try:
        deaf.write(b"x" * 10_000_000)
        assert not isinstance(deaf.read_line(timeout=1), bytes)
    except SandboxError:
        pass
    deaf.kill()
    assert processes_left(box) == 2


def test_output_kept_open_by_descriptors_elsewhere(box: Sandbox) -> None:
    code = """
import array, os, socket, time
one, other = socket.socketpair()
one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1, 2]))])
if os.fork() == 0:
    os.setsid(); os.close(1); os.close(2)
    time.sleep(7000)
print("said", flush=True)
"""
    began = time.monotonic()
    result = box.exec(["python3", "-I", "-S", "-c", code], timeout=30)
    assert result.output == b"said\n" and not result.timed_out
    assert time.monotonic() - began < 25


# What all boxes share


def test_no_abstract_socket_leads_to_another_box(provider: SandboxProvider, image: Image, box: Sandbox) -> None:
    left_running(box, """
import socket, time
s = socket.socket(socket.AF_UNIX); s.bind("\\0leap-door"); s.listen()
t = socket.socket(); t.bind(("127.0.0.1", 5151)); t.listen()
open("/begun", "w").close()
time.sleep(7000)
""")  # fmt: skip
    code = """
import socket
for family, address in ((socket.AF_UNIX, "\\0leap-door"), (socket.AF_INET, ("127.0.0.1", 5151))):
    try: socket.socket(family).connect(address); print("there")
    except OSError: print("none")
"""
    assert py(box, code).split() == ["there", "there"]
    with provider.create(image) as other:
        assert py(other, code).split() == ["none", "none"]


@pytest.mark.usefixtures("limited")
def test_memory_that_belongs_to_no_process(provider: SandboxProvider, image: Image) -> None:
    if isinstance(provider, NamespaceProvider):
        assert provider._zygote is not None
        if "memory" not in provider._zygote.controllers:
            pytest.skip("no control group here bounds the memory of a box")
    code = """
import os
with open("/proc/self/oom_score_adj", "w") as score: score.write("0")
held = []
while True:
    held.append(os.memfd_create("x"))
    for _ in range(60): os.write(held[-1], bytes(2**20))
"""
    with provider.create(image) as full:
        try:
            assert full.exec(["python3", "-I", "-S", "-c", code], timeout=60).exit_code != 0
        except SandboxGone:
            full.reset()
        assert sh(full, "echo on").output == b"on\n"


def test_nothing_of_the_host_is_named_in_proc(box: Sandbox) -> None:
    told = sh(box, "cat /proc/self/mountinfo /proc/self/cgroup /proc/net/unix /proc/keys /proc/key-users 2>/dev/null").output
    for word in (os.uname().nodename, str(Path(__file__).parent), str(Path.home() / ".cache")):
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)".encode(), told) is None
