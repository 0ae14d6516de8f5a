"""What a Dockerfile's `pip install` asks for, fetched on this machine as wheels: nothing of them is run here."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from leap.core import content_key
from leap.errors import PrerequisiteError
from leap.paths import cache_dir
from leap_worlds.tasks.files import pack

PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
"""Debian's own Python, by release."""
PLACE = "/opt/leap-wheels"
"""Where wheels lie while an image is made."""
SETTINGS = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={PLACE} PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore"
_SECONDS = 600
_INSTALL = re.compile(r"\b(?:pip3?|python3? -m pip) install\b([^;&|\n]*)")
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[\w,.-]+\])?(?:[=<>!~]=?[\w.*+,!=<>~-]+)?")
_ALONE = {
    "-q",
    "--quiet",
    "-U",
    "--upgrade",
    "--no-cache-dir",
    "--user",
    "--break-system-packages",
    "--disable-pip-version-check",
}


def asked_for(script: str) -> tuple[str, ...] | None:
    """The requirements of a script's `pip install`; None where it asks for something else than packages by their names."""
    found: list[str] = []
    for said in _INSTALL.findall(script):
        words = [word.strip("'\"") for word in said.split()]
        named = [word for word in words if word not in _ALONE]
        if not named or not all(_NAMED.fullmatch(word) for word in named):
            return None
        found += named
    return tuple(dict.fromkeys(found)) or None


def fetched(requirements: Sequence[str], suite: str) -> bytes:
    """A tar of wheels for the Python of a Debian, from the index that pip is set up for here; kept, so that it is fetched once.

    Raises:
        PrerequisiteError: They cannot be had.
    """
    kept = cache_dir() / "tasks" / "wheels" / content_key(sorted(requirements), suite)
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--only-binary=:all:",
                "--python-version",
                PYTHON[suite],
            ]
            try:
                done = subprocess.run(
                    [*command, "-d", f"{folder}/made", "--", *requirements],
                    capture_output=True,
                    text=True,
                    timeout=_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise PrerequisiteError(f"pip download {' '.join(requirements)}: took over {_SECONDS} s") from None
            if done.returncode:
                said = (
                    [line for line in done.stderr.splitlines() if "ERROR" in line]
                    or done.stderr.splitlines()
                    or ["no message"]
                )
                raise PrerequisiteError(f"pip download {' '.join(requirements)}: {said[-1][:300]}")
            if not kept.is_dir():  # else another process was faster
                shutil.move(f"{folder}/made", kept)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        pack(tar, Path(kept), PurePosixPath(PLACE))
    return archive.getvalue()
