"""The base of every record, and content keys: the one way that leap tells whether two pieces of work are the same work."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError

JsonObject = dict[str, Any]
"""What the `json` module makes of an object: values by name, of whatever types JSON has."""


class Record(BaseModel):
    """A frozen, strictly shaped piece of data: unknown fields are errors, so a damaged file cannot pass for a good one.

    Its JSON holds every text that a model or a world can say. Half a character (a lone surrogate) has no UTF-8, so pydantic
    neither writes nor reads it; the standard library does. Numbers are finite: JSON has no others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """The record as JSON that UTF-8 can hold: half a character is an escape."""
        try:
            return super().model_dump_json(indent=indent, **options)
        except PydanticSerializationError as error:
            separators = (",", ":") if indent is None else None
            try:
                return json.dumps(self.model_dump(**options), indent=indent, separators=separators)
            except (TypeError, ValueError, RecursionError):  # it is no half of a character
                raise error from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """The record that JSON holds, as `model_dump_json` or `line` wrote it."""
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            if error.errors(include_url=False)[0]["type"] != "json_invalid":
                raise
            try:
                values = json.loads(json_data)
            except (ValueError, RecursionError):
                raise error from None
            return cls.model_validate(values, **options)

    def line(self) -> bytes:
        """The record as a line of a file that reads back equal."""
        text = self.model_dump_json()
        # Both halves of a character side by side would come back as one, and of half a one in a key pydantic makes U+FFFD.
        if ("\\ud" in text or "\ufffd" in text) and type(self).model_validate_json(text) != self:
            text = json.dumps(self.model_dump(), ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "surrogatepass") + b"\n"


def content_key(*parts: object) -> str:
    """Names a piece of work by its content.

    Args:
        *parts: JSON-able values; order matters, the order of keys inside a mapping does not.

    Returns:
        The first 16 hex digits (64 bits) of the SHA-256 of the parts' canonical JSON.
    """
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def seed_of(*parts: object) -> int:
    """Returns the seed, of 31 bits, of a piece of work that parts name as for `content_key`: the recipe's seed among them."""
    return int(content_key(*parts), 16) % 2**31
