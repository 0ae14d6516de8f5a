"""InterCode's data as upstream's repository lays it out, found on the machine and read with suspicion.

    <root>/data/nl2bash/nl2bash_fs_1.json ...      (or without `data/`)
    <root>/data/sql/spider/ic_spider_dev.json, ic_spider_dbs.sql
    <root>/data/python/mbpp/ic_mbpp.json
    <root>/docker/bash_scripts/setup_nl2b_fs_1.sh ...

The root is the option `path`, else `$INTERCODE_DATA`, else where `leap data intercode` puts it in the cache.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from leap.core.record import Record
from leap.errors import PrerequisiteError, describe_validation_error
from leap.paths import cache_dir, expanded

FILE_SYSTEMS = (1, 2, 3, 4)
CHECKSUMS = {
    "data/nl2bash/nl2bash_fs_1.json": "60f88e1aacc7ebba535093f9890c5c33203f4e5f32958e0e94fbe90ec4f01c82",
    "data/nl2bash/nl2bash_fs_2.json": "8f4ce24e535fab782fda607e37db2ae1d6c5f99993c638d1ac0a7e0b542f633e",
    "data/nl2bash/nl2bash_fs_3.json": "a2d4ec8bc7ad69a4e2fb3eb84033994cf65ee9cfb355e3e63099df67a339b2e1",
    "data/nl2bash/nl2bash_fs_4.json": "ce41b89450f87765a02a51df259ca0c1762e8249185c022adb089147e2c16200",
    "data/sql/spider/ic_spider_dbs.sql": "61f6e8000cb5bb696f123fa55e111acdcd8da7eca64f452a36fd1a6e5fb1781a",
    "data/sql/spider/ic_spider_dev.json": "68c9ecb0692c80770f46c724cc073ea76be4f301a294caa532c050546948128e",
    "data/python/mbpp/ic_mbpp.json": "4995ef1997ae7ee78c13b57bdba5c68c7989bbd31738837cc5f60c455ec0bcc7",
    "docker/bash_scripts/setup_nl2b_fs_1.sh": "02b9a2206d809a9fca03b755e61b94618248a400fd3132ac61d32b6f3009dd3f",
    "docker/bash_scripts/setup_nl2b_fs_2.sh": "05c3109c4e9999e661d66c6d74137f0238b88017ec9cf884abdda0499e94ff1d",
    "docker/bash_scripts/setup_nl2b_fs_3.sh": "5e8d9f832f272c31dfb73567e75d33efb970d4e4bf9a8e691582d4fa09422d09",
    "docker/bash_scripts/setup_nl2b_fs_4.sh": "c5fb550aa1578fe2454e8ab06221165df90311231cb71d3d9b0ce036a8235274",
}
"""SHA-256 of every file of upstream's that is used, by its path in upstream's repository."""


class BashRecord(Record):
    """One NL2Bash task: what is asked, and the command that answers it."""

    query: str = Field(min_length=1)
    gold: str = Field(min_length=1)


class SqlRecord(Record):
    """One Spider task: a question about a database, and the statement that answers it."""

    db: str = Field(min_length=1)
    query: str = Field(min_length=1)
    gold: str = Field(min_length=1)
    hardness: str  # easy, medium, hard or extra
    db_tables: dict[str, list[str]] = Field(default_factory=dict)  # columns by table

    @property
    def kind(self) -> str:
        """The group that results are reported by."""
        return self.hardness


class PythonRecord(Record):
    """One MBPP task: a function asked for, a program that defines it, and assertions about it."""

    query: str = Field(min_length=1)
    gold: str = Field(min_length=1)
    tests: list[str] = Field(min_length=1)
    task_id: int
    test_setup_code: str = ""  # what the tests need beforehand

    @property
    def kind(self) -> str:
        """The group that results are reported by."""
        return "mbpp"


def default_root() -> Path:
    """Where `leap data intercode` puts the data."""
    return cache_dir() / "intercode" / "data"


class IntercodeData:
    """One folder of upstream's data. Reads only.

    Args:
        root: A checkout of upstream's repository, its `data` folder, or a folder made by `leap data intercode`.

    Raises:
        PrerequisiteError: There is no such folder; the message says how to get it.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        given = root if root is not None else os.environ.get("INTERCODE_DATA")
        self.root = expanded(given) if given else default_root()
        if not self.root.is_dir():
            hint = "" if given else " ($INTERCODE_DATA is not set, so the default place was tried)"
            raise PrerequisiteError(
                f"no InterCode data: {self.root} is not a folder{hint}. Run `leap data intercode`, or give the path of a "
                "checkout of princeton-nlp/intercode as the environment's option `path`."
            )

    def file(self, name: str) -> Path:
        """A file by its path in upstream's repository; its `data/` may be missing. Raises `PrerequisiteError` where it
        is not there."""
        for candidate in (self.root / name, self.root / name.removeprefix("data/"), self.root.parent / name):
            if candidate.is_file():
                return candidate
        raise PrerequisiteError(f"{self.root / name} is missing; run `leap data intercode`, or point `path` elsewhere.")

    def bash(self, file_system: int) -> list[BashRecord]:
        """The tasks of one of the four file systems, in upstream's order."""
        return _records(self.file(f"data/nl2bash/nl2bash_fs_{file_system}.json"), BashRecord)

    def sql(self) -> list[SqlRecord]:
        """The tasks of Spider's dev set, in upstream's order."""
        return _records(self.file("data/sql/spider/ic_spider_dev.json"), SqlRecord)

    def python(self) -> list[PythonRecord]:
        """The tasks of MBPP, in upstream's order."""
        return _records(self.file("data/python/mbpp/ic_mbpp.json"), PythonRecord)

    def setup_script(self, file_system: int | str) -> Path:
        """The script that makes one of the four file systems."""
        return self.file(f"docker/bash_scripts/setup_nl2b_fs_{file_system}.sh")


T = TypeVar("T", bound=Record)


def _records(path: Path, kind: type[T]) -> list[T]:
    """A JSON list of records. Raises `PrerequisiteError` where the file is no such list; the message names the first
    row that is wrong."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PrerequisiteError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise PrerequisiteError(f"{path} is not a list of tasks.")
    found = []
    for number, row in enumerate(rows):
        # Upstream joins a list of commands with semicolons before it runs them.
        if isinstance(row, dict) and isinstance(row.get("gold"), list):
            row = row | {"gold": ";".join(map(str, row["gold"]))}
        try:
            found.append(kind.model_validate(row))
        except ValidationError as error:
            raise PrerequisiteError(describe_validation_error(error, f"{path}, row {number},")) from error
    return found
