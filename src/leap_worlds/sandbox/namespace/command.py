"""One command in a box: the child's side (drop everything, run) and the monitor's side (read, time, stop)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from . import filters, kernel, users, wire

LINGER = 2.0
"""Seconds that a call waits for a background child that holds the output open, as `docker exec` does."""
START_SECONDS = 10.0
"""Seconds that a program which stays may take to begin."""
KILL_SECONDS = 5.0
"""Seconds that ending all processes of a box may take."""
_CHUNK = 65536
_NONE_LEFT, _NOT_INSIDE = 1, 2


class Stuck(Exception):
    """Processes of the box keep others from ending."""


def close_the_monitor() -> None:
    """What the monitor does before the box can run anything: from then on each of its forks has the filter from its
    first moment on, and cannot be looked into by processes of the box until it has executed the command."""
    os.chdir("/")  # until now it stands in the host's store
    sys.meta_path.clear()  # the folders that Python would look for a module in are the box's from here on
    kernel.set_dumpable(False)
    filters.install()


def be_first_to_go() -> None:
    """Has this process ended before the box's PID 1 and the monitor, when memory runs out."""
    # A process that is not dumpable may not write its own score. No process of the box can use the moment: this one has
    # more capabilities than they, still.
    kernel.set_dumpable(True)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")
    kernel.set_dumpable(False)


def drop_privileges(limits: dict[str, int]) -> None:
    """Takes from this process what no command of a model may have, each thing while the next can still be taken."""
    kernel.set_limits(limits)
    kernel.drop_capabilities()
    kernel.reset_signals()


def give_streams(user: users.Identity) -> None:
    """Makes the command's pipes its user's, so that it may open them by their names (/dev/stdout) as well."""
    for fd in (0, 1, 2):
        if not stat.S_ISCHR(os.fstat(fd).st_mode):
            os.fchown(fd, user.uid, user.gid)


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
        step = b"user"
        user = users.identity(request["user"]) if request["user"] else None
        step = b"not_found"
        argv = [os.fsencode(word) for word in request["argv"]]
        env = {os.fsencode(key): os.fsencode(value) for key, value in request["env"].items()}
        be_first_to_go()
        if user:
            step = b"user"
            env.setdefault(b"HOME", os.fsencode(user.home))
            give_streams(user)
        drop_privileges(limits)
        if user:
            kernel.become(user.uid, user.gid, user.groups)  # takes the capabilities that are left, too
            step = b"not_found"
        os.execvpe(argv[0], argv, env)
    except BaseException as error:  # nothing of the monitor may go on in this child
        with contextlib.suppress(OSError):
            os.write(status, step + b"\n" + os.fsencode(str(getattr(error, "strerror", None) or error)))
    os._exit(126)


def spawn(
    request: dict[str, Any], limits: dict[str, int], stdin: int, stdout: int, stderr: int, seconds: float
) -> tuple[int, bytes | None]:
    """Forks a command into the box.

    Returns:
        Its process id as the monitor sees it, and why it could not run: `b"cwd\\n..."`, `b"user\\n..."`,
        `b"not_found\\n..."`, empty where it runs, None where it did not begin in time: a process of the box may have stopped it.
    """
    ready, status = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        run_child(request, limits, stdin, stdout, stderr, status)
    os.close(status)
    problem = os.read(ready, 4096) if readable(ready, seconds) else None
    os.close(ready)
    return pid, problem


def readable(fd: int, seconds: float) -> bool:
    """Whether there is something to read, or the other end has closed, within some seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def wait_for(pid: int, seconds: float) -> int | None:
    """The status of a child that ended within some seconds, which is then reaped; else None."""
    process = os.pidfd_open(pid)
    ended = readable(process, seconds)
    os.close(process)
    return os.waitpid(pid, 0)[1] if ended else None


def kill_all() -> None:
    """Ends every process of the box but its PID 1: daemons, sessions of their own, all. The caller is the monitor.
    Raises `Stuck` where they could not be ended in time: then the box has to be ended."""
    deadline = time.monotonic() + KILL_SECONDS
    passes = 0
    while passes < 3:  # one is enough unless a fork slipped through
        if time.monotonic() > deadline:
            raise Stuck("its processes cannot be ended")
        try:
            pid = os.fork()
        except BlockingIOError:  # the box's users together have as many as there may be
            kill_seen()
            time.sleep(0.01)
            continue
        if pid == 0:
            if os.getppid() != 0:
                os._exit(_NOT_INSIDE)  # its parent is visible: here the host's processes would be killed
            try:
                os.kill(-1, signal.SIGKILL)  # from inside the pid namespace: all of it but PID 1 and the caller
            except OSError:
                os._exit(_NONE_LEFT)
            os._exit(0)
        status = wait_for(pid, 0.2)
        if status is None or os.WIFSIGNALED(status):  # a process of the box stopped or ended it before it could do it
            kill_seen()
            if status is None and wait_for(pid, KILL_SECONDS) is None:
                raise Stuck("its processes cannot be ended")
        elif status == 0:
            passes += 1
        elif os.waitstatus_to_exitcode(status) == _NONE_LEFT:
            return
        else:
            raise Stuck("its processes are not in a place of their own")


def kill_seen() -> None:
    """Ends the processes of the box one by one, from outside of its pid namespace, where nothing can stop who does it."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - the box's
        if name.isdigit() and name != "1":
            with contextlib.suppress(OSError):  # it has ended meanwhile
                process = os.open(f"/proc/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                finally:
                    os.close(process)


def run(
    request: dict[str, Any], body: bytes, limits: dict[str, int], client: socket.socket
) -> tuple[dict[str, Any], bytes]:
    """Runs a command to its end or to a limit, and answers as `ExecResult` has it."""
    stdin = _input(body)
    output, stdout = os.pipe()
    os.set_blocking(output, False)  # a command that opens its own output to read may take what was ready
    deadline = time.monotonic() + request["timeout"]
    try:
        pid, problem = spawn(request, limits, stdin, stdout, stdout, request["timeout"])
    finally:
        os.close(stdin)
        os.close(stdout)
    try:
        if problem:
            if wait_for(pid, 1.0) is None:  # stopped by a process of the box, after it had told
                kill_all()
                wait_for(pid, KILL_SECONDS)
            kind, text = problem.split(b"\n", 1)
            return {"exec_error": kind.decode(), "exit_code": 126}, text
        return _watch(pid, output, deadline, request["max_output"], client)
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
    pid: int, output: int, deadline: float, max_output: int, client: socket.socket
) -> tuple[dict[str, Any], bytes]:
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
                    try:
                        part = os.read(output, min(_CHUNK, max_output - size + 1))
                    except BlockingIOError:
                        continue
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
    if status is None and (status := wait_for(pid, KILL_SECONDS)) is None:
        raise Stuck("its command cannot be ended")
    if answer.get("timed_out") or answer.get("output_capped"):
        answer["exit_code"] = 128 + signal.SIGKILL
    else:
        code = os.waitstatus_to_exitcode(status)
        answer["exit_code"] = code if code >= 0 else 128 - code
    return answer, b"".join(parts)[:max_output]
