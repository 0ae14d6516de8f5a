"""Copies of what a box has changed: from the overlay's upper folder into a folder of the store, by the monitor.

The box may go on meanwhile, and is not trusted: everything is opened by its name in an open folder, no link is followed, and
depth, bytes and time are bounded.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator

_DEEPEST = 100
_HIDDEN = ("user.overlay.origin", "user.overlay.impure")
"""What an overlay notes of a file's former place, which a copy has not."""


class Refused(OSError):
    """It cannot be copied."""


class Copy:
    """Copies a folder's content.

    Args:
        source: The folder, open.
        target: Where to: an empty folder, open.
        most: Bytes.
        seconds: Longest time.
    """

    def __init__(self, source: int, target: int, most: int, seconds: float) -> None:
        self._top, self._left, self._until = target, most, time.monotonic() + seconds
        self._first: dict[tuple[int, int], str] = {}  # places of files that have several names
        self._folder(source, target, "")

    def _folder(self, source: int, target: int, place: str) -> None:
        for name in os.listdir(source):
            self._entry(source, target, name, f"{place}{name}")

    def _entry(self, source: int, target: int, name: str, place: str) -> None:
        if time.monotonic() > self._until:
            raise Refused("its files take too long to copy")
        seen = os.lstat(name, dir_fd=source)
        if stat.S_ISDIR(seen.st_mode):
            if place.count("/") == _DEEPEST:
                raise Refused("its folders are too deep to copy")
            os.mkdir(name, 0o700, dir_fd=target)
            with _opened(name, os.O_DIRECTORY, source) as inner, _opened(name, os.O_DIRECTORY, target) as made:
                self._folder(inner, made, f"{place}/")
                _tell(inner, made)
        elif stat.S_ISREG(seen.st_mode):
            same = (seen.st_dev, seen.st_ino)
            if same in self._first:
                os.link(self._first[same], name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
                return
            with (
                _opened(name, os.O_NONBLOCK, source) as old,
                _opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, target) as new,
            ):
                self._content(old, new)
                _tell(old, new)
            if seen.st_nlink > 1:
                self._first[same] = place
        else:
            self._other(source, target, name, seen)

    def _content(self, old: int, new: int) -> None:
        seen, at = os.fstat(old), 0
        if not stat.S_ISREG(seen.st_mode):
            raise Refused("a file of it is another meanwhile")
        while at < seen.st_size:
            try:
                at = os.lseek(old, at, os.SEEK_DATA)
            except OSError:
                break  # a hole up to the end
            end = min(os.lseek(old, at, os.SEEK_HOLE), seen.st_size)
            os.lseek(new, at, os.SEEK_SET)
            while at < end:
                count = os.sendfile(new, old, at, min(end - at, 2**24))
                at, self._left = at + count, self._left - count
                if self._left < 0 or time.monotonic() > self._until:
                    raise Refused("its files are too many bytes to copy")
                if count == 0:
                    break  # it has become shorter
            if at < end:
                break
        os.ftruncate(new, seen.st_size)

    def _other(self, source: int, target: int, name: str, seen: os.stat_result) -> None:
        if stat.S_ISLNK(seen.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISCHR(seen.st_mode) and seen.st_rdev:
            raise Refused("it has a device")
        else:  # a pipe, a socket, or what the overlay has in the place of a removed file
            os.mknod(name, seen.st_mode, seen.st_rdev, dir_fd=target)
        os.chown(name, seen.st_uid, seen.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(seen.st_mode):
            os.chmod(name, stat.S_IMODE(seen.st_mode), dir_fd=target)
        os.utime(name, ns=(seen.st_atime_ns, seen.st_mtime_ns), dir_fd=target, follow_symlinks=False)


@contextlib.contextmanager
def _opened(name: str, flags: int, folder: int) -> Iterator[int]:
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def _tell(old: int, new: int) -> None:
    """Whose it is, who may do what with it, when it was changed, and what stands beside it."""
    seen = os.fstat(old)
    os.fchown(new, seen.st_uid, seen.st_gid)
    os.fchmod(new, stat.S_IMODE(seen.st_mode))
    for name in os.listxattr(old):
        if name not in _HIDDEN:
            with contextlib.suppress(OSError):  # one that only another namespace may set
                os.setxattr(new, name, os.getxattr(old, name))
    os.utime(new, ns=(seen.st_atime_ns, seen.st_mtime_ns))
