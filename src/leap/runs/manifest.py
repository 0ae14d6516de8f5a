"""What a run's finished files were when they were written (`files.json`), so that damage is told from work.

Each stage notes length and SHA-256 of its files when it has finished them. Before a command uses a run, all that is noted is
compared; of files of more than a gibibyte only the length, and their content when they are loaded. A run without `files.json`,
of an earlier version, is taken as it is and noted as it goes on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leap.core import content_key
from leap.errors import RunError
from leap.files import digest, flush, read_json, write_json, write_text
from leap.models.ledger import fingerprint

LARGE = 1 << 30
"""Bytes beyond which a file's content is compared only when it is loaded."""
_CALLS = "calls.sqlite"
_Noted = dict[str, dict[str, list[str]]]
"""By a file's path or a folder's, for each file in it (itself: "") its length and hash, with a + behind them while it grows; of
a file that was replaced, those of before, too."""


class Manifest:
    """The notes of one run directory. One process writes them, any may read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "files.json"

    def record(self, *paths: Path) -> None:
        """Notes what files, or folders with all that is in them, hold now. What is not there is passed over."""
        known, found = self._read(), _Noted()
        for path in paths:
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            if states := {_inside(path, file): [_state(file)] for file in inside if file.is_file()}:
                found[self._name(path)] = states
        if changed := {name: states for name, states in found.items() if known.get(name) != states}:
            for file in (self.root / name / inner for name, states in changed.items() for inner in states):
                # Else a power cut could leave a file that is not what its note says. A ledger itself is SQLite's matter: to close
                # it here would drop the locks that SQLite holds on it.
                flush(file.with_name(f"{_CALLS}-wal") if file.name == _CALLS else file)
            self._write(known | changed)

    def adopt(self, path: Path) -> None:
        """Notes a file or folder that nothing is noted of: of a run that an earlier version made, or whose stage was killed."""
        if self._name(path) not in self._read():
            self.record(path)

    @contextmanager
    def growing(self, *journals: Path) -> Iterator[None]:
        """While it lasts, lines may be added to journals. They are noted when it ends well; else they are known up to where they
        were."""
        known = self._read()
        noted = {name: known[name][""][-1] for name in map(self._name, journals) if name in known}
        if noted:
            self._write(known | {name: {"": [f"{state.removesuffix(' +')} +"]} for name, state in noted.items()})
        yield
        self.record(*journals)

    def write(self, path: Path, text: str) -> None:
        """Writes a whole file, unless it is there with that text, and notes it; a kill in between leaves either text known."""
        known, name, new = self._read(), self._name(path), _told(text.encode())
        former = known.get(name, {}).get("", [_state(path)] if path.exists() else [])[-1:]
        if former != [new] or name not in known:
            self._write(known | {name: {"": [*former, new] if former != [new] else [new]}})
        if former != [new] or not path.exists():
            write_text(path, text)

    def expects(self, path: Path, text: str) -> bool:
        """Whether a file's text is the one that is noted, if any is."""
        return self._read().get(self._name(path), {}).get("", [_told(text.encode())])[-1] == _told(text.encode())

    def damage(self, *paths: Path, whole: bool = False) -> Iterator[tuple[Path, str]]:
        """Yields the files and folders that are not what was noted, each with a sentence that names the file.

        Args:
            paths: Some of those that are noted, or folders of such; by default all.
            whole: Compare the content of large files, too.
        """
        wanted = [self._name(path) for path in paths]
        for name, files in self._read().items():
            if paths and not any(f"{name}/".startswith(f"{one}/") for one in wanted):
                continue
            for inner, states in files.items():
                file = self.root / name / inner
                if unlike := _unlike(file, states, whole):
                    yield self.root / name, f"{file} {unlike}"
                    break

    def check(self, *paths: Path, whole: bool = False) -> list[Path]:
        """Refuses damaged files, for those who only read; arguments as in `damage`. Folders of weights may be gone.

        Returns:
            Those that are.

        Raises:
            RunError: A file is not what was noted.
        """
        for wait in (0.2, 0.2, 0.0):  # a run under way may have written more than its notes say at this moment
            found = list(self.damage(*paths, whole=whole))
            damaged = [(path, told) for path, told in found if path.suffix or path.exists()]
            if not damaged:
                return [path for path, _ in found]
            time.sleep(wait)
        raise refusal(damaged)

    def forget_missing(self) -> None:
        """Forgets what is gone. Where a run has just been finished, nothing needed it."""
        known = self._read()
        if len(left := {name: states for name, states in known.items() if (self.root / name).exists()}) < len(known):
            self._write(left)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _read(self) -> _Noted:
        if not self.path.exists():
            return {}
        noted = read_json(self.path)
        files = noted.get("files") if isinstance(noted, dict) else None
        if not isinstance(files, dict) or noted.get("key") != content_key(files):
            raise RunError(f"{self.path} is damaged. Delete it to have the other files taken as they are.")
        return files

    def _write(self, files: _Noted) -> None:
        write_json(self.path, {"key": content_key(files), "files": dict(sorted(files.items()))})


def refusal(damaged: list[tuple[Path, str]]) -> RunError:
    """An error that says what is wrong with the first file, and of which others the same holds."""
    others = ", ".join(str(path) for path, _ in damaged[1:])
    return RunError(damaged[0][1] + (f" The same holds for {others}." if others else ""))


def _inside(folder: Path, file: Path) -> str:
    return "" if file == folder else file.relative_to(folder).as_posix()


def _told(content: bytes) -> str:
    return f"{len(content)} {hashlib.sha256(content).hexdigest()}"


def _state(file: Path) -> str:
    """Length and hash; of a ledger, of its calls, since SQLite writes the same differently."""
    if file.name == _CALLS:
        return fingerprint(file)
    size = file.stat().st_size
    return f"{size} {digest(file, size)}"


def _unlike(file: Path, states: list[str], whole: bool) -> str:
    """What is wrong with a file that is like none of some states, and what to do; empty where nothing is."""
    where = file if file.parent.name not in ("checkpoint", "base") else file.parent
    delete = f"delete {where} and " if where.exists() else ""
    advice = f"put it back from a copy, or {delete}give `leap run` again to have it made again."
    if file.name == _CALLS:
        advice = "put it back from a copy; or delete it and files.json beside it, and what is asked again is paid again."
    elif file.name == "recipe.yaml":
        advice = f"put it back from a copy, or {delete}give `leap run` the recipe that the run was started with."
    if not file.is_file():
        return f"is missing: {advice}"
    try:
        if any(_is(file, state, whole) for state in states):
            return ""
    except OSError as error:
        return f"cannot be read: {error.strerror}."
    except RunError as error:  # the ledger's own words
        return f"is damaged ({str(error).removeprefix(str(file)).strip(' .')}): {advice}"
    return f"is damaged, it is not what was written there: {advice}"


def _is(file: Path, state: str, whole: bool) -> bool:
    length, content, *grows = state.split()
    if file.name == _CALLS:
        return fingerprint(file, int(length)) == state
    size = int(length)
    with file.open("rb") as opened:
        opened.seek(size)
        more = opened.readline()
    torn = file.suffix == ".jsonl" and not more.endswith(b"\n")  # by a kill; nobody reads it
    fits = file.stat().st_size >= size and (not more or torn or bool(grows))
    return fits and ((size > LARGE and not whole) or content == digest(file, size))
