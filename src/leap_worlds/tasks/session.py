"""Sessions of task folders: a task being worked on, and the states of an episode in boxes of their own."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from leap.core import Observation, PrivilegedState
from leap.envs.atif import Turn, as_json, trajectory
from leap.envs.base import Outcome, Session
from leap.envs.grammar import ToolCalls
from leap.envs.tools import Tool
from leap_worlds.sandbox import Image, SandboxError
from leap_worlds.tasks.folder import TaskFolder
from leap_worlds.tasks.state import failing, in_words
from leap_worlds.tasks.terminal import Shown
from leap_worlds.tasks.tutor import plan_of
from leap_worlds.tasks.verify import REWARD, Result

if TYPE_CHECKING:
    from leap_worlds.tasks.env import TasksEnvironment

log = logging.getLogger(__name__)

SUBMIT = "submit"
CANNOT_START = "The terminal of this task could not be opened."
NO_CHECKS = 10**6
"""As many failures, where the tests print none or could not be run."""


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


class States:
    """The states of one episode of a task, one after the other, in a box of their own, and copies of it. Close it.

    A copy stands on a snapshot of the files, so it lacks what runs: where something does, there is none, and whoever wants the
    state takes the actions again. That is quicker, too, as long as they take next to no time.

    Attributes:
        seconds: How long the actions took when they were last taken again.
    """

    worth: ClassVar[float] = 0.5
    """Seconds of actions from which on a copy is quicker: it takes a box of its own for the episode, and the copying."""

    def __init__(self, environment: TasksEnvironment, name: str) -> None:
        self._environment, self._name = environment, name
        self._session: TaskSession | None = None
        self._taken: tuple[str, ...] = ()
        self._image: Image | None = None
        self.seconds = 0.0

    def copy_after(self, taken: tuple[str, ...]) -> TaskSession | None:
        """A session in which these actions were taken; None where it is as quick, or only possible, to take them in a fresh one.

        Raises:
            LeapError: There is no box for it.
        """
        if not taken or self.seconds < self.worth or not self._environment.images.provider.snapshots:
            return None
        if self._session is None or taken[: len(self._taken)] != self._taken:
            self.close()
            self._session, self._taken = TaskSession(self._environment, self._environment.folders[self._name]), ()
        if taken != self._taken:
            self._drop()
            self._session.take(taken[len(self._taken) :])
            self._taken = taken
            self._image = self._session.snapshot(quiet=True)
        try:
            return self._session.copied(self._image) if self._image else None
        except SandboxError as error:  # a fresh one may be had all the same
            log.debug("%s", error)
            return None

    def _drop(self) -> None:
        if self._image is not None:
            self._environment.images.drop(self._image)
            self._image = None

    def close(self) -> None:
        """Ends the box."""
        self._drop()
        if self._session is not None:
            self._session.close()
            self._session = None


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

    def take(self, actions: Sequence[str]) -> None:
        """Takes actions, as far as the task goes."""
        for action in actions:
            if not self._trial.ended:
                self.act(action)

    def reached(self) -> tuple[float, int]:
        """`TasksEnvironment.reached`, once the actions are taken."""
        if not self._trial.ended:
            self._trial.finish(self._told())
        results = self._trial.results
        if self._trial.solved:
            return 1.0, 0
        rewards = sum(result.mean for result in results) / len(self._folder.phases)
        fails = [len(failing(result.log)) or NO_CHECKS for result in results if result.score < 1.0]
        return min(rewards, 1 - 1e-6), -sum(fails) if results else -NO_CHECKS

    def snapshot(self, *, quiet: bool) -> Image | None:
        """See `Trial.snapshot`; None, too, where the task has ended."""
        return None if self._trial.ended else self._trial.snapshot(quiet=quiet)

    def copied(self, image: Image) -> TaskSession:
        """The session as it is now, in a box of its own, of a snapshot's files. Close it."""
        made = copy.copy(self)
        made._actions, made._mine = [*self._actions], [*self._mine]
        made._trial = self._trial.copied(image)
        return made

    def _now(self) -> Result | None:
        """What the tests would say now: found in a copy, or in a fresh box in which the same was done where none can be made."""
        if self._trial.ended:
            return self._trial.results[-1] if self._trial.results else Result(problem="the box has ended")
        image = self.snapshot(quiet=False)
        try:
            twin = self.copied(image) if image else TaskSession(self._environment, self._folder)
            try:
                for action in () if image else self._actions:
                    twin.act(action)
                if not twin._trial.ended:
                    twin._trial.finish(twin._told())
                return twin._trial.results[-1] if twin._trial.results else None
            finally:
                twin.close()
        finally:
            if image:
                self._environment.images.drop(image)

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
