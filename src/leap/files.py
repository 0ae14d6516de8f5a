"""Files that survive a kill: append-only journals keyed by content, whole files and directories written atomically.

A process killed at any moment leaves at most one torn last line in a journal, which the next writer cuts off, and
temporary files, which are never read.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from leap.errors import LeapError, RunError

R = TypeVar("R", bound=BaseModel)


class Journal(Generic[R]):
    """An append-only JSONL file of records, each with a content key.

    Opening one changes nothing on disk, so a run under way or a folder that cannot be written can be read.

    Args:
        path: The file; made on the first append.
        record: The records' type.
    """

    def __init__(self, path: Path, record: type[R]) -> None:
        self.path = path
        self._by_key: dict[str, R] = {_key(one): one for _, one in read_records(path, record)}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[R]:
        return iter(self._by_key.values())

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def get(self, key: str) -> R | None:
        """The record of that key, if on file."""
        return self._by_key.get(key)

    def append(self, record: R) -> None:
        """Adds a record, at once and as one write; a record of a known key is not written again.

        Raises:
            LeapError: The disk is full or the file cannot be written. What was on file stays good.
        """
        key = _key(record)
        if key in self._by_key:
            return
        line: bytes = record.line()  # type: ignore[attr-defined]
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:
                size = _cut_torn_line(file)
                written = file.write(line)
                if written != len(line):
                    file.truncate(size)
                    raise OSError(errno.ENOSPC, "No space left on device")
        self._by_key[key] = record


def read_records(path: Path, record: type[R]) -> Iterator[tuple[int, R]]:
    """The records of a journal, one at a time and each once, with the place in the file where its line begins.

    A line that is still being written, or that a kill has torn, is left out; nothing is repaired.

    Raises:
        RunError: A line is damaged.
    """
    if not path.exists():
        return
    place, seen = 0, set[str]()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                one = record.model_validate_json(line)
            except ValidationError as error:
                raise RunError(
                    f"{path} line {number} is damaged ({error.error_count()} problems, the first: "
                    f"{error.errors()[0]['msg']}). Delete that line to have this piece of work done again."
                ) from error
            if _key(one) not in seen:
                seen.add(_key(one))
                yield place, one
            place += len(line)


def _key(record: BaseModel) -> str:
    return record.key  # type: ignore[attr-defined]


def _cut_torn_line(file: FileIO) -> int:
    """Cuts off what a kill in the middle of a write has left behind the last whole line; returns the file's size then."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return 0
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    file.seek(0)
    whole = file.readall().rfind(b"\n") + 1
    file.truncate(whole)
    return whole


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunError(
                f"the disk is full: cannot write {path}. Everything finished is safe; free some space and give the same "
                "command again to go on."
            ) from error
        raise LeapError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Writes a whole file atomically: it is there complete, or not at all."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people and programs, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        RunError: The file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; run the earlier stage first.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged ({error}). Delete it and give the same command again.") from error


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A directory filled under a temporary name and put in place when the `with` block ends well. The name is this
    attempt's own, so that two at the same directory do not disturb each other: the later takes the place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    with _explained(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            _readable(temporary)
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _readable(folder: Path) -> None:
    """Gives every file the rights that new files have here: some libraries write theirs for their owner alone."""
    rights = folder.stat().st_mode & 0o666  # a new folder has what the umask leaves
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | rights)
