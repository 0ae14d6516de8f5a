"""What a model may try, by malice or mistake. Each time: the right result, the episode goes on, nobody else notices.

Every provider takes the same suite. Where an engine gives less than a box of namespaces, or leaves it to its own defaults,
the test says so in its place.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hostile import is_podman, processes, processes_left, py, sh

from leap_worlds.sandbox import Image, Limits, Sandbox, SandboxProvider
from leap_worlds.sandbox.namespace.provider import NamespaceProvider

pytestmark = pytest.mark.usefixtures("others_untouched")

DOCKERS = 0xA80425FB
"""Docker's default capabilities."""


@pytest.mark.usefixtures("limited")
def test_fork_bomb(box: Sandbox) -> None:
    result = sh(box, "bomb() { bomb | bomb & }; bomb; sleep 60", timeout=2)
    assert result.exit_code == 137 and (result.timed_out or result.output_capped)
    assert processes_left(box) == 2  # PID 1 and the counter: all of the bomb is gone


@pytest.mark.usefixtures("limited")
def test_memory(box: Sandbox) -> None:
    assert "MemoryError" in py(box, "x = bytearray(10**11)")
    assert "MemoryError" in py(box, "x = []\nwhile True: x.append(bytearray(10**7))")
    result = sh(box, "tail /dev/zero", timeout=20)
    assert result.exit_code != 0


def test_a_file_has_a_largest_size(provider: SandboxProvider, image: Image) -> None:
    with provider.create(image, Limits(disk=8 * 2**20)) as small:
        assert sh(small, "dd if=/dev/zero of=/big bs=1M count=20").exit_code != 0
        assert sh(small, "dd if=/dev/zero of=/dev/shm/x bs=1M count=9").exit_code != 0
        assert sh(small, "rm /big; echo fine > /f; cat /f").output == b"fine\n"


def test_disk_and_inodes(namespace: NamespaceProvider, provider: SandboxProvider, image: Image) -> None:
    if provider is not namespace:
        pytest.skip("what a container writes is on the engine's disk, and bounded file by file only")
    with provider.create(image, Limits(disk=8 * 2**20, inodes=500)) as small:
        result = sh(small, "for i in 1 2 3; do dd if=/dev/zero of=/big$i bs=1M count=6; done")
        assert b"No space left" in result.output
        assert b"No space left" in sh(small, "rm -f /big*; mkdir /d; for i in $(seq 600); do : > /d/$i; done").output
        assert sh(small, "dd if=/dev/zero of=/dev/shm/x bs=1M count=9").exit_code != 0
        assert sh(small, "rm -rf /d; echo fine > /f; cat /f").output == b"fine\n"


def test_endless_output(box: Sandbox) -> None:
    start = time.monotonic()
    result = sh(box, "yes", timeout=60, max_output=100_000)
    assert result.output_capped and len(result.output) == 100_000 and result.exit_code == 137
    assert time.monotonic() - start < 30
    assert processes_left(box) == 2


def test_output_of_exactly_the_limit_is_not_capped(box: Sandbox) -> None:
    result = sh(box, "printf 12345", max_output=5)
    assert result.output == b"12345" and not result.output_capped


def test_remove_everything(provider: SandboxProvider, image: Image, box: Sandbox) -> None:
    with provider.create(image) as doomed:
        sh(doomed, "rm -rf --no-preserve-root / 2>/dev/null", timeout=60)
        assert doomed.exec(["ls", "/"]).exec_error == "not_found"  # gone in this episode, which still answers
        doomed.reset()
        assert b"bin" in doomed.exec(["ls", "/"]).output
    assert b"bin" in box.exec(["ls", "/"]).output


def test_no_files_of_the_host(box: Sandbox, provider: SandboxProvider, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    paths = [secret, Path(__file__)]
    if isinstance(provider, NamespaceProvider):  # an engine's overlay does show where its layers are, not what is there
        paths.append(provider.store.root)
        assert str(provider.store.root).encode() not in sh(box, "cat /proc/mounts /proc/self/mountinfo").output
    for path in paths:
        assert sh(box, f"cat {path} || ls {path}").exit_code != 0
        assert sh(box, f"cat /proc/1/root{path}").exit_code != 0


def test_no_processes_of_the_host(box: Sandbox) -> None:
    assert processes_left(box) == 2
    assert b"bash" in sh(box, "tr '\\0' ' ' < /proc/1/cmdline").output
    assert sh(box, f"kill -9 {os.getpid()}").exit_code != 0
    assert sh(box, f"cat /proc/{os.getpid()}/environ").exit_code != 0
    told = py(box, "for line in open('/proc/1/environ').read().split(chr(0)): print(line.split('=')[0])").split()
    assert set(told) <= {"PATH", "HOSTNAME", "HOME", "TERM", "container"}  # nothing of the host's environment
    open_files = py(box, "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))")
    assert open_files.strip() == "[0, 1, 2, 3]"  # the last is the listing itself: nothing leaks in


def test_no_network(box: Sandbox, provider: SandboxProvider) -> None:
    code = """
import socket
print([name for _, name in socket.if_nameindex()])
for family, address in ((2, ("192.0.2.1", 80)), (10, ("2001:db8::1", 80))):
    try: socket.socket(family, 1).connect(address)
    except OSError as error: print(error.strerror)
for family in (17, 40, 38):
    try: socket.socket(family, 3)
    except OSError as error: print(error.strerror)
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); socket.create_connection(s.getsockname()); print("loopback")
"""
    lines = py(box, code).splitlines()
    assert lines[0] == "['lo']" and lines[-1] == "loopback"
    assert lines[1] == "Network is unreachable"
    if isinstance(provider, NamespaceProvider):  # which families there are is up to an engine's own filter
        assert lines[2] == "Network is unreachable"
        assert lines[3:-1] == ["Address family not supported by protocol"] * 3
    else:
        assert lines[2] in ("Network is unreachable", "Cannot assign requested address")


def test_symlinks_lead_nowhere(box: Sandbox) -> None:
    up = "../" * 40
    assert sh(box, f"ln -s {up}{Path(__file__).parent} /l; ls /l/").exit_code != 0
    assert sh(
        box, f"ln -s {up} /up; ls -d /up/tmp /up/proc >/dev/null; ls -A /up/ > /a; ls -A / > /b; wc -c < /up/mine"
    ).exit_code


ESCAPE = """
import os
os.mkdir("/jail"); inside = os.open("/", os.O_RDONLY); os.chroot("/jail"); os.fchdir(inside)
for _ in range(50): os.chdir("..")
os.chroot("."); print(os.path.exists("%s"), sorted(os.listdir("/"))[:3])
"""


def test_chroot_does_not_lead_out(box: Sandbox) -> None:
    out = py(box, ESCAPE % __file__)
    assert out.startswith("False ['")


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /proc/sys",
        "umount /proc",
        "unshare -U true",
        "unshare -m true",
        "nsenter -t 1 -m true",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger && test -c /proc/sysrq-trigger.never",
        "echo 1 > /sys/kernel/uevent_helper",
        "dmesg",
        "mknod /d b 8 0 && cat /d",
        "mknod /m c 1 1 && cat /m",
        'test -n "$(head -c 1 /proc/kcore)"',
    ],
)
def test_what_is_not_permitted(box: Sandbox, command: str) -> None:
    if command == "unshare -U true" and is_podman(box):
        pytest.skip("Podman's own filter lets a container make user namespaces")
    assert sh(box, command).exit_code != 0


def test_system_calls_that_are_filtered(box: Sandbox, provider: SandboxProvider) -> None:
    code = """
import ctypes, os
c = ctypes.CDLL(None, use_errno=True); x = os.uname().machine == "x86_64"
def call(*a):
    r = c.syscall(*(ctypes.c_long(v) for v in a)); return ctypes.get_errno() if r < 0 else 0
print(call(272 if x else 97, 0x10000000), call(308 if x else 268, 0, 0), call(101 if x else 117, 16, 1, 0, 0))
print(call(321 if x else 280, 0, 0, 0), call(425, 1, 0), call(435, 0, 0), call(5000))
print(call(56 if x else 220, 0x10000011, 0, 0, 0, 0), call(0x40000000))
"""
    seen = py(box, code).split()
    if isinstance(provider, NamespaceProvider):
        assert seen == ["1", "1", "1", "1", "1", "38", "38", "1", "38"]  # EPERM, and ENOSYS for what is unknown
    elif not is_podman(box):  # an engine's filter is its own, and differs by version: at least no namespaces and no bpf
        assert "0" not in (seen[0], seen[1], seen[3], seen[7])


def test_setuid_files_give_nothing(box: Sandbox, provider: SandboxProvider) -> None:
    result = sh(box, "cp /bin/python3 /p; chmod 4755 /p; /p -I -S -c 'import os; print(os.getresuid())'")
    assert result.output.strip() == b"(0, 0, 0)"  # root in the box, no more than before
    if isinstance(provider, NamespaceProvider):
        assert b"nosuid" in sh(box, "head -1 /proc/mounts").output
    assert b"NoNewPrivs:\t1" in sh(box, "cat /proc/self/status").output


def test_capabilities_are_those_of_docker_and_do_not_come_back(box: Sandbox, provider: SandboxProvider) -> None:
    lines = sh(box, "cat /proc/self/status").output.decode().splitlines()
    caps = {line.split(":")[0]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}
    assert caps["CapEff"] == caps["CapBnd"]
    if isinstance(provider, NamespaceProvider):
        assert caps["CapBnd"] == DOCKERS
    assert caps["CapBnd"] & ~DOCKERS == 0  # upstream's Podman gives fewer


def test_daemons_end_with_the_episode(provider: SandboxProvider, image: Image) -> None:
    with provider.create(image) as box:
        start = time.monotonic()
        assert (
            sh(box, "setsid bash -c 'trap \"\" TERM HUP; sleep 7777' >/dev/null 2>&1 & echo started").output
            == b"started\n"
        )
        result = sh(box, "sleep 7777 & echo holds the output", timeout=30)
        assert result.output == b"holds the output\n" and not result.timed_out
        assert time.monotonic() - start < 25  # two seconds of lingering, not the time limit
        assert processes(box) > 2
        box.reset()
        assert processes_left(box) == 2
        sh(box, "setsid sleep 7777 >/dev/null 2>&1 &")
    time.sleep(0.2)
    listed = list(Path("/proc").glob("[0-9]*/cmdline"))
    assert not [path for path in listed if b"7777" in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_trap_against_termination(box: Sandbox) -> None:
    result = sh(box, "echo begun; trap '' TERM INT HUP QUIT; while :; do :; done", timeout=1)
    assert result.timed_out and result.output == b"begun\n" and result.exit_code == 137
    assert processes_left(box) == 2


@pytest.mark.parametrize(
    "command", ["kill -9 -1", "kill -9 1", "kill -TERM 1; kill -INT 1; kill -HUP 1", "echo exit > /proc/1/fd/0"]
)
def test_attempts_on_process_one(box: Sandbox, command: str) -> None:
    sh(box, command)


def test_killed_by_itself_has_dockers_exit_code(box: Sandbox) -> None:
    assert sh(box, "kill -9 $$").exit_code == 137
    assert sh(box, "kill -TERM $$").exit_code == 143


def test_terminal_escapes_and_binary_output_are_just_bytes(box: Sandbox) -> None:
    assert sh(box, "printf '\\033]0;title\\007\\033[2J'").output == b"\x1b]0;title\x07\x1b[2J"
    everything = box.exec(["python3", "-I", "-S", "-c", "import os; os.write(1, bytes(range(256)) * 300)"]).output
    assert everything == bytes(range(256)) * 300
    assert sh(box, "echo to-terminal > /dev/tty").exit_code != 0


def test_waiting_for_input_ends_at_once(box: Sandbox) -> None:
    result = sh(box, "cat; read line; echo got:$line", timeout=30)
    assert result.output == b"got:\n" and not result.timed_out


def test_signals_are_not_inherited_as_ignored(box: Sandbox) -> None:
    assert sh(box, "yes | head -1; echo ${PIPESTATUS[0]}").output == b"y\n141\n"


def test_odd_requests(box: Sandbox) -> None:
    assert box.exec(["/no/such"]).exec_error == "not_found"
    assert box.exec(["ls"], cwd="/no/such").exec_error == "cwd"
    assert box.exec(["echo", "nul\0byte"]).exec_error == "not_found"
    assert box.exec(["echo", "x" * 3_000_000]).exec_error == "not_found"
    assert box.exec(["echo", "\udcff\udcfe"]).output == b"\xff\xfe\n"
    assert box.exec([]).exec_error == "not_found"
