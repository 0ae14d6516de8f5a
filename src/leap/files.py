"""Files that survive a kill: append-only journals keyed by content, whole files and directories written atomically.

A process killed at any moment leaves at most one torn last line in a journal, which the next writer cuts off, and
temporary files, which are never read and which the next that writes there, or locks the run, sweeps.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from glob import escape
from io import FileIO
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from leap.errors import LeapError, RunError

R = TypeVar("R", bound=BaseModel)


class Journal(Generic[R]):
    """An append-only JSONL file of records, each with a content key.

    Opening one changes nothing on disk, so a run under way or a folder that cannot be written can be read. Only keys and places
    are kept in memory: a million episodes are too many for it.

    Args:
        path: The file; made on the first append.
        record: The records' type.
    """

    def __init__(self, path: Path, record: type[R]) -> None:
        self.path = path
        self._record = record
        self._places: dict[str, int] = {_key(one): place for place, one in read_records(path, record)}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[R]:
        return (one for _, one in read_records(self.path, self._record))

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def get(self, key: str) -> R | None:
        """The record of that key, if on file."""
        return read_at(self.path, self._record, self._places[key]) if key in self._places else None

    def append(self, record: R) -> None:
        """Adds a record, at once and as one write; a record of a known key is not written again.

        Raises:
            LeapError: The disk is full or the file cannot be written, or nobody could read this record back. What was on
                file stays good.
        """
        if (key := _key(record)) in self:
            return
        line: bytes = record.line()  # type: ignore[attr-defined]
        try:
            self._record.model_validate_json(line)
        except ValidationError as error:  # a NaN, say, in what was copied without a check
            at = ".".join(map(str, error.errors()[0]["loc"]))
            raise LeapError(f"{self.path}: a record is not written, it could not be read back: {at} is no value.") from error
        self._places[key] = append_line(self.path, line)

    def take_in(self, *others: Path) -> None:
        """Adds the records of other journals of the same kind."""
        for path in others:
            for _, record in read_records(path, self._record):
                self.append(record)


def read_records(
    path: Path, record: type[R], *, place: int = 0, seen: set[str] | None = None
) -> Iterator[tuple[int, R]]:
    """The records of a journal, one at a time and each once, with the place in the file where its line begins.

    A line that is still being written, or that a kill has torn, is left out; nothing is repaired.

    Args:
        path: The journal.
        record: The records' type.
        place: Where a line begins, to read from there.
        seen: Keys of the records that were read before; those of this time are added.

    Raises:
        RunError: A line is damaged.
    """
    if not path.exists():
        return
    seen = set() if seen is None else seen
    with path.open("rb") as file:
        file.seek(place)
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                one = record.model_validate_json(line)
            except ValidationError as error:
                with path.open("rb") as before:
                    number = 1 + before.read(place).count(b"\n")
                raise RunError(
                    f"{path} line {number} is damaged ({error.error_count()} problems, the first: "
                    f"{error.errors()[0]['msg']}). Delete that line to have this piece of work done again."
                ) from error
            if _key(one) not in seen:
                seen.add(_key(one))
                yield place, one
            place += len(line)


def read_at(path: Path, record: type[R], place: int) -> R:
    """The record whose line begins at that place of a journal."""
    with path.open("rb") as file:
        file.seek(place)
        return record.model_validate_json(file.readline())


def _key(record: BaseModel) -> str:
    return record.key  # type: ignore[attr-defined]


def append_line(path: Path, line: bytes) -> int:
    """Adds a line to a file, as one write, behind the last whole line: half a one, which a kill has left, is cut off. Returns
    where it begins."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            size = _cut_torn_line(file)
            if file.write(line) != len(line):
                file.truncate(size)
                raise OSError(errno.ENOSPC, "No space left on device")
            return size


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
def explained(path: Path) -> Iterator[None]:
    """Says what is wrong where a file or folder cannot be written, by whatever library."""
    try:
        yield
    except LeapError:
        raise
    except Exception as error:
        number = _number(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"the disk is full: cannot write {path}. Everything finished is safe; free some space and give the same "
                "command again to go on."
            ) from error
        if number is None and not isinstance(error, OSError):
            raise
        raise LeapError(f"cannot write {path}: {os.strerror(number) if number else error}") from error


_IN_WORDS = re.compile(r"\(os error (\d+)\)")
_TORCH_WRITES = re.compile(r"PytorchStreamWriter|unexpected pos \d")


def _number(error: Exception) -> int | None:
    """The system's number of an error while writing. Libraries in Rust (safetensors, tokenizers) say it in words, torch says
    that a write failed and not why, which is as good as always the disk."""
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, RuntimeError) and _TORCH_WRITES.search(str(error)):
        return errno.ENOSPC
    found = _IN_WORDS.search(str(error))
    number = int(found[1]) if found else None
    return number if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) else None


def write_text(path: Path, text: str) -> None:
    """Writes a whole file atomically: it is there complete, or not at all."""

    def made(name: Path) -> int:
        return os.open(name, os.O_WRONLY | os.O_CREAT, 0o666)

    with explained(path), _temporary(path, made) as (temporary, file):
        with open(file, "w", encoding="utf-8", closefd=False) as writer:
            writer.write(text)
        os.fsync(file)
        temporary.replace(path)
        flush(path.parent)


def write_json(path: Path, value: object) -> None:
    """Writes JSON for people and programs, atomically."""
    write_text(path, as_json(value))


def as_json(value: object) -> str:
    """The text of a JSON file for people and programs."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


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
    """A directory filled under a temporary name and put in place when the `with` block ends well. Of two at the same directory
    the later takes the place."""
    with explained(path), temporary_directory(path) as temporary:
        yield temporary
        _readable(temporary)
        _flush_all(temporary)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
        flush(path.parent)


@contextmanager
def temporary_directory(path: Path) -> Iterator[Path]:
    """A directory beside a path, under a name of its own, which goes with the `with` block unless it was moved."""

    def made(name: Path) -> int:
        name.mkdir()
        return os.open(name, os.O_RDONLY)

    with _temporary(path, made) as (temporary, _):
        yield temporary


@contextmanager
def _temporary(path: Path, make: Callable[[Path], int]) -> Iterator[tuple[Path, int]]:
    """Makes a file or folder beside a path, under a name of this attempt's own, so that two at the same path do not disturb each
    other. What is left of it in the end goes; so does at once what killed processes have left beside this path. Its maker holds
    a lock on it as long as it lives, by which others tell, whatever process has its number meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        _remove_abandoned(left)
    while True:
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
        file = make(temporary)
        with suppress(OSError):  # some file systems know no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():
            break
        os.close(file)  # before the lock was there, another took it for left over
    try:
        yield temporary, file
    finally:
        _remove(temporary)
        os.close(file)


def _remove_abandoned(temporary: Path) -> None:
    """Removes a temporary file or folder, unless its maker lives."""
    with suppress(OSError):  # gone meanwhile, held, or on a file system without locks
        file = os.open(temporary, os.O_RDONLY if temporary.is_dir() else os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(temporary)
        finally:
            os.close(file)


def _remove(temporary: Path) -> None:
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


def seal(folder: Path) -> None:
    """Marks a folder that others have written as complete. The mark is written last and names the content of each file."""
    _flush_all(folder)
    write_json(folder / SEAL, _digests(folder))


def sealed(folder: Path) -> bool:
    """Whether a folder is complete, and its files are still what they were."""
    try:
        return read_json(folder / SEAL) == _digests(folder)
    except RunError:
        return False


SEAL = "complete.json"


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL)
    return {str(path.relative_to(folder)): digest(path) for path in files}


def digest(file: Path, size: int | None = None) -> str:
    """SHA-256 of a file, or of so many bytes at its beginning. Read once as long as nobody writes it."""
    now = file.stat()
    return _digest(file, now.st_size if size is None else size, now.st_mtime_ns, now.st_ino)


@lru_cache(maxsize=1024)
def _digest(file: Path, size: int, changed: int, number: int) -> str:
    found = hashlib.sha256()
    with file.open("rb") as content:
        while size > 0 and (block := content.read(min(size, 1 << 20))):
            found.update(block)
            size -= len(block)
    return found.hexdigest()


def flush(path: Path) -> None:
    """Has a file or a folder, if there is one, on the disk: what is renamed afterwards is never empty when the power goes."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(file)
    except OSError:
        if not path.is_dir():  # some file systems know nothing of the kind for folders
            raise
    finally:
        os.close(file)


def _flush_all(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            flush(path)


def sweep(folder: Path) -> None:
    """Removes the temporary files and folders below a folder that killed processes have left. No other process may be making
    folders there."""
    for path in list(folder.rglob(".*.tmp")):
        if path.is_dir():
            _remove(path)
        else:
            _remove_abandoned(path)


def _readable(folder: Path) -> None:
    """Gives every file the rights that new files have here: some libraries write theirs for their owner alone."""
    rights = folder.stat().st_mode & 0o666  # a new folder has what the umask leaves
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | rights)
