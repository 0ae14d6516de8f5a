"""Reads the big JSON files a piece at a time: the product list has 5 GB and is never in memory as objects.

msgspec finds the pieces in the memory-mapped file, without making anything of them. It is stricter than the parser that
the original uses (Python's own), which lets `NaN` and lone surrogates pass; where it refuses a file, that parser has
the last word, in a slower walk.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from leap.core.message import sendable
from leap.errors import PrerequisiteError

T = TypeVar("T")

_CHUNK = 1 << 22
_LONGEST = 1 << 26
"""No element of these files is longer than 64 MB, in characters; what seems so has lost its end."""


class JsonArray(Generic[T]):
    """The elements of a JSON array in a file, each read when it is asked for, as a given type.

    Args:
        path: The file.
        element: What an element is; keys it does not name are passed over.
        key: For messages: the key whose value names an element (a product's `asin`).

    Raises:
        PrerequisiteError: The file is missing, cut off, not JSON, not an array, or (on reading) an element is of
            another shape; the message names the element.
    """

    def __init__(self, path: Path, element: type[T], *, key: str) -> None:
        self.path = path
        self._element = element
        self._key = key
        self._slices = _slices(path, list[msgspec.Raw])

    def __iter__(self) -> Iterator[T]:
        for number, value in enumerate(_walk(self.path) if self._slices is None else self._slices):
            yield _read(value, self._element, f"{self.path}, element {number}", self._key)

    def __len__(self) -> int:
        """Elements, for progress; 0 where only the slow walk will tell."""
        return len(self._slices) if self._slices is not None else 0


class JsonObject(Mapping[str, T]):
    """A JSON object in a file, each value read when it is asked for, as a given type; otherwise as `JsonArray`."""

    def __init__(self, path: Path, value: type[T]) -> None:
        self._path, self._value = path, value
        self._values: Mapping[str, object] = _slices(path, dict[str, msgspec.Raw]) or {}
        if not self._values:
            try:
                loaded = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, RecursionError) as error:
                raise _broken(path, error) from error
            if not isinstance(loaded, dict):
                raise PrerequisiteError(f"{path} holds no JSON object; is it the right file?")
            self._values = {sendable(name): item for name, item in loaded.items()}

    def __getitem__(self, name: str) -> T:
        return _read(self._values[name], self._value, f"{self._path}, entry {name!r}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _slices(path: Path, shape: type[T]) -> T | None:
    """Returns the file's top level with its values unread; None where msgspec finds no JSON in it.

    The slices hold the mapping open; it goes with the last of them.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise PrerequisiteError(f"{path} is empty; was its download cut off?")
            return msgspec.json.decode(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), type=shape)
    except FileNotFoundError as error:
        raise PrerequisiteError(f"{path} is missing. `leap data webshop` says which files go where.") from error
    except OSError as error:
        raise PrerequisiteError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise PrerequisiteError(f"{path}: {error}; is it the right file?") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _read(value: object, shape: type[T], where: str, key: str = "") -> T:
    """Returns a value of a file, a slice of it or what Python's parser made of it, as a given type."""
    if isinstance(value, msgspec.Raw):
        try:
            return msgspec.json.decode(value, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # of another shape, or JSON that Python's parser lets pass
        try:
            value = json.loads(bytes(value))
        except (ValueError, RecursionError) as error:
            raise PrerequisiteError(f"{where} is not valid JSON: {error}") from error
    try:
        return msgspec.convert(sendable(value), type=shape)
    except msgspec.ValidationError as error:
        name = f" ({key} {value[key]!r})" if isinstance(value, dict) and key in value else ""
        raise PrerequisiteError(f"{where}{name}: {error}") from error


def _walk(path: Path) -> Iterator[object]:
    """Elements of a JSON array by Python's own parser, a chunk of the file at a time."""
    decode, sign = json.JSONDecoder().raw_decode, "["
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_CHUNK).lstrip()
            if not text.startswith("["):
                raise PrerequisiteError(f"{path} is not a JSON array; is it the right file?")
            while True:  # the text begins with the sign before an element, or the array's end
                rest = text[1:].lstrip()
                if text[0] == "]" or (sign == "[" and rest.startswith("]")):
                    if (rest.removeprefix("]" if text[0] == "[" else "") + file.read(_CHUNK)).strip():
                        raise PrerequisiteError(f"{path} has something behind its end; is it the right file?")
                    return
                try:
                    if text[0] != sign:
                        raise json.JSONDecodeError("a comma or the end of the array is missing", text[:40], 0)
                    value, end = decode(rest)
                    if not (following := rest[end:].lstrip()):  # a number may go on in the next chunk
                        raise json.JSONDecodeError("cut off", text[:40], 0)
                except json.JSONDecodeError as error:
                    more = file.read(max(_CHUNK, len(text))) if len(text) < _LONGEST else ""
                    if not more:
                        raise _broken(path, error) from error
                    text += more
                    continue
                text, sign = following, ","
                yield value
    except (UnicodeDecodeError, RecursionError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> PrerequisiteError:
    return PrerequisiteError(f"{path} is cut off or damaged ({error}). Fetch it again.")
