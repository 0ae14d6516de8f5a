"""InterCode Python as a leap environment: MBPP's functions, written and tried in an interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from leap.core import Decision, History, Observation, PrivilegedState, Task
from leap.envs.base import Environment, EnvironmentConfig, Finding, Outcome, Session, sampled
from leap.envs.intercode.bash.boxes import Boxes
from leap.envs.intercode.data import IntercodeData, PythonRecord
from leap.envs.intercode.fetch import fetch_all
from leap.envs.intercode.python.actions import defining, function_name, prepared, reward, submitted_name
from leap.envs.intercode.python.interpreter import Interpreter, Reply
from leap.envs.intercode.splits import TEST_SPLITS, leading_split
from leap.envs.intercode.text import shorten_output
from leap.errors import PrerequisiteError

SUBMIT = "submit"
FIRST = "A Python session is open."
_BOX = 4  # of the four file systems the one without files of its own


class PythonConfig(EnvironmentConfig):
    """InterCode Python's options in a recipe."""

    path: Path | None = Field(default=None, description="Upstream's data; $INTERCODE_DATA, or leap's cache, if null.")
    sandbox: str = Field(
        default="auto", description="Where code runs: namespace, docker; auto takes the first that works."
    )
    time_limit: float = Field(default=10.0, gt=0, description="Seconds for a piece of code, and for a test.")
    observation_limit: int = Field(default=10_000, ge=200, description="Longest observation shown, in characters.")


class PythonEnvironment(Environment):
    """MBPP (Austin et al. 2021) as InterCode has it (Yang et al. 2023): 974 functions to write."""

    name: ClassVar[str] = "intercode-python"
    Config: ClassVar[type[EnvironmentConfig]] = PythonConfig
    test_splits: ClassVar[frozenset[str]] = TEST_SPLITS
    gold_splits: ClassVar[tuple[str, ...]] = ("all",)
    idle_baselines: ClassVar[Mapping[str, Sequence[str]]] = {
        "empty-function": ("def solve(*arguments):\n    return None", "submit solve")
    }

    config: PythonConfig

    def __init__(self, config: PythonConfig) -> None:
        super().__init__(config)
        self._boxes: Boxes | None = None
        self._records: dict[str, PythonRecord] | None = None

    def prepare(self, progress: Any = None) -> None:
        """Reads the tasks, and finds a sandbox that works."""
        self.records()
        if self._boxes is None:
            from leap.envs.intercode.bash.images import open_boxes

            self._boxes = open_boxes(self.config.sandbox, IntercodeData(self.config.path), progress)

    @property
    def boxes(self) -> Boxes:
        """Where code runs."""
        if self._boxes is None:
            self.prepare()
        assert self._boxes is not None
        return self._boxes

    def records(self) -> dict[str, PythonRecord]:
        """All tasks with their gold, by id."""
        if self._records is None:
            self._records = {f"mbpp/{record.task_id}": record for record in IntercodeData(self.config.path).python()}
        return self._records

    def fetch_data(self, progress: Any = None, *, source: str | None = None) -> list[Finding]:
        return fetch_all(self.config.path, source, progress)

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        chosen = sampled(leading_split(list(self.records().items()), split), split, limit, seed)
        return [
            Task(env=self.name, split=split, id=name, instruction=record.query, kind="mbpp") for name, record in chosen
        ]

    def record(self, task: Task) -> PythonRecord:
        """The task with its gold.

        Raises:
            PrerequisiteError: It is not in the data at hand.
        """
        record = self.records().get(task.id)
        if record is None or record.query != task.instruction:
            raise PrerequisiteError(
                f"task {task.id!r} ({task.instruction[:60]!r}) is not in the InterCode data at hand."
            )
        return record

    def start(self, task: Task) -> PythonSession:
        return PythonSession(self, self.record(task))

    def gold_replies(self, record: PythonRecord) -> dict[str, Reply]:
        """What the tests give with the gold, in a fresh interpreter."""
        interpreter = Interpreter(self.boxes.spare(_BOX, "gold"), self.config.time_limit)
        replies = interpreter.run_all([record.test_setup_code, record.gold, *record.tests])
        return dict(zip(record.tests, replies[2:], strict=True))

    def expert(self) -> PythonExpert:
        return PythonExpert()

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        """Defines the gold and submits it; there is nothing to look at beforehand. At privilege 0, the expert."""
        if privilege == 0 or privileged.plan is None:
            return PythonExpert().decide(history)
        action = privileged.plan[0]
        defines = action != privileged.plan[-1]
        reason = (
            "I write the function that the task asks for." if defines else "The function is defined, so I submit it."
        )
        return Decision(reason=reason, action=action)

    def valid(self, action: str, observation: Observation) -> bool:
        """Any Python."""
        try:
            return bool(action.strip()) and (action.startswith(SUBMIT) or prepared(action) != "")
        except (SyntaxError, ValueError):
            return False

    def entities(self, text: str) -> set[str]:
        """None: a task's text names all there is."""
        return set()

    def prompt_directory(self) -> Path:
        return Path(__file__).parents[1] / "prompts" / "python"

    def versions(self) -> dict[str, str]:
        return {self.name: f"sandbox {self.boxes.description}"}

    def close(self) -> None:
        if self._boxes is not None:
            self._boxes.close()
            self._boxes = None


class PythonExpert:
    """The unprivileged baseline: it can write no program, so it submits a function that returns nothing."""

    def decide(self, history: History) -> Decision:
        """The next reason and action."""
        script = PythonEnvironment.idle_baselines["empty-function"]
        return Decision(reason="I know no better function.", action=script[min(len(history.actions), 1)])


class PythonSession(Session):
    """One function being written, in an interpreter of its own. Addresses in what it prints differ from run to run."""

    repeats: ClassVar[bool] = False

    def __init__(self, environment: PythonEnvironment, record: PythonRecord) -> None:
        self._environment = environment
        self._record = record
        self._box = environment.boxes.open(_BOX)
        self._interpreter = Interpreter(self._box, environment.config.time_limit)
        self._actions: list[str] = []
        self._last = FIRST

    def observe(self) -> Observation:
        return Observation(text=FIRST)

    def act(self, action: str) -> Outcome:
        if action == "skip":
            return Outcome(Observation(text="skipped"), done=True)
        if action.startswith(SUBMIT):
            value = self.judge(submitted_name(action, self._actions))
            return Outcome(self._show(), reward=value, done=True, success=value == 1.0, score=value)
        self._actions.append(action)
        try:
            self._last = str(self._interpreter.run(prepared(action)))
        except (SyntaxError, ValueError) as error:
            self._last = f"Error executing action: {error}"
        return Outcome(self._show())

    def judge(self, name: str | None) -> float:
        """The reward if the student submitted this function now. The tests run in its own interpreter."""
        gold_name = function_name(self._record.gold)
        if name is None or gold_name is None:
            return 0.0
        tests = self._record.tests
        replies = self._interpreter.run_all([f"{gold_name} = {name}", self._record.test_setup_code, *tests])
        return reward(dict(zip(tests, replies[2:], strict=True)), self._environment.gold_replies(self._record))

    def explain(self) -> list[tuple[str, str, str]]:
        """The reward that the last function would get, test by test; they run in the student's interpreter."""
        name, gold_name = submitted_name(SUBMIT, self._actions), function_name(self._record.gold)
        if name is None or gold_name is None:
            return [("tests", "0", "no function is defined yet")]
        tests = self._record.tests
        replies = self._interpreter.run_all([f"{gold_name} = {name}", self._record.test_setup_code, *tests])[2:]
        gold, share = self._environment.gold_replies(self._record), 1 / len(tests)
        rows = zip(tests, replies, strict=True)
        return [(test[:60], f"{share * (reply == gold[test]):.2f}", str(reply)[:80]) for test, reply in rows]

    def privileged(self) -> PrivilegedState:
        gold, name = self._record.gold, function_name(self._record.gold)
        defined = gold in self._actions or defining(gold) in self._actions
        submit = f"{SUBMIT} {name}"
        return PrivilegedState(
            text=f"Task: {self._record.query}\nGold program:\n{gold}\nTests:\n" + "\n".join(self._record.tests),
            facts={"gold": gold, "tests": list(self._record.tests)},
            plan=None if name is None else (submit,) if defined else (defining(gold), submit),
        )

    def close(self) -> None:
        self._box.close()

    def _show(self) -> Observation:
        return Observation(text=shorten_output(self._last, self._environment.config.observation_limit))
