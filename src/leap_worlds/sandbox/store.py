"""Where image layers are kept: folders under leap's cache that only the sandboxes' user can enter."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from leap.paths import cache_dir
from leap_worlds.sandbox.base import SandboxError

ROOT_BECOMES = 61_001
"""The user that boxes run as when leap runs as root: in a range no distribution assigns (systemd's UIDS-GIDS table)."""

SNAPSHOT = "snapshot-"
"""How the names of layers begin that are kept for a while alone."""


class LayerStore:
    """The folders `layers/` (read-only once made), `boxes/` (of running boxes), `mnt` (a mount point) in `root`.

    Args:
        root: The store's folder; `sandbox` in leap's cache by default.

    Attributes:
        drop_to: User and group that boxes run as; None for leap's own.
        ids: Those of the host that a box's other users have, as its provider has found them; None where there are none.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or cache_dir() / "sandbox").absolute()
        self.drop_to = [ROOT_BECOMES, ROOT_BECOMES] if os.geteuid() == 0 else None
        self.canary = self.root / "canary"
        self.ids: dict[str, Any] | None = None

    def prepare(self) -> None:
        """Makes what is missing; raises `SandboxError` where the folder cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.root, self.root / "layers", self.root / "boxes", self.root / "mnt"):
                folder.mkdir(exist_ok=True)
                # Nobody else may enter: boxes leave files with the set-user-id bit in there.
                folder.chmod(0o700)
                if self.drop_to:
                    os.chown(folder, *self.drop_to)
            self.canary.touch()
        except OSError as error:
            raise SandboxError(f"the sandbox store {self.root} cannot be written: {error.strerror}") from error

    def layer(self, name: str) -> Path:
        """A layer's folder, there or not."""
        return self.root / self.place(name)

    def place(self, name: str) -> str:
        """A layer's folder in the store. A snapshot's goes, as a box's does, with those who use the store."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise SandboxError(f"not a layer's name: {name!r}")
        return f"{'boxes' if name.startswith(SNAPSHOT) else 'layers'}/{name}"
