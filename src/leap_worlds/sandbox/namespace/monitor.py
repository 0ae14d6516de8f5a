"""The monitor of one box: unshares, starts the box's PID 1, proves that it is inside, then serves commands until told to stop.

It is outside the box's pid namespace (nothing in the box can see or signal it) but inside its other namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any, NoReturn

from . import cgroups, command, filters, kernel, mounts, snapshots, users, wire

INIT = ("/bin/bash", "/bin/sh")  # idle; a box whose image has neither cannot be made


def serve(client: socket.socket, config: dict[str, Any]) -> NoReturn:
    """Runs the box that `config` describes, for the client at the other end of the socket. The caller is a fresh fork."""
    init, started = None, []
    try:
        kernel.raise_open_files()
        host = _identity()
        _keep, init, upper = _make(config)
        command.close_the_monitor()
        _prove(config, host)
        wire.send(client, {})
        while True:
            request, body = wire.receive(client)
            if request["op"] == "exec":
                wire.send(client, *command.run(request, body, config["limits"], client))
            elif request["op"] == "start":
                started += _start(request, config["limits"], client)
            elif request["op"] == "snapshot":
                wire.send(client, _snapshot(request, upper, client))
            elif request["op"] == "kill":
                command.kill_all()
                while started:  # until it is reaped a program counts as a process of the box
                    command.wait_for(started.pop(), command.KILL_SECONDS)
                wire.send(client, {})
            else:  # to keep what it changed, or for good
                _end(init)
                wire.send(client, {})
                if request["op"] == "close":
                    break
    except wire.Gone:
        pass
    except BaseException as error:
        with contextlib.suppress(wire.Gone):
            wire.send(client, {"error": f"{type(error).__name__}: {error}", "gone": True})
    finally:
        if init is not None:
            _end(init)
        os._exit(0)


def _make(config: dict[str, Any]) -> tuple[int, int, int]:
    """Returns the pipe end that keeps PID 1 alive, a pidfd of PID 1 (its number may be another's once it has ended), and the
    folder of what the box changes, open."""
    whole = users.outer(config["ids"], config["drop_to"]) if config["users"] else None
    if config["drop_to"] is not None:
        kernel.become(*config["drop_to"])
        kernel.set_dumpable(True)  # else /proc/self/uid_map belongs to the former user
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if config["upper"]:
        for name in ("u", "w"):
            Path(config["upper"], name).mkdir(parents=True)
    if whole is None:
        uid, gid = os.getuid(), os.getgid()
        kernel.unshare(kernel.ALL_NAMESPACES)
        kernel.map_single_uid(uid, gid)
    else:
        _unshare_with_users(whole, config["limits"])
    # A socket and not a pipe: a command that opens /proc/1/fd/0 could write orders to a pipe, and end the box.
    idle, keep = (end.detach() for end in socket.socketpair())
    ready, told = socket.socketpair()
    init = os.fork()
    if init == 0:
        os.close(keep)
        ready.close()
        _become_init(config, idle, told)
    os.close(idle)
    told.close()
    _, upper, *_ = socket.recv_fds(ready, 1, 1, socket.MSG_CMSG_CLOEXEC)
    problem = ready.recv(4096)
    ready.close()
    if problem:
        os.waitpid(init, 0)
        raise RuntimeError(os.fsdecode(problem))
    return keep, os.pidfd_open(init), upper[0]


def _unshare_with_users(whole: users.Mapping, limits: dict[str, int]) -> None:
    """Two user namespaces, one in the other: what the kernel counts for each user of the inner one, it counts in the outer one
    for all of them together, as for the single user of a box that has no other."""
    kernel.unshare(kernel.CLONE_NEWUSER)
    whole.do()
    users.bound_all(limits["processes"] + cgroups.SPARE_PROCESSES)
    mounts.bound_watches(Path("/proc"))
    inner = users.same()
    kernel.unshare(kernel.ALL_NAMESPACES)
    inner.do()


def _become_init(config: dict[str, Any], idle: int, told: socket.socket) -> NoReturn:
    """Becomes PID 1 of the box. Tells a byte, with the open folder of its changes if it got so far; then what went wrong."""
    begun = False
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.sethostname(config["hostname"])
        kernel.loopback_up()
        upper = mounts.enter_box(config["layers"], config["upper"], config["limits"])
        socket.send_fds(told, [b"\0"], [upper])
        begun = True
        os.setsid()
        null = os.open("/dev/null", os.O_WRONLY)
        for target, source in ((0, idle), (1, null), (2, null)):
            os.dup2(source, target)
        command.close_others(told.fileno())
        command.drop_privileges(config["limits"])
        filters.install()
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            with contextlib.suppress(OSError):
                signal.signal(number, signal.SIG_IGN)
        for path in INIT:
            with contextlib.suppress(FileNotFoundError):
                os.execve(path, [path], config["env"])
        raise RuntimeError(f"the image has none of {', '.join(INIT)}")
    except BaseException as error:
        told.sendall((b"" if begun else b"\0") + os.fsencode(str(error) or type(error).__name__))
    os._exit(1)


def _snapshot(request: dict[str, Any], upper: int, client: socket.socket) -> dict[str, Any]:
    """Copies what the box has changed into a folder that the client hands over; not where something runs, if that is asked."""
    _, (target,), *_ = socket.recv_fds(client, 1, 1, socket.MSG_CMSG_CLOEXEC)
    try:
        if request["quiet"] and any(name.isdigit() and name != "1" for name in os.listdir("/proc")):  # noqa: PTH208
            return {"error": "something runs in it"}
        snapshots.Copy(upper, target, request["most"], request["timeout"])
        return {}
    except OSError as error:
        return {"error": str(error)}
    finally:
        os.close(target)


def _start(request: dict[str, Any], limits: dict[str, int], client: socket.socket) -> list[int]:
    """Starts a program that stays and hands its input and output to the client. Returns its process id, where it began."""
    inside_in, outside_in = os.pipe()
    outside_out, inside_out = os.pipe()
    null = os.open("/dev/null", os.O_WRONLY)
    ends = (inside_in, outside_in, outside_out, inside_out, null)
    try:
        pid, problem = command.spawn(request, limits, inside_in, inside_out, null, command.START_SECONDS)
        if problem is None:
            command.kill_all()
            problem = b"not_found\nit did not begin in time"
        if problem:
            command.wait_for(pid, command.KILL_SECONDS)
            wire.send(client, {"error": os.fsdecode(problem.split(b"\n", 1)[1])})
            return []
        wire.send(client, {})
        socket.send_fds(client, [b"\0"], [outside_in, outside_out])
        return [pid]
    finally:
        for end in ends:
            os.close(end)


def _end(init: int) -> None:
    """Ends the box: when its PID 1 is gone the kernel has killed every process in it.

    PID 1 does not go before all of them are reaped, and a started program is a child of this process: waiting for PID 1
    alone would never end.
    """
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        signal.pidfd_send_signal(init, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)


def _identity() -> dict[str, Any]:
    """Returns what identifies the place that this process is in: its namespaces and its root folder."""
    root = Path("/").stat()
    names = ("user", "mnt", "pid_for_children", "net", "ipc", "uts", "cgroup")
    return {name: Path("/proc/self/ns", name).stat().st_ino for name in names} | {"root": [root.st_dev, root.st_ino]}


def _prove(config: dict[str, Any], host: dict[str, Any]) -> None:
    """Looks around from a process started as commands are, before the first command; raises unless it is inside."""
    output, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            command.drop_privileges(config["limits"])
            seen = _identity() | {
                "pids": sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()),
                "pid": os.getpid(),
                "parent": os.getppid(),
                "hostname": os.uname().nodename,
                "interfaces": [name for _, name in socket.if_nameindex()],
                "store": Path(config["store"], mounts.MOUNTPOINT).exists() or Path(config["canary"]).exists(),
                "caps": int(Path("/proc/self/status").read_text().split("CapBnd:\t")[1].split("\n")[0], 16),
                "seccomp": Path("/proc/self/status").read_text().split("Seccomp:\t")[1].split("\n")[0],
            }
            os.write(end, json.dumps(seen).encode())
        except BaseException as error:
            os.write(end, json.dumps({"error": str(error)}).encode())
        os._exit(0)
    os.close(end)
    told = os.read(output, 65536) if command.readable(output, command.START_SECONDS) else b'{"error": "no answer"}'
    seen = json.loads(told)
    os.close(output)
    command.wait_for(pid, command.KILL_SECONDS)
    faults = [seen["error"]] if "error" in seen else _faults(seen, host, config)
    if faults:
        raise RuntimeError("the box could not prove that it is inside: " + "; ".join(faults))


def _faults(seen: dict[str, Any], host: dict[str, Any], config: dict[str, Any]) -> list[str]:
    faults = [f"{name} is the host's" for name, value in host.items() if seen[name] == value]
    if seen["parent"] != 0 or 1 not in seen["pids"] or set(seen["pids"]) - {1, seen["pid"]}:
        faults.append("processes of another place are visible")
    if seen["hostname"] != config["hostname"]:
        faults.append("the hostname is not the box's")
    if set(seen["interfaces"]) - {"lo"}:
        faults.append("there is a network")
    if seen["store"]:
        faults.append("a path of the host is visible")
    if seen["caps"] & ~sum(1 << cap for cap in kernel.DOCKER_CAPS):
        faults.append("capabilities were not dropped")
    if seen["seccomp"] != "2":
        faults.append("system calls are not filtered")
    return faults
