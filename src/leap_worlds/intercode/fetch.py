"""`leap data intercode`: upstream's files, from its repository or from a folder, each checked against its checksum."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from leap.envs.base import Finding, Progress
from leap.errors import LeapError, PrerequisiteError
from leap_worlds.intercode.data import CHECKSUMS, IntercodeData, default_root

SOURCE = "https://raw.githubusercontent.com/princeton-nlp/intercode/master"
"""Where upstream's files come from. Their checksums, not this address, say that they are the right ones."""

_LARGEST = 16 * 2**20


def fetch(
    target: Path | None = None,
    *,
    source: str | Path = SOURCE,
    progress: Progress = lambda done, total, what: None,
) -> Path:
    """Puts upstream's files where the environments look for them. Files that are there and right are left alone.

    Args:
        target: Folder to fill; the cache if not given.
        source: An address to fetch from, or a folder: a checkout of upstream's repository.
        progress: Called with (done, total, what).

    Returns:
        The folder.

    Raises:
        PrerequisiteError: A file cannot be had, or is not the one expected.
    """
    target = target or default_root()
    for done, (name, checksum) in enumerate(CHECKSUMS.items()):
        progress(done, len(CHECKSUMS), name)
        file = target / name
        if file.is_file() and _sha256(file.read_bytes()) == checksum:
            continue
        content = _download(f"{source}/{name}") if str(source).startswith(("http://", "https://")) else _read(source, name)
        if _sha256(content) != checksum:
            raise PrerequisiteError(
                f"{source}/{name} is not the file expected: its SHA-256 is {_sha256(content)}, not {checksum}. Upstream may "
                "have changed it; give --from a checkout of an earlier state."
            )
        _write(file, content)
    progress(len(CHECKSUMS), len(CHECKSUMS), "")
    return target


def fetch_all(path: Path | None, source: str | None, progress: Progress | None) -> list[Finding]:
    """`leap data` for the environments of InterCode: fetches what is missing and counts what is there.

    Args:
        path: Folder to fill; the cache if None.
        source: Where to take the files from; upstream's repository if None.
        progress: Called with (done, total, what).

    Raises:
        PrerequisiteError: As `fetch` does.
    """
    folder = fetch(path, source=source or SOURCE, progress=progress or (lambda done, total, what: None))
    return [_counted(IntercodeData(folder))]


def data_here() -> list[Finding]:
    """What `leap doctor` says of upstream's data."""
    try:
        return [_counted(IntercodeData())]
    except LeapError as error:
        return [Finding(False, str(error))]


def _counted(data: IntercodeData) -> Finding:
    bash = sum(len(data.bash(number)) for number in (1, 2, 3, 4))
    return Finding(True, f"{data.root}: Bash {bash}, SQL {len(data.sql())}, Python {len(data.python())} tasks")


def _download(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content = answer.read(_LARGEST + 1)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise PrerequisiteError(
            f"{address} cannot be fetched: {error}. Without a network, copy a checkout of princeton-nlp/intercode here and "
            "give its folder: leap data intercode --from FOLDER."
        ) from error
    if len(content) > _LARGEST:
        raise PrerequisiteError(f"{address} is far larger than expected; nothing was kept.")
    return content


def _read(source: str | Path, name: str) -> bytes:
    return IntercodeData(source).file(name).read_bytes()


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    Path(temporary).replace(file)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
