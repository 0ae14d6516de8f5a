"""Puts the documents into the wheel, so that `leap --help` can say where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DocumentsHook(BuildHookInterface):
    """Adds `docs/` as `leap/docs` to a wheel; an editable install reads them where they are."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Names what is added; called by hatchling before it builds."""
        if version != "editable":
            for page in sorted(Path(self.root, "docs").glob("*.md")):
                build_data["force_include"][str(page)] = f"leap/docs/{page.name}"
