"""The base of every record."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen, strictly shaped piece of data: unknown fields are errors, so a damaged file cannot pass for a good one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
