"""Task folders as a leap environment."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from leap.core import Task, content_key
from leap.envs.base import Environment, EnvironmentConfig, Progress, Session, sampled, unknown_split
from leap.envs.grammar import FreeText, Grammar, ToolCalls
from leap.errors import LeapError, PrerequisiteError
from leap.paths import cache_dir, expanded
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig
from leap_worlds.intercode.text import paths_in
from leap_worlds.sandbox import Limits
from leap_worlds.tasks.folder import TaskFolder, read_all
from leap_worlds.tasks.format import TaskError
from leap_worlds.tasks.images import Images
from leap_worlds.tasks.make import make_tasks
from leap_worlds.tasks.session import NO_CHECKS, TOOLS, ClosedSession, States, TaskSession
from leap_worlds.tasks.splits import SplitConfig, divided
from leap_worlds.tasks.trial import Trial
from leap_worlds.tasks.tutor import TaskTutor

log = logging.getLogger(__name__)

_MOST_KEPT = 2**16
_SHOWN = (
    "A terminal is open in /. [exit code 0] [exit code 1] [exit code 2] [exit code 127] The work was handed in. "
    "/bin/bash: line 1: bash: command not found cannot remove cannot stat cannot access '': No such file or directory "
    "Is a directory Not a directory missing operand are the same file syntax error near unexpected token option"
)
"""What a terminal says, for small students' vocabularies."""


class TasksConfig(EnvironmentConfig):
    """Options of task folders in a recipe."""

    path: Path = Field(default=Path("tasks"), description="A task folder, or a folder of them (of any depth).")
    generator: BashFamilyConfig | None = Field(
        default=None, description="Tasks to make, in leap's cache, in place of those of `path` (needs split: {by: folder})."
    )
    split: SplitConfig = Field(default_factory=SplitConfig, description="Which tasks are in which split.")
    sandbox: str = Field(
        default="auto", description="Where commands run: namespace, docker; auto takes the first that works."
    )
    actions: Literal["tools", "text"] = Field(
        default="tools",
        description="tools: calls of bash, write_file, read_file, submit. text: the action is the command.",
    )
    bases: dict[str, str] = Field(
        default_factory=dict,
        description="namespace: what images of some names (patterns) stand on: a tar of a root file system, or `machine`.",
    )
    build_network: bool = Field(
        default=False,
        description="Whether making an image may use the network: docker wholly, namespace for what `pip install` names.",
    )
    time_limit: float = Field(default=60.0, gt=0, description="Seconds for a command.")
    observation_limit: int = Field(default=8_000, ge=200, description="Longest observation shown, in characters.")
    turns: int | None = Field(
        default=None, ge=1, description="After so many actions the tests are run, submitted or not."
    )
    memory_mb: int = Field(default=2048, ge=64, description="Most memory of a box, whatever its task asks for.")
    storage_mb: int = Field(default=512, ge=16, description="Most that may be written in a box.")
    cpus: float = Field(default=1.0, gt=0, description="Most processors of a box.")
    box_usd_per_hour: float | None = Field(
        default=None, ge=0, description="What an hour of a box costs, in US dollars: for the record, beside tokens."
    )
    services: tuple[str, ...] = Field(
        default=(),
        description="Patterns of the tasks whose tests need what the student left running; else it is ended first.",
    )
    host_env: tuple[str, ...] = Field(default=(), description="Variables of this machine that a task may be told.")
    tells: Literal[25, 50, 75, 100] = Field(
        default=100,
        description="What a teacher is told: which checks fail now; and what the solution touches; its steps; the script.",
    )
    checks: Literal["always", "never"] = Field(
        default="always", description="Whether the tests are run, in a copy of the box, for each privileged state."
    )

    @model_validator(mode="after")
    def _divided_as_made(self) -> TasksConfig:
        if self.generator is not None and self.split.by != "folder":
            raise ValueError("made tasks need split: {by: folder}, so that no file system is in two splits")
        return self


class TasksEnvironment(Environment[TasksConfig]):
    """Tasks in Harbor's format: a terminal to work in, tests that come when the work is done."""

    name: ClassVar[str] = "tasks"
    Config: ClassVar[type[EnvironmentConfig]] = TasksConfig
    gold_splits: ClassVar[tuple[str, ...]] = ("all",)

    def __init__(self, config: TasksConfig | None = None) -> None:
        super().__init__(config)
        options = self.config
        self.grammar: Grammar = ToolCalls(TOOLS) if options.actions == "tools" else FreeText()
        self.test_splits = frozenset({*options.split.test, "all"})  # pyright: ignore[reportAttributeAccessIssue] - options decide
        most = Limits(
            memory=options.memory_mb * 2**20, disk=options.storage_mb * 2**20, cpus=options.cpus, processes=256
        )
        self.images = Images(options.sandbox, options.bases, options.build_network, most)
        self._reading = threading.Lock()
        self._worth: dict[tuple[str, tuple[str, ...]], tuple[float, int]] = {}

    @cached_property
    def path(self) -> Path:
        """Where the tasks are; made ones are made."""
        generator = self.config.generator
        if generator is None:
            return expanded(self.config.path)
        folder = cache_dir() / "tasks" / content_key(generator.model_dump(mode="json"))
        make_tasks(generator, folder)
        return folder

    @cached_property
    def _folders(self) -> dict[str, TaskFolder]:
        found, refused = read_all(self.path)
        usable = {}
        for name, folder in found.items():
            try:
                notes = [*folder.notes, *self.images.refuse(folder)]
            except TaskError as error:
                refused.append(str(error))
                continue
            usable[name] = folder
            for note in notes:
                log.info("%s", note)
        for line in refused:
            log.warning("left out: %s", line)
        if not usable:
            raise PrerequisiteError(f"{self.path}: none of its {len(refused)} tasks can be used: {refused[0]}")
        return usable

    @property
    def folders(self) -> Mapping[str, TaskFolder]:
        """The tasks that can be used here, by name. What cannot is left out with a warning of one line."""
        with self._reading:
            return self._folders

    def folder(self, task: Task) -> TaskFolder:
        """A task's folder.

        Raises:
            PrerequisiteError: It is not in the data set at hand.
        """
        folder = self.folders.get(task.id)
        if folder is None or folder.phases[0].instruction != task.instruction:
            raise PrerequisiteError(f"task {task.id!r} is not among the tasks in {self.path}.")
        return folder

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        splits = divided(list(self.folders), self.config.split)
        if split not in splits:
            raise unknown_split(self.name, split, splits)
        chosen = [self.folders[name] for name in sampled(splits[split], split, limit, seed)]
        return [
            Task(env=self.name, split=split, id=one.id, instruction=one.phases[0].instruction, kind=one.kind)
            for one in chosen
        ]

    def prepare(self, progress: Progress | None = None) -> None:
        """Reads the tasks and sees that a sandbox works. Images are made when a task is first started."""
        self.images.provider  # noqa: B018 - opened, or it says why it cannot be
        if progress is not None:
            progress(len(self.folders), len(self.folders), "tasks read")

    def trial(self, folder: TaskFolder) -> Trial:
        """The task in a fresh box.

        Raises:
            LeapError: There is no box for it.
        """
        options = self.config
        return Trial(
            self.images,
            folder,
            services=options.services,
            host_env=options.host_env,
            limit=options.observation_limit,
            seconds=options.time_limit,
        )

    def start(self, task: Task) -> Session:
        folder = self.folder(task)
        try:
            return TaskSession(self, folder)
        except LeapError as error:
            log.warning("task %s cannot be worked on: %s", folder.id, error)
            return ClosedSession(str(error))

    def prove(self, task: Task) -> str:
        """Runs the reference solution, which must get the whole reward, then nothing at all, which must not."""
        folder = self.folder(task)
        try:
            problem = self._proved(folder, oracle=True)
            return problem or self._proved(folder, oracle=False)
        except LeapError as error:
            return str(error)

    def _proved(self, folder: TaskFolder, *, oracle: bool) -> str:
        trial = self.trial(folder)
        try:
            said: list[str] = []
            while not trial.ended:
                if oracle and (problem := trial.solve()):
                    said.append(problem)
                trial.finish()
            total = trial.total
            if oracle and not trial.solved:
                rewards = ", ".join(f"{name} {value:g}" for name, value in total.rewards.items())
                last = total.log.strip().splitlines()[-1:] if not total.problem else []
                return "the solution does not pass: " + "; ".join(
                    filter(None, [*said, total.problem or rewards, *last])
                )
            if not oracle and trial.solved:
                return "the tests pass without any work"
            return ""
        finally:
            trial.close()

    def states(self, folder: TaskFolder) -> States:
        """The states of an episode of a task, in boxes of their own. Close them."""
        return States(self, folder.id)

    def reached(
        self, name: str, taken: tuple[str, ...], then: tuple[str, ...] = (), states: States | None = None
    ) -> tuple[float, int]:
        """What the tests say once these actions were taken and the work handed in: the mean of the rewards, 1 only where the task
        is solved, and the number of checks that they print as failed, below 0; the more, the better. Kept by task and actions.

        Args:
            name: The task.
            taken, then: The actions.
            states: Where the state after `taken` may be had, so that these are not taken again.
        """
        key = (name, (*taken, *then))
        if (known := self._worth.get(key)) is not None:
            return known
        session = None
        try:
            session = states.copy_after(taken) if states else None
            if session is None:
                session, begun = TaskSession(self, self.folders[name]), time.monotonic()
                session.take(taken)
                if states:
                    states.seconds = time.monotonic() - begun
            session.take(then)
            worth = session.reached()
        except LeapError:
            worth = 0.0, -NO_CHECKS
        finally:
            if session:
                session.close()
        if len(self._worth) >= _MOST_KEPT:
            self._worth.clear()
        self._worth[key] = worth
        return worth

    @property
    def tutor(self) -> TaskTutor:
        return TaskTutor(self)

    def prompt_directory(self) -> Path:
        return Path(__file__).parent / "prompts"

    def entities(self, text: str) -> set[str]:
        return paths_in(text)

    def _learnt(self) -> list[str]:
        """Instructions and solutions of all tasks that may be trained or chosen on."""
        names = [
            name
            for split, names in divided(list(self.folders), self.config.split).items()
            if split not in self.test_splits
            for name in names
        ]
        phases = [phase for name in names for phase in self.folders[name].phases]
        return [text for phase in phases for text in (phase.instruction, phase.script or "")]

    def vocabulary(self) -> Sequence[str]:
        """The words of the tasks that are not tested on, with a space before them, a line's beginning, and nothing."""
        words = {word for text in self._learnt() for word in re.findall(r"[^\W\d_]+", text)} | set(self.names())
        return sorted({form for word in words for form in (f" {word}", f"\n{word}", f"/{word}")} | {*self._learnt(), _SHOWN})

    def names(self) -> Sequence[str]:
        """Names of files and folders in those tasks, each to be one token: `/notes`, `apple.txt`."""
        parts = {part for text in self._learnt() for path in paths_in(text) for part in path.split("/") if part}
        return sorted(part if "." in part else f"/{part}" for part in parts)

    def used(self) -> dict[str, float]:
        seconds, price = self.images.seconds, self.config.box_usd_per_hour
        return {"box_seconds": seconds, **({"box_usd": seconds / 3600 * price} if price else {})}

    def versions(self) -> dict[str, str]:
        return {self.name: f"{self.images.description}; tasks {self._key}"}

    @cached_property
    def _key(self) -> str:
        return content_key(sorted((name, folder.key) for name, folder in self.folders.items()))

    def close(self) -> None:
        self.images.close()
