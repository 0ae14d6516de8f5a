"""`task.toml`, the settings of a task folder in Harbor's format, schema 1.0 to 1.4.

The names of keys are the format's. A key that is not known is kept and told (`Table.unknown`); a deprecated spelling is read as
what took its place.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from leap.errors import PrerequisiteError

SCHEMAS = ("1.0", "1.1", "1.2", "1.3", "1.4")
"""Versions of the schema that are read."""
TESTS, VERIFIER, AGENT, ARTIFACTS, SOLUTION = "/tests", "/logs/verifier", "/logs/agent", "/logs/artifacts", "/solution"
"""Where a task's parts lie in its box."""

_SIZES = {"K": 1 / 1024, "M": 1, "G": 1024}
_PUBLISHED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")
_DEVICES = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[1-9¹²³])(\..*)?", re.IGNORECASE)


class TaskError(PrerequisiteError):
    """A task folder cannot be used. The message is one line that names the file and the key."""


class Table(BaseModel):
    """A table of a task.toml."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    def unknown(self, where: str = "") -> Iterator[str]:
        """The dotted names of keys that are not known, in this table and those below it."""
        yield from (f"{where}{key}" for key in self.model_extra or {})
        for key in type(self).model_fields:
            value = getattr(self, key)
            below = enumerate(value) if isinstance(value, tuple) else [("", value)]
            for number, table in below:
                if isinstance(table, Table):
                    yield from table.unknown(f"{where}{key}{f'.{number}' if isinstance(value, tuple) else ''}.")


class Access(Table):
    """What a table says of the network."""

    network_mode: Literal["public", "no-network", "allowlist"] | None = None
    allowed_hosts: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _hosts_of_a_list(self) -> Access:
        if self.allowed_hosts and self.network_mode != "allowlist":
            raise ValueError("allowed_hosts needs network_mode = 'allowlist'")
        return self


class AgentTable(Access):
    """`[agent]`: time limit in seconds, and the user who works."""

    timeout_sec: float | None = Field(default=None, gt=0)
    user: str | int | None = None


class Healthcheck(Table):
    """When a box is ready: times in seconds."""

    command: str
    interval_sec: float = 5.0
    timeout_sec: float = 30.0
    start_period_sec: float = 0.0
    start_interval_sec: float = 5.0
    retries: int = 3


class McpServer(Table):
    """A tool server; read, for it is part of the format, and not offered to students."""

    name: str


class Machine(Access):
    """`[environment]`, and `[verifier.environment]`: the box, sizes in MiB."""

    build_timeout_sec: float = 600.0
    docker_image: str | None = None
    os: Annotated[Literal["linux", "windows"], BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v)] = (
        "linux"
    )
    cpus: float | None = Field(default=None, gt=0)
    memory_mb: int | None = Field(default=None, gt=0)
    storage_mb: int | None = Field(default=None, gt=0)
    gpus: int | None = None
    gpu_types: tuple[str, ...] | None = None
    tpu: dict[str, Any] | None = None
    mcp_servers: tuple[McpServer, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    skills_dir: str | None = None
    healthcheck: Healthcheck | None = None
    workdir: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _deprecated(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for old, new in (("memory", "memory_mb"), ("storage", "storage_mb")):
            if old in values:
                size = _in_mib(old, values.pop(old))
                if values.setdefault(new, size) != size:
                    raise ValueError(f"{old} ({size} MiB) and {new} ({values[new]}) say different things; keep {new}")
        internet = values.pop("allow_internet", None)
        if isinstance(internet, bool) and not {"network_mode", "allowed_hosts"} & values.keys():
            values["network_mode"] = "public" if internet else "no-network"
        return values

    @property
    def asks_for_network(self) -> bool:
        """Whether the task says that it needs one; the format's default, a network where nothing is said, does not count."""
        return self.network_mode in ("public", "allowlist")


def _in_mib(key: str, size: object) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG])\s*", size.upper()) if isinstance(size, str) else None
    if found is None:
        raise ValueError(f"{key} is a size such as '512M' or '2G', not {size!r}")
    return int(float(found[1]) * _SIZES[found[2]])


class Collect(Table):
    """A command that runs once the agent has ended, before artifacts are taken."""

    command: str
    service: str = "main"
    timeout_sec: float = 60.0
    user: str | int | None = None


class VerifierTable(Access):
    """`[verifier]`: how the tests are run."""

    timeout_sec: float = Field(default=600.0, gt=0)
    env: dict[str, str] = Field(default_factory=dict)
    user: str | int | None = None
    environment_mode: Literal["shared", "separate"] | None = None
    environment: Machine | None = None
    collect: tuple[Collect, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> VerifierTable:
        if self.environment_mode == "shared" and self.environment is not None:
            raise ValueError("environment_mode = 'shared' and an environment of the verifier's own exclude each other")
        return self

    @property
    def mode(self) -> Literal["shared", "separate"] | None:
        """Where the tests run, as far as this table says."""
        return self.environment_mode or ("separate" if self.environment is not None else None)


class Artifact(Table):
    """What is carried from the agent's box: a file or a folder, without what the patterns exclude."""

    source: str = Field(min_length=1)
    destination: str | None = None
    exclude: tuple[str, ...] = ()
    service: str | None = None

    @field_validator("source", "destination")
    @classmethod
    def _stays(cls, value: str | None) -> str | None:
        if value is not None and ".." in PurePosixPath(value).parts:
            raise ValueError("a path without '..' is needed")
        return value


def _as_artifact(value: object) -> object:
    return {"source": value} if isinstance(value, str) else value


Artifacts = tuple[Annotated[Artifact, BeforeValidator(_as_artifact)], ...]


class StepTable(Table):
    """One of `[[steps]]`: a part of the task with an instruction and tests of its own, in the same box."""

    name: str
    agent: AgentTable = AgentTable()
    verifier: VerifierTable = VerifierTable()
    min_reward: float | dict[str, float] | None = None
    healthcheck: Healthcheck | None = None
    artifacts: Artifacts = ()

    @field_validator("name")
    @classmethod
    def _is_a_folder(cls, name: str) -> str:
        bad = not name.strip() or name in (".", "..") or name.endswith((".", " ")) or len(name.encode()) > 255
        if bad or re.search(r'[<>:"/\\|?*\x00-\x1f\x7f]', name) or _DEVICES.fullmatch(name):
            raise ValueError("a name is needed that a folder can have on every system")
        return name


class PackageTable(Table):
    """`[task]`: what the task is called where it is published."""

    name: str
    version: str | None = None
    description: str = ""
    authors: tuple[dict[str, Any], ...] = ()
    keywords: tuple[str, ...] = ()


class SolutionTable(Table):
    """`[solution]`: variables that the reference solution is given."""

    env: dict[str, str] = Field(default_factory=dict)


class TaskTable(Table):
    """A whole task.toml."""

    schema_version: str = SCHEMAS[-1]
    task: PackageTable | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    verifier: VerifierTable = VerifierTable()
    agent: AgentTable = AgentTable()
    environment: Machine = Machine()
    solution: SolutionTable = SolutionTable()
    source: str | None = None
    multi_step_reward_strategy: Literal["mean", "final"] = "mean"
    steps: tuple[StepTable, ...] = ()
    artifacts: Artifacts = ()

    @model_validator(mode="before")
    @classmethod
    def _deprecated(cls, values: object) -> object:
        if isinstance(values, dict) and "version" in values:
            values = dict(values)
            values.setdefault("schema_version", values.pop("version"))
        return values

    @field_validator("schema_version")
    @classmethod
    def _of_one(cls, version: str) -> str:
        if not re.fullmatch(r"1\.\d+", version):
            raise ValueError(f"schema {SCHEMAS[0]} to {SCHEMAS[-1]} is read")
        return version

    @field_validator("steps")
    @classmethod
    def _told_apart(cls, steps: tuple[StepTable, ...]) -> tuple[StepTable, ...]:
        names = Counter(unicodedata.normalize("NFC", step.name).casefold() for step in steps)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"two steps are called {twice[0]!r}")
        return steps

    def notes(self) -> list[str]:
        """What a reader should know: keys that are not known, a version that is newer than this reader."""
        notes = [f"unknown key {key}" for key in self.unknown()]
        if self.task is not None and not _PUBLISHED.fullmatch(self.task.name):
            notes.append(f"task.name {self.task.name!r} is not of the form organisation/name")
        if self.schema_version not in SCHEMAS:
            notes.append(f"schema_version {self.schema_version} is read as {SCHEMAS[-1]}")
        return notes


def read_settings(text: str, where: str) -> TaskTable:
    """The settings that a task.toml states; `where` names the file.

    Raises:
        TaskError: It is no TOML, or a key has a value that it cannot have.
    """
    try:
        values: Mapping[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{where}: not TOML: {error}") from None
    try:
        return TaskTable.model_validate(values)
    except ValidationError as error:
        first, more = error.errors()[0], len(error.errors()) - 1
        key = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-")) or "the whole"
        said = " ".join(first["msg"].removeprefix("Value error, ").replace("valid tuple", "list").split())
        raise TaskError(f"{where}: {key}: {said}{f' (and {more} more)' if more else ''}") from None
