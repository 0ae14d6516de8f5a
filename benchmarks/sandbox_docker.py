"""A fresh episode and one command in the `namespace` sandbox and in an engine's, by turns on the same root file system.

LEAP_ROOTFS=rootfs.tar python benchmarks/sandbox_docker.py [--command podman] > benchmarks/sandbox_docker.log
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

from leap_worlds.intercode.bash.images import TOOLS
from leap_worlds.sandbox import Recipe, SandboxProvider
from leap_worlds.sandbox.docker import DockerProvider
from leap_worlds.sandbox.namespace.provider import NamespaceProvider

TRUE = ["/bin/bash", "-c", "true"]


def acts(provider: SandboxProvider) -> dict[str, Callable[[], object]]:
    image = provider.build(Recipe(packages=TOOLS))
    box = provider.create(image)

    def stop() -> None:
        assert box.exec(["/bin/bash", "-c", "while :; do :; done"], timeout=0.5).timed_out

    return {
        "bash -c true": lambda: box.exec(TRUE, timeout=60),
        "fresh episode (reset: end the old, make a new)": box.reset,
        "command stopped at 0.5 s": stop,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--command", help="docker or podman; whichever reaches an engine by default")
    parser.add_argument("-n", type=int, default=40)
    options = parser.parse_args()
    engine = DockerProvider(command=options.command)
    providers = {"namespace": NamespaceProvider(), "engine": engine}
    print(
        f"# Linux {os.uname().release}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (other work on the machine)"
    )
    for name, provider in providers.items():
        print(f"# {name}: {provider.probe().detail}")
    todo = {name: acts(provider) for name, provider in providers.items()}
    for what in todo["engine"]:
        taken: dict[str, list[float]] = defaultdict(list)
        for _ in range(options.n):  # by turns, so that both have the same neighbours
            for name in todo:
                start = time.perf_counter()
                todo[name][what]()
                taken[name].append((time.perf_counter() - start) * 1e3)
        parts = []
        for name, values in taken.items():
            deciles = statistics.quantiles(values, n=10)
            parts.append(
                f"{name} median {statistics.median(values):6.1f} ms (p10 {deciles[0]:.1f}, p90 {deciles[8]:.1f})"
            )
        ratio = statistics.median(taken["engine"]) / statistics.median(taken["namespace"])
        print(f"{what:46} {', '.join(parts)}: {ratio:.1f} times  (n {options.n} each)", flush=True)
    for provider in providers.values():
        provider.close()


if __name__ == "__main__":
    main()
