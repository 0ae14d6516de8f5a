"""Can bubblewrap serve for the launch of a box, in place of `namespace/mounts.py` and the start of the box's PID 1? Tried:
a copy of the monitor that makes the overlay itself (bubblewrap 0.8 has none), lets `bwrap` do the rest of the launch, and
enters the namespaces that it made. Prints times of ours, of the copy and of one `bwrap` per command, and what the suite of
hostile commands says to the copy.

python benchmarks/sandbox_bwrap.py [--times] [--quick] > benchmarks/sandbox_bwrap.log

`--times` leaves out the suite, `--quick` takes a fifth of the samples.
"""

from __future__ import annotations

import atexit
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from leap_worlds.intercode.bash.images import OPTIONAL_PROGRAMS, PROGRAMS
from leap_worlds.sandbox import Recipe
from leap_worlds.sandbox.namespace import provider as ours

LAUNCH = '''

# ---- the launch by bubblewrap ----

def _make_bwrap(config):
    import array
    from . import filters
    if config["drop_to"] is not None:
        kernel.become(*config["drop_to"])
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if config["upper"]:
        for name in ("u", "w"):
            Path(config["upper"], name).mkdir(parents=True)
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    kernel.map_single_uid(uid, gid)
    # bubblewrap has no overlay before 0.11 and never a limit of files for one in memory, so that this stays ours; at /tmp,
    # for it names what it binds by its whole path, which the boxes' user need not be able to walk.
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    limits = config["limits"]
    size = f"size={limits['disk']},nr_inodes={limits['inodes']},mode=755"
    kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, size)
    for name in ("b", "b/u", "b/w", "r"):
        Path("/tmp", name).mkdir()
    upper = config["upper"] or "/tmp/b"
    options = f"lowerdir={':'.join(config['layers'])},upperdir={upper}/u,workdir={upper}/w,userxattr"
    kernel.mount("overlay", "/tmp/r", "overlay", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    program = os.memfd_create("filter", 0)
    os.write(program, filters.program(os.uname().machine))
    os.lseek(program, 0, os.SEEK_SET)
    told, info = os.pipe()
    ready, out = os.pipe()
    idle, keep = (end.detach() for end in socket.socketpair())
    names = ("chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod "
             "audit_write setfcap").split()
    caps = [word for name in names for word in ("--cap-add", f"CAP_{name.upper()}")]
    hidden = [w for n in ("kcore", "keys", "timer_list", "kmsg", "sysrq-trigger", "latency_stats", "sched_debug")
              if Path("/proc", n).exists() for w in ("--dev-bind", "/dev/null", f"/proc/{n}")]
    argv = ["bwrap", "--bind", "/tmp/r", "/", "--dev", "/dev", "--size", "8388608", "--tmpfs", "/dev/shm", "--mqueue",
            "/dev/mqueue", "--proc", "/proc", *hidden, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
            "--unshare-cgroup", "--hostname", config["hostname"], "--die-with-parent", "--as-pid-1", "--info-fd", str(info),
            "--seccomp", str(program), "--cap-drop", "ALL", *caps, "--clearenv",
            *(word for pair in config["env"].items() for word in ("--setenv", *pair)), "--chdir", "/",
            "/bin/bash", "-c", "trap '' HUP INT QUIT TERM USR1 USR2 ALRM PIPE; echo; exec -c /bin/bash >/dev/null 2>&1"]
    outer = os.fork()
    if outer == 0:
        try:
            os.setsid()
            os.dup2(idle, 0)
            os.dup2(out, 1)
            for fd in (info, program):
                os.set_inheritable(fd, True)
            kernel.reset_signals()
            os.execv("/usr/bin/bwrap", argv)
        finally:
            os._exit(1)
    for fd in (idle, out, info, program):
        os.close(fd)
    text = b""
    while part := os.read(told, 4096):
        text += part
    if not os.read(ready, 1):
        raise RuntimeError("bwrap did not start the box")
    os.close(told)
    os.close(ready)
    child = json.loads(text)["child-pid"]
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    spaces = ("pid", "net", "ipc", "uts", "cgroup", "mnt")
    for door in [os.open(f"/proc/{child}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in spaces]:
        if libc.setns(door, 0) < 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(door)
    return keep, child


def _end_bwrap(init):
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(init, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)


_make, _end = _make_bwrap, _end_bwrap
'''


def launched_by_bwrap(folder: Path) -> None:
    """From here on providers of this process start the copy of the monitor."""
    target = folder / "namespace"
    if not target.exists():
        shutil.copytree(Path(ours.__file__).parent, target)
        with (target / "monitor.py").open("a") as file:
            file.write(LAUNCH)
        folder.chmod(0o755)
        atexit.register(shutil.rmtree, folder)
    ours.__file__ = str(target / "provider.py")


def times(what: str, act: Callable[[], object], n: int = 20 if "--quick" in sys.argv else 100) -> None:
    taken = []
    for _ in range(n):
        start = time.perf_counter()
        act()
        taken.append((time.perf_counter() - start) * 1e3)
    deciles = statistics.quantiles(taken, n=10)
    middle = statistics.median(taken)
    print(f"{what:58} median {middle:6.1f} ms, p10 {deciles[0]:6.1f}, p90 {deciles[8]:6.1f}  (n {n})", flush=True)


def measure(who: str) -> None:
    provider = ours.NamespaceProvider()
    image = provider.build(Recipe(programs=PROGRAMS, optional=OPTIONAL_PROGRAMS))
    true = ["/bin/bash", "-c", "true"]
    with provider.create(image) as box:
        box.exec(true)
        times(f"{who}: fresh box (create and close)", lambda: provider.create(image).close())
        times(f"{who}: command in a box", lambda: box.exec(true))
    provider.close()
    before, own = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
    n = 20 if "--quick" in sys.argv else 200
    for _ in range(n):
        provider.create(image).close()
    own = time.process_time() - own
    provider.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = own + after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{who}: fresh box, processor time {1e3 * used / n:32.1f} ms", flush=True)


def main() -> None:
    version = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    load = f"{os.getloadavg()[0]:.1f} (other work on the machine)"
    print(f"# Linux {os.uname().release}, {os.cpu_count()} cores, load {load}, {version}")
    true = ["/bin/bash", "-c", "true"]
    bwrap = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", *true]
    for _ in range(2):  # by turns, for the machine has other work
        times("no sandbox: bash -c true", lambda: subprocess.run(true, check=True))
        times("one bwrap for each command: bash -c true", lambda: subprocess.run(bwrap, check=True))
        measure("ours")
        done = subprocess.run([sys.executable, *sys.argv, "--copy"], capture_output=True, text=True, check=False)
        print(done.stdout + done.stderr[-400:], end="", flush=True)
    if "--times" in sys.argv:
        return
    print("# the suite of hostile commands, on the copy:", flush=True)
    here = Path(__file__).resolve().parent
    options = "-q -p sandbox_bwrap -p no:cacheprovider --timeout=120 --tb=line -rf -k namespace tests/sandbox/test_hostile.py"
    suite = [sys.executable, "-m", "pytest", *options.split()]
    copy = {**os.environ, "PYTHONPATH": str(here), "LEAP_BWRAP_COPY": "1"}
    done = subprocess.run(suite, cwd=here.parent, capture_output=True, text=True, check=False, env=copy)
    print("\n".join(line[:240] for line in done.stdout.splitlines()[-30:]), flush=True)


if os.environ.get("LEAP_BWRAP_COPY") or "--copy" in sys.argv:
    launched_by_bwrap(Path(tempfile.mkdtemp(prefix="leap-bwrap-")))
if __name__ == "__main__":
    measure("bwrap") if "--copy" in sys.argv else main()
