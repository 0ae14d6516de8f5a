"""Spider's databases in SQLite, a stand-in for a server: it reads another SQL, so that other statements fail, and orders and
compares otherwise."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leap.errors import PrerequisiteError
from leap.paths import cache_dir
from leap_worlds.intercode.sql.mysql import Answer, SqlLimits

_CREATE = re.compile(r"^CREATE TABLE `([^`]+)` \((.*)\)[^)]*$", re.DOTALL)
_COLUMN = re.compile(r"^\s*`([^`]+)`\s+(\w+)", re.MULTILINE)
_INSERT = re.compile(r"^INSERT INTO `([^`]+)`(?: \([^)]*\))? VALUES\s*(.*)$", re.DOTALL)
_DATABASE = re.compile(r"^USE `([^`]+)`")
_SHOW = re.compile(r"^\s*show\s+tables\s*;?\s*$", re.IGNORECASE)
_DESC = re.compile(r"^\s*(?:desc|describe)\s+[`\"']?(\w+)[`\"']?\s*;?\s*$", re.IGNORECASE)
_USE = re.compile(r"^\s*use\s+`?(\w+)`?\s*;?\s*$", re.IGNORECASE)
_NUMBERS = {"int": "INTEGER", "bigint": "INTEGER", "smallint": "INTEGER", "tinyint": "INTEGER", "mediumint": "INTEGER",
            "double": "REAL", "float": "REAL", "decimal": "REAL"}  # fmt: skip
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "Z": "\x1a"}


class SqliteDatabases:
    """Spider's databases, converted from the dump once.

    Args:
        dump: Spider's databases as MySQL's SQL.
    """

    description = f"SQLite {sqlite3.sqlite_version}, not comparable"

    def __init__(self, dump: Path) -> None:
        self._dump = dump

    def prepare(self) -> None:
        """Converts the dump, if that was not done yet."""
        folder = self._folder
        if folder.is_dir():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            target = Path(made) / "made"
            target.mkdir()
            convert(self._dump.read_text(encoding="utf-8"), target)
            with contextlib.suppress(OSError):  # another process was faster
                target.rename(folder)

    def connect(self, database: str, limits: SqlLimits) -> SqliteConnection:
        """A connection that cannot change anything."""
        self.prepare()
        return SqliteConnection(self._folder, database, limits)

    def close(self) -> None:
        """Nothing runs."""

    @property
    def _folder(self) -> Path:
        made_of = hashlib.sha256(self._dump.read_bytes() + b"1").hexdigest()[:16]
        return cache_dir() / "intercode" / "sqlite" / made_of


class SqliteConnection:
    """One connection to one database's file, opened to be read only."""

    def __init__(self, folder: Path, database: str, limits: SqlLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._wire = self._open(database)

    def run(self, statement: str) -> Answer:
        """Runs a statement; SHOW TABLES, DESC and USE are understood as MySQL does."""
        deadline = time.monotonic() + self._limits.seconds
        self._wire.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        try:
            if used := _USE.match(statement):
                if not (self._folder / f"{used.group(1).lower()}.sqlite").is_file():
                    return Answer(error=f"Unknown database '{used.group(1)}'")
                self._wire.close()
                self._wire = self._open(used.group(1))
                return Answer()
            if _SHOW.match(statement):
                statement = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            elif described := _DESC.match(statement):
                statement = (
                    "SELECT name, lower(type), iif(\"notnull\", 'NO', 'YES'), iif(pk, 'PRI', ''), dflt_value, '' "
                    f"FROM pragma_table_info('{described.group(1)}')"
                )
            cursor = self._wire.execute(statement)
            if cursor.description is None:
                return Answer()
            rows = cursor.fetchmany(self._limits.rows + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError, UnicodeError, OverflowError) as error:
            return Answer(error=str(error))
        if len(rows) > self._limits.rows:
            return Answer(error=f"Result consisted of more than {self._limits.rows} rows")
        return Answer(rows=[tuple(row) for row in rows])

    def close(self) -> None:
        """Ends the connection."""
        self._wire.close()

    def _open(self, database: str) -> sqlite3.Connection:
        file = self._folder / f"{database.lower()}.sqlite"
        if not file.is_file():
            raise PrerequisiteError(f"there is no database {database!r} in the dump.")
        wire = sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        wire.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # no other file
        return wire


def convert(dump: str, folder: Path) -> None:
    """Writes one SQLite file per database of a MySQL dump: tables, columns and rows, without keys.

    Raises:
        PrerequisiteError: A statement cannot be read.
    """
    wire: sqlite3.Connection | None = None
    for statement in statements(dump):
        if found := _DATABASE.match(statement):
            wire = _next(wire, folder / f"{found.group(1).lower()}.sqlite")
        elif (found := _CREATE.match(statement)) and wire is not None:
            columns = _COLUMN.findall(found.group(2))
            listed = ", ".join(f'"{n}" {_NUMBERS.get(kind.lower(), "TEXT COLLATE NOCASE")}' for n, kind in columns)
            wire.execute(f'CREATE TABLE "{found.group(1)}" ({listed})')
        elif (found := _INSERT.match(statement)) and wire is not None:
            for row in rows(found.group(2)):
                marks = ", ".join("?" * len(row))
                wire.execute(f'INSERT INTO "{found.group(1)}" VALUES ({marks})', row)
    if wire is None:
        raise PrerequisiteError("the dump names no database; is it Spider's ic_spider_dbs.sql?")
    _next(wire, None)


def _next(wire: sqlite3.Connection | None, file: Path | None) -> sqlite3.Connection | None:
    if wire is not None:
        wire.commit()
        wire.close()
    return sqlite3.connect(file) if file is not None else None


def statements(dump: str) -> Iterator[str]:
    """A dump's statements without comments; a semicolon within a quoted text ends none."""
    start, quote = 0, ""
    for found in re.finditer(r"\\.|['\"`;]|^--[^\n]*|/\*.*?\*/", dump, re.MULTILINE | re.DOTALL):
        sign = found.group()
        if quote:
            quote = "" if sign == quote else quote
        elif sign in ("'", '"', "`"):
            quote = sign
        elif sign == ";":
            yield _plain(dump[start : found.start()])
            start = found.end()
    yield _plain(dump[start:])


def _plain(statement: str) -> str:
    return re.sub(r"\A(?:\s*(?:--.*?(?:\n|\Z)|/\*.*?\*/))*", "", statement, flags=re.DOTALL).strip()


def rows(values: str) -> Iterator[list[Any]]:
    """The rows of an INSERT's VALUES."""
    row: list[Any] = []
    for found in re.finditer(r"'((?:[^'\\]|\\.|'')*)'|(\()|(\))|(NULL)|([-+.\dEe]+)", values, re.DOTALL):
        text, opens, closes, null, number = found.groups()
        if opens:
            row = []
        elif closes:
            yield row
        elif null:
            row.append(None)
        elif number:
            row.append(float(number) if any(sign in number for sign in ".eE") else int(number))
        else:
            row.append(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m.group(1), m.group(1)), text.replace("''", "'"), flags=re.DOTALL))


__all__ = ["SqliteConnection", "SqliteDatabases", "convert", "rows", "statements"]
