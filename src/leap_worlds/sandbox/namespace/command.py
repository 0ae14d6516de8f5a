"""One command in a box: the child's side (drop everything, run) and the monitor's side (read, time, stop)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any, NoReturn

from . import filters, kernel, wire

LINGER = 2.0  # seconds a call waits for a background child that holds the output open, as `docker exec` does
_CHUNK = 65536


def drop_privileges(limits: dict[str, int]) -> None:
    """What every process that runs the model's commands gives up, in the order that still allows the next."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")  # before the monitor, when memory runs out
    kernel.set_limits(limits)
    kernel.drop_capabilities()
    kernel.reset_signals()
    filters.install()


def close_others(status: int) -> None:
    """Closes whatever else is open. All of it is closed on exec already; a leak here would be a way out, so twice."""
    kernel.close_range(3, status - 1)
    kernel.close_range(max(3, status + 1), 2**31 - 1)


def run_child(
    request: dict[str, Any], limits: dict[str, int], stdin: int, stdout: int, stderr: int, status: int
) -> NoReturn:
    """Becomes the command. Tells through `status` why it could not, else `status` closes on exec."""
    step = b"not_found"
    try:
        os.setsid()
        for target, source in ((0, stdin), (1, stdout), (2, stderr)):
            os.dup2(source, target)
        close_others(status)
        os.umask(0o022)
        step = b"cwd"
        os.chdir(request["cwd"])
        step = b"not_found"
        argv = [os.fsencode(word) for word in request["argv"]]
        env = {os.fsencode(key): os.fsencode(value) for key, value in request["env"].items()}
        drop_privileges(limits)
        os.execvpe(argv[0], argv, env)
    except BaseException as error:  # nothing of the monitor may go on in this child
        with contextlib.suppress(OSError):
            os.write(status, step + b"\n" + os.fsencode(str(getattr(error, "strerror", None) or error)))
    os._exit(126)


def spawn(request: dict[str, Any], limits: dict[str, int], stdin: int, stdout: int, stderr: int) -> tuple[int, bytes]:
    """Forks a command into the box.

    Returns:
        Its process id as the monitor sees it, and why it could not run: `b"cwd\\n..."`, `b"not_found\\n..."` or empty.
    """
    ready, status = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        run_child(request, limits, stdin, stdout, stderr, status)
    os.close(status)
    problem = os.read(ready, 4096)
    os.close(ready)
    return pid, problem


def kill_all() -> None:
    """Ends every process of the box but its PID 1: daemons, sessions of their own, all. The caller is the monitor."""
    for _ in range(3):  # one pass is enough unless a fork slipped through
        pid = os.fork()
        if pid == 0:
            if os.getppid() != 0:
                os._exit(2)  # its parent is visible, so this is not the box's pid namespace: the host's would be killed
            try:
                os.kill(-1, signal.SIGKILL)  # from inside the pid namespace: all of it but PID 1 and the caller
            except OSError:
                os._exit(1)  # none left
            os._exit(0)
        if os.waitpid(pid, 0)[1] != 0:
            return


def run(
    request: dict[str, Any], body: bytes, limits: dict[str, int], client: socket.socket
) -> tuple[dict[str, Any], bytes]:
    """Runs a command to its end or to a limit, and answers as `ExecResult` has it."""
    stdin = _input(body)
    output, stdout = os.pipe()
    try:
        pid, problem = spawn(request, limits, stdin, stdout, stdout)
    finally:
        os.close(stdin)
        os.close(stdout)
    try:
        if problem:
            os.waitpid(pid, 0)
            kind, text = problem.split(b"\n", 1)
            return {"exec_error": kind.decode(), "exit_code": 126}, text
        return _watch(pid, output, request["timeout"], request["max_output"], client)
    finally:
        os.close(output)


def _input(body: bytes) -> int:
    if not body:
        return os.open("/dev/null", os.O_RDONLY)
    stdin = os.memfd_create("stdin")
    for start in range(0, len(body), 2**20):
        os.write(stdin, body[start : start + 2**20])
    os.lseek(stdin, 0, os.SEEK_SET)
    return stdin


def _watch(
    pid: int, output: int, timeout: float, max_output: int, client: socket.socket
) -> tuple[dict[str, Any], bytes]:
    deadline = time.monotonic() + timeout
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(process, select.POLLIN)
    poll.register(client, select.POLLRDHUP)
    parts, size, status = [], 0, None
    answer: dict[str, Any] = {}
    open_output = True
    try:
        while open_output or status is None:
            left = deadline - time.monotonic()
            if left <= 0:
                answer["timed_out"] = status is None  # else only a background child still holds the output
                break
            for fd, event in poll.poll(left * 1000):
                if fd == client.fileno():
                    raise wire.Gone
                if fd == process:
                    status = os.waitpid(pid, 0)[1]
                    poll.unregister(process)
                    deadline = min(deadline, time.monotonic() + LINGER)
                elif event:
                    part = os.read(output, min(_CHUNK, max_output - size + 1))
                    if not part:
                        open_output = False
                        poll.unregister(output)
                    parts.append(part)
                    size += len(part)
            if size > max_output:
                answer["output_capped"] = True
                break
    finally:
        os.close(process)
    if answer.get("timed_out") or answer.get("output_capped"):
        kill_all()
    if status is None:
        status = os.waitpid(pid, 0)[1]
    if answer.get("timed_out") or answer.get("output_capped"):
        answer["exit_code"] = 128 + signal.SIGKILL
    else:
        code = os.waitstatus_to_exitcode(status)
        answer["exit_code"] = code if code >= 0 else 128 - code
    return answer, b"".join(parts)[:max_output]
