"""Connections to MySQL or MariaDB servers that cannot change anything."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from leap.errors import LeapError, PrerequisiteError

if TYPE_CHECKING:
    from pymysql.connections import Connection as Wire

Rows = list[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one statement."""

    rows: Rows | None = None  # None where it has none
    error: str = ""  # what the server said against it

    def text(self, most: int | None = None) -> str:
        """Upstream's observation: the list of rows as Python writes it, "None" where there is no result, or the error.
        A result of more rows than the most that are shown ends in a word about the rest."""
        if self.error:
            return f"Error executing query: {self.error}"
        if self.rows is None or most is None or len(self.rows) <= most:
            return str(self.rows)
        return f"{self.rows[:most]} ... ({len(self.rows)} rows in all, {most} shown)"


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """Limits of one statement."""

    seconds: float = 10.0
    rows: int = 200_000  # a result with more is an error


# MariaDB's words for what MySQL, which upstream's prompts and transcripts show, says otherwise.
_CLAUSES = {
    "SELECT": "field list",
    "WHERE": "where clause",
    "ON": "on clause",
    "ORDER BY": "order clause",
    "GROUP BY": "group statement",
    "HAVING": "having clause",
    "FROM": "from clause",
}
_CLAUSE = re.compile(rf" in '({'|'.join(_CLAUSES)})'$")
_WIDTH = re.compile(r"^((?:tiny|small|medium|big)?int)\(\d+\)")
_TYPE_COLUMN = re.compile(r"^\s*(?:desc|describe|explain|show\s+(?:full\s+)?(?:columns|fields))\b", re.IGNORECASE)
_NOT_REACHABLE = "cannot reach the database server at {where}: {error}"


def driver() -> ModuleType:
    """Returns the PyMySQL module; raises `PrerequisiteError` where it is not installed."""
    try:
        import pymysql
    except ImportError as error:
        raise PrerequisiteError(f"SQL tasks need PyMySQL ({error}); pip install 'leap-agents[intercode]'.") from error
    return pymysql


class MySqlConnection:
    """One connection. Every statement runs in a transaction that only reads, and is stopped at the time limit; both are
    set anew before each, for a statement may change either.

    Args:
        options: PyMySQL's, how to reach the server and as whom.
        database: Which of Spider's.
        limits: What a statement may take.

    Raises:
        LeapError: The server cannot be reached, or has no such database.
    """

    def __init__(self, options: dict[str, object], database: str, limits: SqlLimits) -> None:
        self._options = options
        self._database = database
        self._limits = limits
        self._maria = False
        self._wire: Wire = self._open()

    def run(self, statement: str) -> Answer:
        """Runs a statement; what the server says against it is the answer, and nothing is raised on its account."""
        pymysql = driver()
        try:
            self._guard()
            # `SSCursor` fetches row by row, so that a result without end is noticed before it fills the memory.
            with self._wire.cursor(pymysql.cursors.SSCursor) as cursor:
                cursor.execute(statement)
                if cursor.description is None:
                    return Answer()
                rows = list(cursor.fetchmany(self._limits.rows + 1))
                if len(rows) > self._limits.rows:
                    self._reopen()
                    return Answer(error=f"Result consisted of more than {self._limits.rows} rows")
            return Answer(rows=self._like_mysql(statement, rows))
        except pymysql.err.OperationalError as error:
            if error.args and error.args[0] in (2006, 2013):  # gone away, lost: the statement outran the limit
                self._reopen()
            return Answer(error=self._message(error))
        except pymysql.err.MySQLError as error:
            return Answer(error=self._message(error))
        except (UnicodeError, ValueError, TypeError, RuntimeError, OSError) as error:
            # A statement in no known encoding, or a reply that the driver stumbles over.
            self._reopen()
            return Answer(error=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Ends the connection."""
        with contextlib.suppress(Exception):  # it may be gone already
            self._wire.close()

    def _open(self) -> Wire:
        pymysql = driver()
        seconds = self._limits.seconds
        try:
            wire = pymysql.connect(
                **self._options, database=self._database, charset="utf8mb4", read_timeout=seconds + 5, autocommit=True
            )
            self._maria = "mariadb" in str(wire.get_server_info()).lower()
        except (pymysql.err.MySQLError, OSError) as error:
            where = self._options.get("unix_socket") or f"{self._options.get('host')}:{self._options.get('port')}"
            raise LeapError(_NOT_REACHABLE.format(where=where, error=error)) from error
        return wire

    def _guard(self) -> None:
        seconds = self._limits.seconds
        limit = f"max_statement_time = {seconds}" if self._maria else f"max_execution_time = {int(seconds * 1000)}"
        with self._wire.cursor() as cursor:
            cursor.execute(f"SET SESSION {limit}")
            cursor.execute("START TRANSACTION READ ONLY")

    def _reopen(self) -> None:
        """A new connection; what the old one still runs is ended."""
        old = self._wire.thread_id()
        # The cursor of an unread result waits for all of it when closed; dropping the socket does not.
        with contextlib.suppress(Exception):
            self._wire._force_close()  # type: ignore[attr-defined]
        self._wire = self._open()
        with contextlib.suppress(Exception), self._wire.cursor() as cursor:  # it may have ended by itself
            cursor.execute(f"KILL CONNECTION {int(old)}")

    def _message(self, error: Exception) -> str:
        message = str(error.args[1]) if len(error.args) > 1 else str(error)
        if not self._maria:
            return message
        message = _CLAUSE.sub(lambda found: f" in '{_CLAUSES[found.group(1)]}'", message)
        return message.replace("your MariaDB server version", "your MySQL server version")

    def _like_mysql(self, statement: str, rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
        """Integer types without a display width, which MySQL 8 does not show."""
        if not self._maria or not _TYPE_COLUMN.match(statement):
            return rows
        return [tuple(_WIDTH.sub(r"\1", v) if isinstance(v, str) else v for v in row) for row in rows]


class MySqlServer:
    """A server of the user's, by its address `mysql://user:password@host:port/`. The user should have no more than
    SELECT and SHOW VIEW; what else it has, a transaction that only reads keeps it from using.

    Raises:
        PrerequisiteError: The address cannot be read, PyMySQL is missing, or the server is not MySQL or MariaDB.
    """

    def __init__(self, address: str) -> None:
        driver()
        parts = urlsplit(address)
        try:
            port = parts.port or 3306
        except ValueError as error:
            raise PrerequisiteError(f"{address!r} is no address of a database server: {error}") from error
        if parts.scheme != "mysql" or not parts.hostname:
            raise PrerequisiteError("a database server's address is mysql://user:password@host:port/")
        self._options: dict[str, object] = {"host": parts.hostname, "port": port, "user": unquote(parts.username or "")}
        if parts.password:
            self._options["password"] = unquote(parts.password)
        self.description = f"server at {parts.hostname}:{port}"

    def prepare(self) -> None:
        """The server has the databases, or a connection says that it has not."""

    def connect(self, database: str, limits: SqlLimits) -> MySqlConnection:
        """A connection that cannot change anything."""
        return MySqlConnection(self._options, database, limits)

    def close(self) -> None:
        """Does nothing: the server is the user's and goes on."""
