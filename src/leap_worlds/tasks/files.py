"""Files put into a box and taken out of one. What comes out is a student's: nothing in it is to be trusted."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from leap_worlds.sandbox.base import Sandbox
from leap_worlds.tasks.format import TaskError

MOST = 64 * 2**20
"""Bytes that an artifact may have."""
UPLOAD_SECONDS = 120.0


def _nothing(path: Path) -> bool:
    return False


def pack(
    tar: tarfile.TarFile,
    path: Path,
    end: PurePosixPath,
    mode: int | None = None,
    hides: Callable[[Path], bool] = _nothing,
) -> None:
    """Puts a file, or all that is in a folder, into a tar at a place: root's, without times: equal files, equal bytes.

    Args:
        tar: Where to.
        path: What.
        end: The place.
        mode: Permissions of files; their own by default.
        hides: What is left out.
    """

    def told(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = "root"
        entry.mode = mode if mode is not None and entry.isfile() else entry.mode & 0o777 | 0o400
        return entry

    if not hides(path):
        tar.add(path, str(end).lstrip("/") or ".", recursive=False, filter=told)
    if path.is_dir() and not path.is_symlink():
        for below in sorted(path.iterdir()):
            pack(tar, below, end / below.name, mode, hides)


def pack_content(tar: tarfile.TarFile, content: bytes, end: PurePosixPath, mode: int) -> None:
    """Puts a file with a content into a tar at a place."""
    entry = tarfile.TarInfo(str(end).lstrip("/"))
    entry.size, entry.mode = len(content), mode
    entry.uname = entry.gname = "root"
    tar.addfile(entry, io.BytesIO(content))


def put(box: Sandbox, folders: Sequence[Path], target: str, env: Mapping[str, str]) -> None:
    """Puts what is in folders of the task's into a folder of a box, later ones over earlier ones.

    Raises:
        TaskError: The box did not take them.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in folders:
            pack(tar, folder, PurePosixPath(target))
    unpack(box, archive.getvalue(), target, env)


def unpack(box: Sandbox, archive: bytes, target: str, env: Mapping[str, str]) -> None:
    """Unpacks a tar at the root of a box; `target` names it in the `TaskError` that is raised where the box did not take it."""
    done = box.exec(["/bin/sh", "-c", "tar -C / -xf -"], env=env, timeout=UPLOAD_SECONDS, input=archive)
    if done.exit_code:
        said = done.output.decode(errors="replace").strip().splitlines()
        raise TaskError(f"{target}: files could not be put there: {said[-1][:200] if said else 'no message'}")


def carry(source: Sandbox, target: Sandbox, path: str, exclude: Sequence[str], env: Mapping[str, str]) -> None:
    """Carries a file or a folder from one box to another, to the same place; nothing where there is none.

    Only plain files and folders below the path arrive, and links that stay below it. Nothing of another kind, no other owner, no
    set-user-id bit.

    Raises:
        TaskError: It is too large, or could not be put there.
    """
    script = '[ -e "$1" ] || [ -L "$1" ] || exit 3; tar -C / -cf - -- "${1#/}"'
    done = source.exec(["/bin/sh", "-c", script, "sh", path], env=env, timeout=UPLOAD_SECONDS, max_output=MOST)
    if done.output_capped:
        raise TaskError(f"{path}: is larger than {MOST // 2**20} MiB, which an artifact may not be")
    if done.exit_code == 0 and (clean := _cleaned(done.output, path, exclude)):
        unpack(target, clean, path, env)


def _cleaned(archive: bytes, path: str, exclude: Sequence[str]) -> bytes:
    """The archive anew, of what may be in it; empty where that is nothing."""
    top, kept = PurePosixPath(path.strip("/")), io.BytesIO()
    count = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=kept, mode="w") as new:
            for entry in old:
                name = PurePosixPath(entry.name)
                if entry.name.startswith("/") or ".." in name.parts or not name.is_relative_to(top):
                    continue
                if any(
                    fnmatchcase(str(name.relative_to(top)), each) or fnmatchcase(name.name, each) for each in exclude
                ):
                    continue
                if not (entry.isfile() or entry.isdir() or (entry.issym() and _stays(name, entry.linkname, top))):
                    continue
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = "root"
                entry.mode = entry.mode & 0o777 | 0o400
                new.addfile(entry, old.extractfile(entry) if entry.isfile() else None)
                count += 1
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return b""  # no archive: its own student spoilt what makes them
    return kept.getvalue() if count else b""


def _stays(name: PurePosixPath, link: str, top: PurePosixPath) -> bool:
    """Whether a link leads to somewhere below the top."""
    if link.startswith("/"):
        return False
    parts: list[str] = []
    for part in (name.parent / link).parts:
        if part == "..":
            if not parts:
                return False
            parts.pop()
        elif part != ".":
            parts.append(part)
    return PurePosixPath(*parts).is_relative_to(top) if parts else False
