"""Task folders as a leap environment."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from leap.core import Observation, PrivilegedState, Task, content_key
from leap.envs.atif import Turn, as_json, trajectory
from leap.envs.base import Environment, EnvironmentConfig, Outcome, Progress, Session, sampled, unknown_split
from leap.envs.grammar import FreeText, Grammar, ToolCalls
from leap.envs.tools import Tool
from leap.errors import LeapError, PrerequisiteError
from leap.paths import cache_dir, expanded
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig
from leap_worlds.intercode.text import paths_in
from leap_worlds.sandbox import Limits
from leap_worlds.tasks.folder import TaskFolder, read_all
from leap_worlds.tasks.format import TaskError
from leap_worlds.tasks.images import Images
from leap_worlds.tasks.make import make_tasks
from leap_worlds.tasks.splits import SplitConfig, divided
from leap_worlds.tasks.state import failing, in_words
from leap_worlds.tasks.terminal import Shown
from leap_worlds.tasks.trial import Trial
from leap_worlds.tasks.tutor import TaskTutor, plan_of
from leap_worlds.tasks.verify import REWARD, Result

log = logging.getLogger(__name__)

SUBMIT = "submit"
CANNOT_START = "The terminal of this task could not be opened."
_NO_CHECKS = 10**6
"""As many failures, where the tests print none or could not be run."""
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


def _tool(name: str, description: str, **arguments: str) -> Tool:
    properties = {key: {"type": "string", "description": text} for key, text in arguments.items()}
    return Tool(
        name=name,
        description=description,
        parameters={
            "type": "object",
            "properties": properties,
            "required": list(arguments),
            "additionalProperties": False,
        },
    )


TOOLS = (
    _tool("bash", "Runs a command, of any number of lines, in a terminal.", command="What to run."),
    _tool("write_file", "Writes a text file.", path="Where to.", content="The whole content."),
    _tool("read_file", "Shows a text file.", path="Which."),
    _tool(SUBMIT, "Says that the task is done. What is there then is judged."),
)


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
        self.reached = lru_cache(maxsize=2**16)(self._reached)

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

    def _reached(self, name: str, actions: tuple[str, ...]) -> tuple[float, int]:
        """What the tests say once these actions were taken in a fresh box and the work handed in: the mean of the rewards, 1 only
        where the task is solved, and the number of checks that they print as failed, below 0; the more, the better."""
        try:
            session = TaskSession(self, self.folders[name])
        except LeapError:
            return 0.0, -_NO_CHECKS
        try:
            return session.reached(actions)
        finally:
            session.close()

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


class ClosedSession(Session):
    """A task that no box could be made for: it ends with the first action, and brings nothing."""

    repeats: ClassVar[bool] = True

    def __init__(self, why: str) -> None:
        self._why = why

    def observe(self) -> Observation:
        return Observation(text=CANNOT_START)

    def act(self, action: str) -> Outcome:
        return Outcome(Observation(text=CANNOT_START), done=True)

    def privileged(self) -> PrivilegedState:
        return PrivilegedState(text=self._why, hopeless=True)


class TaskSession(Session):
    """One task being worked on. What programs print of times and processes differs from run to run."""

    repeats: ClassVar[bool] = False

    def __init__(self, environment: TasksEnvironment, folder: TaskFolder) -> None:
        self._environment, self._folder = environment, folder
        self._trial = environment.trial(folder)
        self._actions: list[str] = []
        self._mine: list[Turn] = []  # those of the phase at hand, and what came of them
        self._seconds = 0.0

    def observe(self) -> Observation:
        return Observation(text=f"A terminal is open in {self._trial.terminal.cwd}.")

    def act(self, action: str) -> Outcome:
        if self._trial.ended:
            return Outcome(Observation(text="The task has ended."), done=True)
        self._actions.append(action)
        self._mine.append(Turn(action, None))
        if self._environment.config.actions == "text":
            return (
                self._submitted()
                if action.strip() == SUBMIT
                else self._ran(self._trial.terminal.bash(action, self._left()))
            )
        grammar = self._environment.grammar
        assert isinstance(grammar, ToolCalls)
        call = grammar.call(action)
        if call is None:
            return self._ran(Shown(grammar.problem(action), 2))
        if call["name"] == SUBMIT:
            return self._submitted()
        given: dict[str, str] = {name: str(value) for name, value in call["arguments"].items()}
        terminal = self._trial.terminal
        if call["name"] == "write_file":
            return self._ran(terminal.write(given["path"], given["content"]))
        if call["name"] == "read_file":
            return self._ran(terminal.read(given["path"]))
        return self._ran(terminal.bash(given["command"], self._left()))

    def _left(self) -> float | None:
        """Seconds that are left of the phase's time; None where it has no limit."""
        most = self._trial.phase.seconds
        return None if most is None else max(0.1, most - self._seconds)

    def _ran(self, shown: Shown) -> Outcome:
        """What came of an action that is no submission; where no time or turn is left, the tests follow."""
        self._seconds += shown.seconds
        self._mine[-1] = self._mine[-1]._replace(seen=shown.text)
        if shown.gone:
            self._trial.ended = True
            return Outcome(Observation(text=shown.text), done=True)
        turns, most = self._environment.config.turns, self._trial.phase.seconds
        if (most is not None and self._seconds >= most) or (turns is not None and len(self._actions) >= turns):
            return self._submitted(
                f"{shown.text}\n[no time is left]", last=turns is not None and len(self._actions) >= turns
            )
        return Outcome(Observation(text=shown.text))

    def _submitted(self, said: str = "The work was handed in.", *, last: bool = False) -> Outcome:
        following = self._trial.finish(self._told())
        self._mine, self._seconds = [], 0.0
        if following and not last:
            return Outcome(Observation(text=f"{said}\nWhat is to be done next:\n{following}"))
        self._trial.ended = True
        total = self._trial.total
        parts = dict(total.rewards) if set(total.rewards) - {REWARD} else {}
        score = total.score
        return Outcome(
            Observation(text=said), reward=score, done=True, success=self._trial.solved, score=score, parts=parts
        )

    def _told(self) -> bytes:
        """What was done in the phase at hand, for tests that read it."""
        tools = self._environment.grammar.tools
        return as_json(trajectory(self._trial.phase.instruction, self._mine, tools=tools))

    def reached(self, actions: Sequence[str]) -> tuple[float, int]:
        """`TasksEnvironment.reached`, of the task as it is at first."""
        for action in actions:
            if not self._trial.ended:
                self.act(action)
        if not self._trial.ended:
            self._trial.finish(self._told())
        results = self._trial.results
        if self._trial.solved:
            return 1.0, 0
        rewards = sum(result.mean for result in results) / len(self._folder.phases)
        fails = [len(failing(result.log)) or _NO_CHECKS for result in results if result.score < 1.0]
        return min(rewards, 1 - 1e-6), -sum(fails) if results else -_NO_CHECKS

    def _now(self) -> Result | None:
        """What the tests would say now: found in a copy, in which the same was done."""
        if self._trial.ended:
            return self._trial.results[-1] if self._trial.results else Result(problem="the box has ended")
        copy = TaskSession(self._environment, self._folder)
        try:
            for action in self._actions:
                copy.act(action)
            if not copy._trial.ended:
                copy._trial.finish(copy._told())
            return copy._trial.results[-1] if copy._trial.results else None
        finally:
            copy.close()

    def explain(self) -> list[tuple[str, str, str]]:
        result = self._now() or Result(problem="the copy of the box has ended")
        rows = [(name, f"{value:g}", "") for name, value in result.rewards.items()]
        return [*rows, ("tests", f"{result.score:.2f}", result.problem or result.log[-300:])]

    def privileged(self) -> PrivilegedState:
        options, phase = self._environment.config, self._trial.phase
        result = self._now() if options.checks == "always" else None
        later = self._folder.phases[len(self._trial.results) + 1 :]
        plan = (
            None if self._trial.ended else plan_of(phase, later, [turn.action for turn in self._mine], options.actions)
        )
        facts = {
            "phase": phase.name,
            "script": phase.script,
            "rewards": dict(result.rewards) if result else {},
            "problem": result.problem if result else "",
        }
        return PrivilegedState(text=in_words(phase, result, options.tells), facts=facts, plan=plan)

    def close(self) -> None:
        self._trial.close()
