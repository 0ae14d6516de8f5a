"""Where leap keeps what can be made again, and where its documents are."""

from __future__ import annotations

import os
from pathlib import Path

from leap.errors import PrerequisiteError


def cache_dir() -> Path:
    """`$LEAP_CACHE`, else `$XDG_CACHE_HOME/leap`, else `~/.cache/leap`. Not made here."""
    if own := os.environ.get("LEAP_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else expanded("~/.cache")) / "leap"


def expanded(path: str | Path) -> Path:
    """A path without `~`.

    Raises:
        PrerequisiteError: There is no home directory, as for an unknown user in a container.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise PrerequisiteError(
            f"there is no home directory for {path}: set HOME, or LEAP_CACHE to a folder that leap may keep files in."
        ) from error


def documents() -> Path:
    """The folder of leap's documents: `docs` within an installed package, or in the checkout that leap runs from."""
    packaged = Path(__file__).parent / "docs"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "docs"
