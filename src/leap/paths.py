"""Where leap keeps what can be made again, and where its documents are."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$LEAP_CACHE`, else `$XDG_CACHE_HOME/leap`, else `~/.cache/leap`. Not made here."""
    if own := os.environ.get("LEAP_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "leap"


def documents() -> Path:
    """The folder of leap's documents: `docs` within an installed package, or in the checkout that leap runs from."""
    packaged = Path(__file__).parent / "docs"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "docs"
