"""The words of an engine's command line, and what its answers mean."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from leap_worlds.sandbox import base
from leap_worlds.sandbox.image import Image

LABEL = "leap.sandbox"
SNAPSHOTS = "leap-snapshot"
SHM = 8 * 2**20

# PID 1 waits for lines that nobody writes, and reads them away should a command write some: upstream's `bash` would run them.
INIT = ("/bin/bash", "-c", "while read -r || sleep 60; do :; done")

SHELL = "leap"  # how the container's shell calls itself where it cannot do what is below
RUN = 'exec env -i -- "$@" 2>&1'
"""Both outputs are one: an engine carries them apart and loses their order."""
RUN_AS = 'exec env -i -- "HOME=$HOME" "$@" 2>&1'
"""As a user who has a home of its own: the engine knows which."""
START = 'echo; exec env -i -- "$@" 2>/dev/null'
"""The empty line says that the container was reached: an engine would not tell until the program ends."""

_OCI = (b"OCI runtime exec failed", b"Error: crun:", b"Error: runc:", b"Error: OCI runtime")
_ENGINE = (b"Error response from daemon", b"Error: ", b"Cannot connect", b"error during connect")
_NO_USER = re.compile(rb"unable to find (?:user|group) \S+: no matching entries")
_NAME = re.compile(r"leap-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{12}")


def run_options(image: Image, limits: base.Limits) -> list[str]:
    """The options of `docker run` for one sandbox."""
    valued = {
        "--network": "none",
        "--hostname": base.HOSTNAME,
        "--label": f"{LABEL}=1",
        "--pull": "never",
        "--memory": str(limits.memory),
        "--memory-swap": str(limits.memory),
        "--pids-limit": str(limits.processes),
        "--cpus": f"{limits.cpus:g}",
        "--shm-size": str(SHM),
        "--security-opt": "no-new-privileges",
        "--stop-signal": "SIGKILL",  # PID 1 heeds no other, and Podman would give it ten seconds to
    }
    # Not --rm: Docker 20.10 may remove such a container while it is restarted, and what then runs cannot be entered
    options = ["-d", "-i", *(word for pair in valued.items() for word in pair)]
    # `data`: one process that wants too much is told so, before the group's limit has the kernel kill one of them
    ulimits = {"nofile": limits.open_files, "fsize": limits.disk, "data": limits.memory * 7 // 8, "core": 0}
    for name, value in ulimits.items():
        options += ["--ulimit", f"{name}={value}"]
    for name, value in image.env.items():
        options += ["--env", f"{name}={value}"]
    return options


def exec_words(argv: Sequence[str], env: Mapping[str, str], script: str = RUN) -> list[str] | None:
    """What to run in the container, by one of the scripts, so that `argv` runs there with this environment alone: an
    engine would add to it. None where no program could be started with such words."""
    words = [*(f"{name}={value}" for name, value in env.items()), *argv]
    if not argv or any("\0" in word for word in words):
        return None
    if "=" in argv[0]:  # `env` would take it for a variable
        words = [*words[: len(env)], "/bin/sh", "-c", 'exec "$@"', SHELL, *argv]
    try:
        raw = [os.fsencode(word) for word in words]
    except UnicodeEncodeError:  # half of a character
        return None
    try:
        b"\0".join(raw).decode()
    except UnicodeDecodeError:  # the engine's interface is JSON: other bytes than UTF-8 have to be spelt
        return ["/bin/bash", "-c", f"set -- {' '.join(map(_spelt, raw))}; {script}", SHELL]
    return ["/bin/sh", "-c", script, SHELL, *words]


def _spelt(word: bytes) -> str:
    return "$'" + "".join(f"\\x{byte:02x}" for byte in word) + "'"


def result_of(argv: Sequence[str], output: bytes, code: int) -> base.ExecResult:
    """An ended `docker exec`: why no program started is told by the text, as there is no other way.

    A command that prints the same lies about itself to its own episode alone.
    """
    if code in (126, 127, 255) and output.startswith(_OCI):
        cwd = b"chdir to" in output or b"mkdir " in output or b"Cwd must be" in output
        return base.ExecResult(output=output, exit_code=126, exec_error="cwd" if cwd else "not_found")
    if code in (1, 125, 126) and output.count(b"\n") <= 1 and _NO_USER.search(output):
        return base.ExecResult(output=output, exit_code=126, exec_error="user")
    if code in (126, 127) and output.count(b"\n") == 1:
        shell = output.startswith(f"{SHELL}: ".encode())
        program = output.startswith(b"env: ") and os.fsencode(argv[0]) in output
        if shell or program:
            return base.ExecResult(output=output, exit_code=126, exec_error="not_found")
    return base.ExecResult(output=output, exit_code=code)


def engine_failed(output: bytes, code: int) -> bool:
    """Whether this may be the engine's complaint instead of the command's output: then the container is looked at."""
    return code != 0 and output.startswith(_ENGINE)


def explain(said: str | bytes) -> str:
    """An engine's complaint as one line, with what to do where that is known."""
    text = said if isinstance(said, str) else said.decode(errors="replace")
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    lines = [line for line in lines if "--help'" not in line and not line.startswith(("WARNING:", "See '"))]
    line = lines[-1].rstrip(".") if lines else "no message"
    if "permission denied" in text.lower() and ("connect" in text.lower() or ".sock" in text.lower()):
        return (
            f"{line}. You may not use the engine: `sudo usermod -aG docker $USER` and log in again "
            "(that group is as good as root), or use rootless Podman with DOCKER_HOST"
        )
    if "cannot connect" in text.lower() or "is the docker daemon running" in text.lower():
        return f"{line} Start it (`sudo systemctl start docker`, Docker Desktop), or set DOCKER_HOST"
    if "no space left" in text.lower():
        return f"{line}. `docker system prune` frees some"
    return line


def container_name() -> str:
    """A new name that says whose the container is: this process, told from a later one with the same number."""
    return f"leap-{_place()}-{os.getpid()}-{_born(os.getpid()) or 0}-{uuid.uuid4().hex[:12]}"


def snapshot_name() -> str:
    """A new name of an image that is kept for a while alone; it says whose it is, as a container's does."""
    return f"{SNAPSHOTS}:{container_name()}"


def is_orphan(name: str) -> bool:
    """Whether a container was left by a process of this machine that has ended. Of other machines' nothing is known."""
    found = _NAME.fullmatch(name)
    if found is None or found[1] != _place():
        return False
    return _born(int(found[2])) != int(found[3])


def _place() -> str:
    """What process numbers here have in common: a start of the machine, and a namespace of them."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        text = platform.node()
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _born(pid: int) -> int | None:
    """When a process began, in ticks; 0 where that is not told; None once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # another user's: alive
    return 0
