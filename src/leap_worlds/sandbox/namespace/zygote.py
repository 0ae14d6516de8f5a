"""The small process that forks one monitor for each box, so that the training process (threads, gigabytes) never forks.

Started as `python3 -I -S` with this folder's parent on its path; its standard input is the control socket. When that
closes, because the training process ended in whatever way, every box ends with it and what they left is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import stat
from pathlib import Path
from typing import Any

from . import cgroups, kernel, monitor, users, wire


def main() -> None:
    """Serves until the control socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the training process's to handle
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open("/dev/null", os.O_RDWR), 0)  # 0 to 2 stay taken, so that no pipe of a command gets these numbers
    settings, _ = wire.receive(control)
    os.chdir(settings["store"])
    Zygote(control, settings).serve()


class Zygote:
    """Makes boxes as they are asked for, until the control socket closes."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control = control
        self.settings = settings
        self.groups = cgroups.Groups()
        self.boxes: dict[int, dict[str, Any]] = {}
        self.removers: set[int] = set()
        self.shared = os.open("boxes", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def serve(self) -> None:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        child_ended, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._sweep()
        wire.send(self.control, {"controllers": self.groups.controllers})
        gc.collect()
        gc.freeze()
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(child_ended, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == child_ended:
                    os.read(child_ended, 4096)
                    self._reap(os.WNOHANG)
                else:
                    try:
                        request, _ = wire.receive(self.control)
                    except wire.Gone:
                        self._stop()
                        return
                    if request["op"] == "create":
                        self._create(request["config"])
                    elif request["op"] == "remove":
                        self.removers.add(_remove_as_box_user(self.settings, request["folder"]))
                    else:
                        for pid in [pid for pid, config in self.boxes.items() if config["id"] == request["id"]]:
                            os.kill(pid, signal.SIGKILL)

    def _create(self, config: dict[str, Any]) -> None:
        _, (fd,), *_ = socket.recv_fds(self.control, 1, 1, socket.MSG_CMSG_CLOEXEC)
        client = socket.socket(fileno=fd)
        name = f"leap-{os.getpid()}-{config['id']}"
        try:
            doors = self.groups.make(name, config["limits"])
            pid = os.fork()
        except OSError as error:
            self.groups.remove(name)
            with contextlib.suppress(wire.Gone):
                wire.send(client, {"error": f"no process for a box: {error}"})
            client.close()
            return
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.control.close()
            os.close(self.shared)
            for door in doors:
                door.write_text("0")
            monitor.serve(client, config | self.settings)
        client.close()
        self.boxes[pid] = config | {"group": name}

    def _sweep(self) -> None:
        """Removes what boxes have left on disk whose zygote was killed, unless another zygote has boxes in this store."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self.shared, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in Path("boxes").iterdir():
                self.removers.add(_remove_as_box_user(self.settings, str(left)))
        fcntl.flock(self.shared, fcntl.LOCK_SH)

    def _reap(self, flags: int) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, flags)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.removers.discard(pid)
            config = self.boxes.pop(pid, None)
            if config is None:
                continue
            self._end_orphans()
            self.groups.remove(config["group"])
            if config["upper"]:
                self.removers.add(_remove_as_box_user(self.settings, config["upper"]))

    def _end_orphans(self) -> None:
        """Ends what a monitor left that was killed. Its box's PID 1, which is this process's child then, ends by itself,
        unless something in the box has written into its memory."""
        with contextlib.suppress(OSError):  # a kernel that does not list children
            for pid in map(int, Path("/proc/thread-self/children").read_text().split()):
                if pid not in self.boxes and pid not in self.removers:
                    os.kill(pid, signal.SIGKILL)

    def _stop(self) -> None:
        for pid in self.boxes:
            os.kill(pid, signal.SIGKILL)
        self._reap(0)


def _remove_as_box_user(settings: dict[str, Any], folder: str) -> int:
    """Starts to remove what a box wrote to disk, as the users it was written by and in a process of its own, whose id it
    returns: whatever names and links are in there, these users may remove nothing else of the host's."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if settings["ids"] is not None:
                users.enter(settings["ids"], settings["drop_to"])
            elif settings["drop_to"] is not None:
                kernel.become(*settings["drop_to"])
            remove_tree(folder)
        finally:
            os._exit(0)
    return pid


def remove_tree(folder: str | Path) -> None:
    """Removes a folder that may hold folders without permissions, and folders in folders deeper than any path may be
    long or files may be open: what is in a folder of it is moved up before that folder goes. Follows no link."""
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fchmod(top, 0o700)
        while names := os.listdir(top):  # noqa: PTH208
            for name in names:
                if _made_enterable(name, top):
                    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
                    for below in os.listdir(inner):  # noqa: PTH208
                        if _made_enterable(below, inner):
                            os.rename(below, os.urandom(16).hex(), src_dir_fd=inner, dst_dir_fd=top)
                        else:
                            os.unlink(below, dir_fd=inner)
                    os.close(inner)
                    os.rmdir(name, dir_fd=top)
                else:
                    os.unlink(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(folder)  # noqa: PTH106


def _made_enterable(name: str, folder: int) -> bool:
    """Whether a name in a folder is that of a folder, which may be entered and emptied from now on."""
    is_folder = stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode)
    if is_folder:
        os.chmod(name, 0o700, dir_fd=folder)
    return is_folder


if __name__ == "__main__":
    main()
