"""Figures of the `namespace` sandbox: time, processor time and memory of an episode; many at once; what is left behind.

python benchmarks/sandbox.py [--rootfs rootfs.tar] [--soak 10000] > benchmarks/sandbox.log
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from leap_worlds.intercode.bash.images import TOOLS
from leap_worlds.sandbox import Image, Recipe, Sandbox
from leap_worlds.sandbox.namespace.provider import NamespaceProvider


def times(what: str, act: Callable[[], object], n: int = 200) -> None:
    taken = []
    for _ in range(n):
        start = time.perf_counter()
        act()
        taken.append((time.perf_counter() - start) * 1e3)
    deciles = statistics.quantiles(taken, n=10)
    print(
        f"{what:46} median {statistics.median(taken):6.1f} ms, p10 {deciles[0]:6.1f}, p90 {deciles[8]:6.1f}, "
        f"min {min(taken):6.1f}  (n {n})",
        flush=True,
    )


def processor_time(provider: NamespaceProvider, act: Callable[[NamespaceProvider], object], n: int) -> float:
    """Milliseconds of processor for one `act`: of this process, and of the helper and all it started, once it has ended."""
    before, own = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
    for _ in range(n):
        act(provider)
    own = time.process_time() - own
    provider.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e3 * (own + after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / n


def tree(pid: int) -> list[int]:
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += tree(int(child))
    return found


def memory(provider: NamespaceProvider, image: Image, n: int) -> None:
    boxes = [provider.create(image) for _ in range(n)]
    for box in boxes:
        box.exec(["/bin/bash", "-c", "true"])
    assert provider._zygote is not None
    pids = tree(provider._zygote.process.pid)
    kilobytes = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kilobytes += int(rollup.split("Pss:")[1].split()[0])
    print(
        f"memory (PSS of {n} live boxes and the helper)        {kilobytes / 1024 / n:6.2f} MB each, {len(pids)} processes"
    )
    for box in boxes:
        box.close()


def at_once(provider: NamespaceProvider, image: Image, n: int, turns: int) -> None:
    barrier = threading.Barrier(n)
    live = threading.Semaphore(0)

    def episode(number: int) -> bool:
        with provider.create(image) as box:
            barrier.wait(timeout=120)  # all of them are there before the first goes on
            live.release()
            for turn in range(turns):
                box.exec(["/bin/bash", "-c", f"echo {number} >> /own"], timeout=60)
                seen = box.exec(["/bin/cat", "/own"], timeout=60).output
                if seen != f"{number}\n".encode() * (turn + 1):
                    return False
        return True

    start = time.perf_counter()
    with ThreadPoolExecutor(n) as pool:
        good = sum(pool.map(episode, range(n)))
    print(
        f"{n} episodes at once, {2 * turns} commands each:        {good} of {n} right, {time.perf_counter() - start:.1f} s"
    )


def left_behind(provider: NamespaceProvider) -> dict[str, int]:
    """What a box could leave on the host."""
    assert provider._zygote is not None
    own = f"leap-{provider._zygote.process.pid}-"  # others on the machine may have boxes of their own
    groups = sum(len(list(Path("/sys/fs/cgroup").glob(f"{pattern}{own}*"))) for pattern in ("", "*/"))
    processes = 0
    for entry in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            processes += own in entry.read_text()
    files = subprocess.run(
        ["du", "-s", "--apparent-size", "-B1", provider.store.root / "boxes"], capture_output=True, check=True
    )
    return {
        "processes": processes,
        "descendants": len(tree(os.getpid())),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "groups": groups,
        "bytes": int(files.stdout.split()[0]),
        "open files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    }


def soak(provider: NamespaceProvider, image: Image, n: int, workers: int) -> None:
    commands = [
        "echo x > /f; cat /f",
        "sleep 1000 & echo started",
        "setsid sleep 1000 >/dev/null 2>&1 & mkdir -p /a/b; dd if=/dev/zero of=/a/b/c bs=1M count=2 2>&1 | tail -1",
        "kill -9 -1",
        "chmod 000 /etc; rm -rf /usr/share 2>/dev/null; true",
    ]
    before, failures = left_behind(provider), 0

    def episode(number: int) -> int:
        try:
            with provider.create(image) as box:
                for turn in range(2):
                    command = commands[(number + turn) % len(commands)]
                    box.exec(["/bin/bash", "-c", f"({command}) >/tmp/o 2>&1; echo done"], timeout=60)
            return 0
        except Exception as error:
            print(f"episode {number}: {error}", flush=True)
            return 1

    start, size = time.perf_counter(), 500
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, n, size):
            failures += sum(pool.map(episode, range(first, min(n, first + size))))
            end = time.monotonic() + 10  # the last boxes may still be on their way out
            while (after := left_behind(provider)) != before and time.monotonic() < end:
                time.sleep(0.1)
            left = ", ".join(f"{name} {after[name] - before[name]:+d}" for name in after)
            print(
                f"{min(n, first + size)} episodes, {workers} at once, {time.perf_counter() - start:.0f} s: "
                f"{failures} failures; left behind: {left}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rootfs", type=Path)
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--only-soak", action="store_true")
    options = parser.parse_args()
    provider = NamespaceProvider(rootfs=options.rootfs)
    print(
        f"# Linux {os.uname().release}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (other work on the machine)"
    )
    print(f"# {provider.probe().detail}")
    image = provider.build(Recipe(packages=TOOLS))
    if not options.only_soak:
        box: Sandbox = provider.create(image)
        host = ["/bin/bash", "-c", "true"]
        times("host: bash -c true", lambda: subprocess.run(host, check=True))
        times("box: bash -c true", lambda: box.exec(host))
        times("fresh episode (reset: end the old, make a new)", box.reset)
        times("fresh episode (create and close)", lambda: provider.create(image).close())
        box.close()
        memory(provider, image, 32)
        at_once(provider, image, 64, 5)

        def execs(other: NamespaceProvider) -> None:
            with other.create(image) as box:
                for _ in range(100):
                    box.exec(host)

        fresh = processor_time(NamespaceProvider(rootfs=options.rootfs), lambda it: it.create(image).close(), 100)
        hundred = processor_time(NamespaceProvider(rootfs=options.rootfs), execs, 5)
        start, n = resource.getrusage(resource.RUSAGE_CHILDREN), 200
        for _ in range(n):
            subprocess.run(host, check=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        on_host = 1e3 * (end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime) / n
        print(
            f"processor time: fresh episode {fresh:.1f} ms, bash -c true {(hundred - fresh) / 100:.1f} ms (host {on_host:.1f} ms)"
        )
    if options.soak:
        soak(provider, image, options.soak, options.workers)
    provider.close()


if __name__ == "__main__":
    main()
