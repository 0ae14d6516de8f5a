"""Task folders: what lies where, which of it a student may see, and why a folder cannot be used."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from leap_worlds.tasks.format import (
    ARTIFACTS,
    TESTS,
    VERIFIER,
    Artifact,
    Healthcheck,
    Machine,
    StepTable,
    TaskError,
    TaskTable,
    VerifierTable,
    read_settings,
)
from leap_worlds.tasks.script import Command, unrolled

SETTINGS, INSTRUCTION = "task.toml", "instruction.md"
_CANARY = re.compile(r"\s*(<!--.*canary.*-->|#.*canary.*)\s*", re.IGNORECASE)
_DEFINITIONS = ("Dockerfile", "docker-compose.yaml")


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Where the tests of a phase run when that is a box of their own.

    Attributes:
        machine: Its settings.
        folder: Where its Dockerfile is.
        has_tests: Whether the image holds /tests already.
    """

    machine: Machine
    folder: Path
    has_tests: bool


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a task with an instruction and tests of its own: one of `[[steps]]`, or the whole of a task without any.

    Attributes:
        name: The step's; empty where the task has none.
        instruction: What the student is told.
        seconds: Time limit of the student's commands together; None for none.
        user: Who works: a name, a number, or None for the image's own.
        verifier: How the tests are run.
        verifier_user: Who runs them.
        tests: Folders that are put to /tests, later ones over earlier ones.
        test: The script's path below /tests.
        solution: The folder that is put to /solution for the reference solution; None where there is none.
        workdir: Files that are put into the working directory before the phase; its setup.sh is run.
        judge: The tests' own box; None where they run in the student's.
        artifacts: What is carried there.
        least: Rewards below which the task ends here, by name.
    """

    name: str
    instruction: str
    seconds: float | None
    user: str | int | None
    verifier: VerifierTable
    verifier_user: str | int | None
    tests: tuple[Path, ...]
    solution: Path | None
    workdir: Path | None = None
    healthcheck: Healthcheck | None = None
    judge: Judge | None = None
    artifacts: tuple[Artifact, ...] = ()
    least: Mapping[str, float] | None = None

    test = "test.sh"

    @cached_property
    def script(self) -> str | None:
        """The reference solution's script; None where there is none, or where it is no text."""
        try:
            return (self.solution / "solve.sh").read_text(encoding="utf-8") if self.solution else None
        except (OSError, UnicodeDecodeError):
            return None

    @cached_property
    def solution_files(self) -> tuple[Path, ...]:
        """The files of the reference solution, its script among them, in order."""
        return tuple(path for path in sorted(self.solution.rglob("*")) if path.is_file()) if self.solution else ()

    @cached_property
    def commands(self) -> tuple[Command, ...]:
        """The solution's commands; none where it is no list of them, or needs other files."""
        return (unrolled(self.script) or ()) if self.script and len(self.solution_files) == 1 else ()


@dataclass(frozen=True)
class TaskFolder:
    """A task as it lies on disk. Made by `read_folder`.

    Attributes:
        root: The folder.
        id: Its name within its data set.
        settings: Its task.toml.
        phases: What there is to do, in order.
        notes: What a reader should know of it, one line each, for people.
    """

    root: Path
    id: str
    settings: TaskTable
    phases: tuple[Phase, ...]
    notes: tuple[str, ...]

    @property
    def environment(self) -> Path:
        """The folder that the box is built from."""
        return self.root / "environment"

    @property
    def kind(self) -> str:
        """The category by which results are grouped; empty where none is given."""
        return str(self.settings.metadata.get("category") or "")

    @cached_property
    def key(self) -> str:
        """Content key of the whole folder."""
        digest = hashlib.sha256()
        for path in sorted(self.root.rglob("*")):
            if path.is_file() or path.is_symlink():
                content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
                digest.update(f"{path.relative_to(self.root).as_posix()}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:16]


def read_folder(root: Path, name: str = "") -> TaskFolder:
    """Reads a task folder.

    Raises:
        TaskError: It is none, or asks for something that no box here can give; one line that names the file and the key.
    """
    name = name or root.resolve().name
    reader = _Reader(root, name)
    settings = read_settings(reader.text(root / SETTINGS), reader.where(root / SETTINGS))
    reader.refuse_what_no_box_has(settings.environment, "environment")
    _image_of(reader, settings.environment, root / "environment")
    steps = settings.steps or (None,)
    phases = tuple(reader.phase(settings, step) for step in steps)
    notes = [f"{reader.where(root / SETTINGS)}: {note}" for note in settings.notes()]
    if settings.environment.asks_for_network:
        notes.append(f"{reader.where(root / SETTINGS)}: environment.network_mode asks for a network; boxes have none")
    if settings.environment.mcp_servers:
        notes.append(f"{reader.where(root / SETTINGS)}: environment.mcp_servers are not offered to students")
    notes += [f"{reader.where(path)} is not heeded" for path in sorted(root.rglob(".harborignore"))]
    return TaskFolder(root, name, settings, phases, tuple(notes))


class _Reader:
    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name

    def where(self, path: Path) -> str:
        """A file of the folder, for people."""
        return f"{self.name}/{path.relative_to(self.root).as_posix()}"

    def text(self, path: Path) -> str:
        if path.exists() or path.is_symlink():
            self.stays(path)
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise TaskError(f"{self.where(path)}: is missing") from None
        except (OSError, UnicodeDecodeError) as error:
            raise TaskError(
                f"{self.where(path)}: cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from None

    def tree(self, folder: Path) -> Path | None:
        """A folder of the task whose links all stay within the task; None where there is none."""
        if not folder.is_dir():
            return None
        self.stays(folder)
        for path in folder.rglob("*"):  # what is no link lies where it is found
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                self.stays(path)
        return folder

    def stays(self, path: Path) -> None:
        """Refuses what is no file or folder (a pipe would never be read), and links out of the task or to themselves."""
        try:
            path.resolve(strict=True)
        except FileNotFoundError:
            pass  # a link to what is not there yet
        except (OSError, RuntimeError):
            raise TaskError(f"{self.where(path)}: is a link that leads to itself") from None
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise TaskError(f"{self.where(path)}: leads out of the task's folder")
        if not (path.is_file() or path.is_dir() or path.is_symlink()):
            raise TaskError(f"{self.where(path)}: is neither a file nor a folder")

    def refuse_what_no_box_has(self, machine: Machine, key: str) -> None:
        settings = self.where(self.root / SETTINGS)
        if machine.os == "windows":
            raise TaskError(f"{settings}: {key}.os: boxes are Linux, not Windows")
        if machine.gpus or machine.tpu:
            raise TaskError(f"{settings}: {key}.{'gpus' if machine.gpus else 'tpu'}: boxes have no accelerator")

    def phase(self, settings: TaskTable, step: StepTable | None) -> Phase:
        """A step of the task, or the whole of one without steps."""
        place = self.root / "steps" / step.name if step else self.root
        instruction = without_canary(self.text(place / INSTRUCTION))
        if not instruction.strip():
            raise TaskError(f"{self.where(place / INSTRUCTION)}: is empty")
        verifier = step.verifier if step else settings.verifier
        folders = [self.tree(self.root / "tests"), self.tree(place / "tests") if step else None]
        tests = tuple(folder for folder in folders if folder)
        judge = self._judge(settings, step)
        if not (judge and judge.has_tests) and not any((folder / Phase.test).is_file() for folder in tests):
            raise TaskError(f"{self.where(place / 'tests' / Phase.test)}: is missing")
        solutions = [self.tree(place / "solution"), self.tree(self.root / "solution")]
        agent, general = step.agent if step else settings.agent, settings.agent
        least = step.min_reward if step else None
        return Phase(
            name=step.name if step else "",
            instruction=instruction,
            seconds=agent.timeout_sec or general.timeout_sec,
            user=general.user if agent.user is None else agent.user,
            verifier=verifier.model_copy(update={"env": {**settings.verifier.env, **verifier.env}}),
            verifier_user=settings.verifier.user if verifier.user is None else verifier.user,
            tests=tests,
            solution=next((folder for folder in solutions if folder and (folder / "solve.sh").is_file()), None),
            workdir=self.tree(place / "workdir") if step else None,
            healthcheck=step.healthcheck if step else None,
            judge=judge,
            artifacts=self._artifacts(settings, step) if judge else (),
            least={"reward": least} if isinstance(least, int | float) else least,
        )

    def _judge(self, settings: TaskTable, step: StepTable | None) -> Judge | None:
        """The box of a separate verifier: the step's own, else the task's, else one like the student's."""
        mode = (step.verifier.mode if step else None) or settings.verifier.mode or "shared"
        if mode == "shared":
            return None
        own = [(step.verifier.environment, self.root / "steps" / step.name / "tests")] if step else []
        own.append((settings.verifier.environment, self.root / "tests"))
        machine = next((each for each, _ in own if each), settings.environment)
        self.refuse_what_no_box_has(machine, "verifier.environment")
        for each, folder in own:
            image = each.docker_image if each else None
            if image or any((folder / definition).is_file() for definition in _DEFINITIONS):
                judge = Judge(machine=machine.model_copy(update={"docker_image": image}), folder=folder, has_tests=True)
                _image_of(self, judge.machine, folder)
                return judge
        image = settings.environment.docker_image
        return Judge(
            machine=machine.model_copy(update={"docker_image": image}),
            folder=self.root / "environment",
            has_tests=False,
        )

    def _artifacts(self, settings: TaskTable, step: StepTable | None) -> tuple[Artifact, ...]:
        """What is carried to the tests' box. Nothing of it may lie where tests and rewards are read from."""
        every = (Artifact(source=ARTIFACTS), *settings.artifacts, *(step.artifacts if step else ()))
        for artifact in every:
            source, key = (
                PurePosixPath(artifact.source),
                f"{self.where(self.root / SETTINGS)}: artifacts: {artifact.source}",
            )
            if artifact.service not in (None, "main"):
                raise TaskError(f"{key}: of service {artifact.service}; a box has no services beside it")
            if not source.is_absolute():
                raise TaskError(f"{key}: is no absolute path")
            for place in map(PurePosixPath, (TESTS, VERIFIER)):
                if source == place or source in place.parents or place in source.parents:
                    raise TaskError(f"{key}: holds {place}, where the tests or their rewards are")
        return every


def _image_of(reader: _Reader, machine: Machine, folder: Path) -> None:
    """Refuses a box that nothing says how to make."""
    if (folder / "docker-compose.yaml").is_file():
        raise TaskError(
            f"{reader.where(folder / 'docker-compose.yaml')}: tasks of several containers are not supported"
        )
    if not machine.docker_image and not (folder / "Dockerfile").is_file():
        raise TaskError(
            f"{reader.where(folder / 'Dockerfile')}: is missing, and {SETTINGS} has no environment.docker_image"
        )
    reader.tree(folder)


def without_canary(text: str) -> str:
    """An instruction without the lines at its top that mark it as not to be trained on: they are not for who works."""
    lines = text.split("\n")
    first = next((n for n, line in enumerate(lines) if not _CANARY.fullmatch(line)), len(lines))
    return "\n".join(lines[first:]).strip("\n")


def folders_in(path: Path) -> Iterator[tuple[str, Path]]:
    """The task folders of a data set by name, in order: `path` itself, or those below it.

    Raises:
        TaskError: There is none.
    """
    if not path.is_dir():
        raise TaskError(f"{path}: no such folder of tasks; set the environment's option `path`")
    if (path / SETTINGS).exists():
        yield path.resolve().name, path
        return
    found = False
    for root, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if SETTINGS in files or INSTRUCTION in files:
            folders[:] = []
            found = True
            yield Path(root).relative_to(path).as_posix(), Path(root)
    if not found:
        raise TaskError(f"{path}: holds no task folder, that is none with a {SETTINGS}")


def read_all(path: Path) -> tuple[dict[str, TaskFolder], list[str]]:
    """The tasks of a data set by name, and a line for each folder that cannot be used."""
    tasks, refused = {}, []
    for name, root in folders_in(path):
        try:
            tasks[name] = read_folder(root, name)
        except TaskError as error:
            refused.append(str(error))
    return tasks, refused
