"""The options of how a student acts, as they stand in a recipe under `policy`."""

from __future__ import annotations

from pydantic import Field

from leap.config import Section


class PolicyConfig(Section):
    """How the student decides on an action."""

    kind: str = Field(default="plain", description="plain: it acts as it answers. Or a registered policy around its own.")
