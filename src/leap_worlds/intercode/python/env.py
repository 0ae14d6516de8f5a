"""InterCode Python as a leap environment: MBPP's functions, written and tried in an interpreter."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from leap.core import Decision, History, Observation, PrivilegedState, Task
from leap.envs.base import EnvironmentConfig, Progress
from leap.envs.tutor import Tutor
from leap_worlds.intercode.base import BoxedEnvironment, Boxes, IntercodeSession, Pool, UpstreamConfig
from leap_worlds.intercode.bash.images import upstream_boxes
from leap_worlds.intercode.data import IntercodeData, PythonRecord
from leap_worlds.intercode.python.actions import defining, function_name, prepared, reward, submitted_name, taken_apart
from leap_worlds.intercode.python.interpreter import ENDED, VALUES, Interpreter, Reply
from leap_worlds.intercode.text import SUBMIT

_BOX = 4  # of the four file systems the one without files of its own

_GOLD_TIME = 3  # times the student's: that both took too long would be a result in which they agree

_SETUP_FIRST = "its tests' set-up uses a class of the gold's and runs before it, so that the gold fails its own tests"
BROKEN_TESTS = {"mbpp/367": _SETUP_FIRST, "mbpp/927": _SETUP_FIRST}
"""Tasks whose gold scores 0 by upstream's rules: who defines the class passes the tests, and so differs from the gold."""


class PythonConfig(UpstreamConfig):
    """InterCode Python's options in a recipe."""

    sandbox: str = Field(default="auto", description="Where code runs: namespace, docker; auto takes the first that works.")
    image: Literal["full", "small"] = Field(
        default="full", description="What Python runs on: Debian as Bash's tasks have it, or without imagemagick."
    )
    time_limit: float = Field(default=10.0, gt=0, description="Seconds for a piece of code, and for a test.")


class PythonEnvironment(BoxedEnvironment[PythonConfig, PythonRecord]):
    """MBPP (Austin et al. 2021) as InterCode has it (Yang et al. 2023): 974 functions to write."""

    name: ClassVar[str] = "intercode-python"
    Config: ClassVar[type[EnvironmentConfig]] = PythonConfig
    prompts: ClassVar[str] = "python"

    def __init__(self, config: PythonConfig | None = None) -> None:
        super().__init__(config)
        self._gold_boxes = Pool(lambda: self.boxes.open(_BOX), lambda box: box.close())

    def open_boxes(self, progress: Progress | None) -> Boxes:
        data = IntercodeData(self.config.path)
        return upstream_boxes(self.config.sandbox, data, self.config.image, progress, (_BOX,))

    def read_records(self) -> dict[str, PythonRecord]:
        return {f"mbpp/{record.task_id}": record for record in IntercodeData(self.config.path).python()}

    def start(self, task: Task) -> PythonSession:
        return PythonSession(self, self.record(task))

    def gold_replies(self, record: PythonRecord) -> dict[str, Reply]:
        """Runs the tests with the gold in a fresh interpreter and returns their replies."""
        with self._gold_boxes.lent() as box:
            codes = [record.test_setup_code, record.gold, *record.tests]
            replies = Interpreter(box, _GOLD_TIME * self.config.time_limit).run_all(codes)
            box.reset()  # for the next
        return dict(zip(record.tests, replies[2:], strict=True))

    def judged(self, record: PythonRecord, rests: Sequence[str], told: Sequence[str]) -> list[Reply]:
        """Tries what is left of tests on the values that a student's interpreter told, where it can reach nothing."""
        with self._gold_boxes.lent() as box:
            tests = [f"values = leap_read({text!r})\n{rest}" for rest, text in zip(rests, told, strict=True)]
            replies = Interpreter(box, self.config.time_limit).run_all([VALUES, record.test_setup_code, *tests])
            box.reset()
        return replies[2:]

    def why_unsolvable(self, task: Task) -> str:
        """Why the gold does not score 1.0 against itself; empty where it does."""
        return BROKEN_TESTS.get(task.id, "")

    @property
    def tutor(self) -> PythonTutor:
        return PythonTutor(self)

    def valid(self, action: str, observation: Observation) -> bool:
        """Any Python."""
        try:
            return bool(action.strip()) and (action.startswith(SUBMIT) or prepared(action) != "")
        except (SyntaxError, ValueError):
            return False

    def entities(self, text: str) -> set[str]:
        """Always empty: a task's text names all there is."""
        return set()

    def close(self) -> None:
        self._gold_boxes.close()
        super().close()


class PythonTutor(Tutor[PythonEnvironment]):
    """An expert that can write no program, and a teacher that knows the gold one."""

    idle: ClassVar[Mapping[str, Sequence[str]]] = {
        "empty-function": ("def solve(*arguments):\n    return None", "submit solve")
    }

    def expert(self, task: Task) -> PythonExpert:
        return PythonExpert()

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        """Defines the gold and submits it; there is nothing to look at beforehand. At privilege 0, the expert."""
        if privilege == 0 or privileged.plan is None:
            return PythonExpert().decide(history)
        action = privileged.plan[0]
        defines = action != privileged.plan[-1]
        reason = "I write the function that the task asks for." if defines else "The function is defined, so I submit it."
        return Decision(reason=reason, action=action)


class PythonExpert:
    """The unprivileged baseline: it can write no program, so it submits a function that returns nothing."""

    def decide(self, history: History) -> Decision:
        """The next reason and action."""
        script = PythonTutor.idle["empty-function"]
        return Decision(reason="I know no better function.", action=script[min(len(history.actions), 1)])


class PythonSession(IntercodeSession):
    """One function being written, in an interpreter of its own. Addresses in what it prints differ from run to run."""

    repeats: ClassVar[bool] = False
    first: ClassVar[str] = "A Python session is open."

    def __init__(self, environment: PythonEnvironment, record: PythonRecord) -> None:
        super().__init__(environment.config.observation_limit)
        self._environment = environment
        self._record = record
        self._box = environment.boxes.open(_BOX)
        self._interpreter = Interpreter(self._box, environment.config.time_limit)
        self._actions: list[str] = []
        self._last = self.first

    def run(self, action: str) -> None:
        self._actions.append(action)
        try:
            self._last = str(self._interpreter.run(prepared(action)))
        except (SyntaxError, ValueError) as error:
            self._last = f"Error executing action: {error}"

    def shown(self) -> str:
        return self._last

    def value(self, submission: str) -> float:
        return self.judge(submitted_name(submission, self._actions))

    def judge(self, name: str | None) -> float:
        """The reward if the student submitted this function now."""
        replies = self._replies(name)
        return reward(replies, self._environment.gold_replies(self._record)) if replies is not None else 0.0

    def _replies(self, name: str | None) -> dict[str, Reply] | None:
        """What the tests say of a function; None where there is none.

        The student's interpreter only tells what the calls in a test return; whether that is right is found elsewhere.
        So whatever the student's code does to its interpreter, it passes no test but by the right value.
        """
        gold_name, tests = function_name(self._record.gold), self._record.tests
        if name is None or gold_name is None:
            return None
        mark, parts = secrets.token_hex(16), [taken_apart(test, self._record.gold) for test in tests]
        codes = [f"{VALUES}\nleap_tell({mark!r}, {calls})" for calls, _ in parts]
        said = self._interpreter.run_all([f"{gold_name} = {name}", self._record.test_setup_code, *codes])[2:]
        told = [reply.get("output", "").partition(mark) for reply in said]
        judged = self._environment.judged(self._record, [rest for _, rest in parts], [value for _, _, value in told])
        return {
            test: (reply if set(reply) == {"error"} else ENDED)  # it raised, or wrote something else in the value's place
            if not found
            else {"output": output.strip(), "error": reply.get("error", "")}
            if "output" in right
            else right
            for test, reply, (output, found, _), right in zip(tests, said, told, judged, strict=True)
        }

    def explain(self) -> list[tuple[str, str, str]]:
        """The reward that the last function would get, test by test."""
        replies = self._replies(submitted_name(SUBMIT, self._actions))
        if replies is None:
            return [("tests", "0", "no function is defined yet")]
        gold, share = self._environment.gold_replies(self._record), 1 / len(self._record.tests)
        return [(test[:60], f"{share * (said == gold[test]):.2f}", str(said)[:80]) for test, said in replies.items()]

    def privileged(self) -> PrivilegedState:
        gold, name = self._record.gold, function_name(self._record.gold)
        defined = gold in self._actions or defining(gold) in self._actions
        submit = f"{SUBMIT} {name}"
        return PrivilegedState(
            text=f"Task: {self._record.query}\nGold program:\n{gold}\nTests:\n" + "\n".join(self._record.tests),
            facts={"gold": gold, "tests": list(self._record.tests)},
            plan=None if name is None else (submit,) if defined else (defining(gold), submit),
            hopeless=name is None,
        )

    def close(self) -> None:
        self._box.close()
