"""What a sandbox is: the one small interface every provider has, its records, and the registry.

A provider of your own (gVisor, E2B, Modal, a virtual machine) implements `SandboxProvider` and `Sandbox` in your
package and is named in its entry points; nothing here needs an edit:

    [project.entry-points."leap.sandboxes"]
    gvisor = "my_package.gvisor:GvisorProvider"

Use:

    provider = sandbox_provider("namespace")
    with provider.create(image, limits=Limits()) as box:
        result = box.exec(["/bin/bash", "-c", "ls /"], cwd="/", timeout=10)

Calls block, and are safe from many threads at once (one command at a time in one sandbox, any number of sandboxes);
from asyncio use `asyncio.to_thread(box.exec, ...)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from leap import registry
from leap.envs.base import Finding
from leap.errors import LeapError, PrerequisiteError
from leap_worlds.sandbox.image import Image, Recipe, Report

DEFAULT_ENV: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
}
HOSTNAME = "1ea9c0de5a1d"
"""Twelve hexadecimal digits as Docker gives, but the same in every box: a command that prints it scores the same twice."""
ROOT = ("", "root", "0", "root:root", "0:0")
"""What root is called."""
DEFAULT_TIMEOUT = 10.0
DEFAULT_MAX_OUTPUT = 4 * 2**20


def environment(image: Image) -> dict[str, str]:
    """The environment of a command that is given none of its own."""
    return {**DEFAULT_ENV, "HOSTNAME": HOSTNAME, **image.env}


def environment_of(user: str, env: Mapping[str, str]) -> dict[str, str]:
    """An environment as a user's: without root's home, for whoever is not root has a home of its own."""
    return {name: value for name, value in env.items() if not (user and (name, value) == ("HOME", DEFAULT_ENV["HOME"]))}


class SandboxError(LeapError):
    """The sandbox itself failed (not the command in it): it could not be made, or it is gone."""


class SandboxGone(SandboxError):
    """A sandbox that worked has been ended, with its files and processes, by what was done in it: whoever runs a model's
    commands ends that episode and goes on with the others. `reset` makes it anew."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one sandbox."""

    memory: int = 512 * 2**20  # bytes of each process, and of all together where control groups can be used
    processes: int = 128  # processes and threads at once
    disk: int = 64 * 2**20  # bytes the episode may write (its overlay's upper layer)
    inodes: int = 20_000  # files, folders and links the episode may make
    open_files: int = 1024  # of one process
    cpus: float = 1.0  # share of all processes together, where control groups can be used


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    """The result of one command.

    Attributes:
        output: Standard output and standard error in the order they were written, raw.
        exit_code: The exit status; 128 + n after signal n; 126 with an `exec_error`; 137 when killed at a limit.
        timed_out: The time limit came first. Everything the episode had running was killed.
        output_capped: `max_output` came first; `output` holds the first `max_output` bytes. All was killed as above.
        exec_error: Why no command ran: the folder `cwd` cannot be entered, the program cannot be executed, or there is no
            such user.
    """

    output: bytes = b""
    exit_code: int = 0
    timed_out: bool = False
    output_capped: bool = False
    exec_error: Literal["cwd", "not_found", "user"] | None = None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Whether a provider works here."""

    ok: bool
    detail: str  # one line: what it offers here, or why it does not work and the exact remedy
    warnings: tuple[str, ...] = ()  # what is weaker here than it could be, one line each, with the remedy


class Channel(ABC):
    """A program that stays in the sandbox and is talked to over its standard input and output (standard error goes
    nowhere). It ends with `kill`, with the sandbox, and when any command of the sandbox hits a limit."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Sends bytes to the program; raises `SandboxError` where it is gone."""

    @abstractmethod
    def read_line(self, *, timeout: float, max_bytes: int = DEFAULT_MAX_OUTPUT) -> bytes | None:
        """The next line, without its newline. None when the time is up, the line is too long or the program is gone."""

    @abstractmethod
    def kill(self) -> None:
        """Ends the program, and whatever else the episode has running. Harmless when it is gone already."""


class Sandbox(ABC):
    """One isolated machine for one episode."""

    @abstractmethod
    def exec(
        self,
        argv: Sequence[str],
        *,
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_output: int = DEFAULT_MAX_OUTPUT,
        input: bytes = b"",
        user: str = "",
    ) -> ExecResult:
        """Runs a program and waits for it. Whatever it does, this returns: soon after the program ends (two seconds
        later where a child of it holds its output open, as `docker exec`), or when a limit is reached.

        Args:
            argv: Program and arguments; no shell in between.
            cwd: Absolute folder to run in.
            env: The whole environment; None for `DEFAULT_ENV`, the image's and HOSTNAME.
            timeout: Seconds until everything is killed.
            max_output: Bytes of output until everything is killed.
            input: Standard input; empty means at its end from the start.
            user: Who runs it: a name or a number of the image's, either with `:group`; empty for root. HOME is the user's own
                where `env` has none but root's.

        Raises:
            SandboxError: The sandbox is closed.
            SandboxGone: It has died.
        """

    @abstractmethod
    def start(self, argv: Sequence[str], *, cwd: str = "/", env: Mapping[str, str] | None = None) -> Channel:
        """Starts a program that stays (see `Channel`); raises `SandboxError` where it cannot be started."""

    def snapshot(self, *, quiet: bool = False) -> Image:
        """An image of the files as they are now, to make others of; `SandboxProvider.drop` it once those are closed. What runs,
        and what is in memory, is not in it.

        Args:
            quiet: Not where something runs in the sandbox, which the others would lack.

        Raises:
            SandboxError: It could not be made, or something runs; the sandbox is as it was.
        """
        raise SandboxError("this sandbox makes no snapshots")

    @abstractmethod
    def reset(self) -> None:
        """Back to the image: all processes gone, all changes dropped."""

    @abstractmethod
    def close(self) -> None:
        """Ends everything in the sandbox and frees what it holds. Twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SandboxProvider(ABC):
    """A way to make sandboxes. One object serves many sandboxes, from many threads."""

    name: str
    engine: ClassVar[bool] = False
    """Whether it is a container engine: it builds Dockerfiles as they are."""

    snapshots: ClassVar[bool] = False
    """Whether its sandboxes make snapshots."""

    def drop(self, image: Image) -> None:  # noqa: B027 - those without snapshots have none to drop
        """Frees a snapshot that nothing stands on any more."""

    def users_missing(self) -> str:
        """Why commands can be run as root alone, with the remedy; empty where they can be any user's."""
        return ""

    @abstractmethod
    def probe(self) -> Probe:
        """Whether it works here, by trying. Never raises for a machine that cannot."""

    @abstractmethod
    def create(self, image: Image, limits: Limits | None = None) -> Sandbox:
        """A fresh sandbox that has proved from inside that it is inside.

        Raises:
            SandboxError: It could not be made or the proof failed; nothing is left behind.
        """

    @abstractmethod
    def build(self, recipe: Recipe, *, report: Report | None = None) -> Image:
        """An image for this provider's `create`, from its cache where it was built before.

        Args:
            recipe: What it is made of.
            report: Called with a line before what takes long.

        Raises:
            PrerequisiteError: Something that building needs is missing.
            SandboxError: A step failed.
        """

    def close(self) -> None:  # noqa: B027 - most providers hold nothing
        """Frees what the provider itself holds, its sandboxes included."""

    @classmethod
    def doctor(cls) -> list[Finding]:
        """What it offers on this machine, or what bars it and the remedy, for `leap doctor`."""
        try:
            provider = cls()
        except LeapError as error:
            return [Finding(False, str(error))]
        probe = provider.probe()
        provider.close()
        return [Finding(probe.ok, probe.detail), *(Finding(probe.ok, f"note: {warning}") for warning in probe.warnings)]


AUTO = ("namespace", "docker")


def open_provider(name: str = "auto") -> SandboxProvider:
    """The provider of that name, once its probe has passed; with `auto` the first of `AUTO` that works here.

    Raises:
        PrerequisiteError: None works; the message has each one's remedy.
    """
    problems = []
    for candidate in AUTO if name == "auto" else (name,):
        provider = sandbox_provider(candidate)
        probe = provider.probe()
        if probe.ok:
            return provider
        provider.close()
        problems.append(f"{candidate}: {probe.detail}")
    raise PrerequisiteError("No sandbox works here. " + ". ".join(problems))


def sandbox_provider(name: str, **options: object) -> SandboxProvider:
    """The provider of that name, made with its options; raises `RecipeError` where there is none."""
    return registry.sandbox.get(name)(**options)
