"""InterCode's environments without a sandbox: boxes that answer every command with its own text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlite_databases import SqliteDatabases

from leap.envs.base import Environment, load_environment
from leap_worlds.intercode.base import Boxes
from leap_worlds.intercode.data import IntercodeData
from leap_worlds.intercode.sql.env import SqlConfig, SqlEnvironment
from leap_worlds.sandbox import ExecResult
from leap_worlds.sandbox.base import SandboxError


class EchoBox:
    """Shows the command that it was given, and runs nothing."""

    def exec(self, argv: Sequence[str], **_: Any) -> ExecResult:
        return ExecResult(output=f"{argv[-1]}\n".encode())

    def start(self, argv: Sequence[str], **_: Any) -> Any:
        raise SandboxError("this box runs nothing")

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def stand_in_boxes() -> Boxes:
    """Boxes that run nothing."""
    return Boxes(lambda _: EchoBox(), "stand-in")  # type: ignore[arg-type, return-value]


def make_intercode(name: str, data: Path) -> Environment:
    """One of `bash`, `sql`, `python`, on upstream's tasks, or `generated`, on leap's own."""
    if name == "sql":
        return SqlEnvironment(SqlConfig(path=data), sqlite_databases(data))
    environment: Any = load_environment(f"intercode-{name}", {"path": str(data)} if name != "generated" else {})
    environment.boxes = stand_in_boxes()
    return environment


def sqlite_databases(data: Path) -> SqliteDatabases:
    """The databases of upstream's data in SQLite."""
    return SqliteDatabases(IntercodeData(data).file("data/sql/spider/ic_spider_dbs.sql"))
