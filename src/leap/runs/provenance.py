"""What a number needs to be told with: versions, commit and machine of each start of a run."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from leap import __version__

PACKAGES = ["torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "textworld", "alfworld", "numpy"]


def provenance() -> dict[str, object]:
    """Returns versions, commit, machine and time of this start, for `provenance.jsonl`."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "leap": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := version_of(name))},
    }


def starts(file: Path) -> list[dict[str, object]]:
    """Returns what `provenance.jsonl` says of each start; a line torn by a kill is passed over."""
    found = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [entry for entry in found if isinstance(entry, dict)]


def version_of(package: str) -> str:
    """The installed version of a package; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def this_leap() -> str:
    """Version of this leap, with its commit in a checkout: two checkouts may have the same version."""
    return f"{__version__} {_commit()}".strip()


def _commit() -> str:
    """Commit of leap's own checkout, with `+` when it has uncommitted changes; empty for an installed package."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=5)
        dirty = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if commit.returncode else commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
