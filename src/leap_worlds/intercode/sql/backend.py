"""What every database behind InterCode SQL can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one statement.

    Attributes:
        rows: Its result; None where it has none.
        error: What the server said against it; empty where it ran.
    """

    rows: Rows | None = None
    error: str = ""

    def text(self, most: int | None = None) -> str:
        """Upstream's observation: the list of rows as Python writes it, "None" where there is no result, or the error.

        Args:
            most: Rows to show; a longer result ends in a word about the rest.
        """
        if self.error:
            return f"Error executing query: {self.error}"
        if self.rows is None or most is None or len(self.rows) <= most:
            return str(self.rows)
        return f"{self.rows[:most]} ... ({len(self.rows)} rows in all, {most} shown)"


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """Limits of one statement.

    Attributes:
        seconds: Time.
        rows: Rows of a result; one with more is an error.
    """

    seconds: float = 10.0
    rows: int = 200_000


class Connection(Protocol):
    """One connection to a database: a student's or a gold run's."""

    def run(self, statement: str) -> Answer:
        """Runs a statement. Raises nothing on account of the statement."""
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """A server with Spider's databases.

    Attributes:
        description: What it is, for the record.
    """

    description: str

    def prepare(self) -> None:
        """Loads the databases, where that is not done yet."""
        ...

    def connect(self, database: str, limits: SqlLimits) -> Connection:
        """A connection that cannot change anything."""
        ...

    def close(self) -> None:
        """Stops the server, if this object started one."""
        ...
