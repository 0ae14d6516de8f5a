"""The base of every record, and content keys: the one way that leap tells whether two pieces of work are the same work."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen, strictly shaped piece of data: unknown fields are errors, so a damaged file cannot pass for a good one."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def content_key(*parts: Any) -> str:
    """Names a piece of work by its content.

    Args:
        *parts: JSON-able values; order matters, the order of keys inside a mapping does not.

    Returns:
        The first 16 hex digits (64 bits) of the SHA-256 of the parts' canonical JSON.
    """
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
