"""`leap data intercode`: upstream's files, from its repository or from a folder, each checked against its checksum."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path

from leap.envs.base import Finding, Progress
from leap.errors import PrerequisiteError
from leap_worlds.intercode.data import CHECKSUMS, FILE_SYSTEMS, IntercodeData, default_root

SOURCE = "https://raw.githubusercontent.com/princeton-nlp/intercode/master"
"""Where upstream's files come from. Their checksums, not this address, say that they are the right ones."""

_LARGEST = 16 * 2**20


def fetch(target: Path | None = None, *, source: str | Path = SOURCE, progress: Progress | None = None) -> Path:
    """Puts upstream's files where the environments look for them. Files that are there and right are left alone.

    Args:
        target: Folder to fill; the cache if not given.
        source: An address to fetch from, or a folder: a checkout of upstream's repository.
        progress: Told how far it is.

    Returns:
        The folder.

    Raises:
        PrerequisiteError: A file cannot be had, or is not the one expected.
    """
    target = target or default_root()
    for done, (name, checksum) in enumerate(CHECKSUMS.items()):
        if progress is not None:
            progress(done, len(CHECKSUMS), name)
        file = target / name
        if file.is_file() and _sha256(file.read_bytes()) == checksum:
            continue
        if str(source).startswith(("http://", "https://")):
            content = _download(f"{source}/{name}")
        else:
            content = IntercodeData(source).file(name).read_bytes()
        if _sha256(content) != checksum:
            raise PrerequisiteError(
                f"{source}/{name} is not the file expected: its SHA-256 is {_sha256(content)}, not {checksum}. Upstream may "
                "have changed it; give --from a checkout of an earlier state."
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        temporary.write_bytes(content)
        temporary.replace(file)
    if progress is not None:
        progress(len(CHECKSUMS), len(CHECKSUMS), "")
    return target


def counted(data: IntercodeData) -> Finding:
    """How many tasks there are."""
    bash = sum(len(data.bash(number)) for number in FILE_SYSTEMS)
    return Finding(True, f"{data.root}: Bash {bash}, SQL {len(data.sql())}, Python {len(data.python())} tasks")


def _download(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content = answer.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        raise PrerequisiteError(
            f"{address} cannot be fetched: {error}. Without a network, copy a checkout of princeton-nlp/intercode here and "
            "give its folder: leap data intercode --from FOLDER."
        ) from error
    if len(content) > _LARGEST:
        raise PrerequisiteError(f"{address} is far larger than expected; nothing was kept.")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
