"""InterCode Bash as a leap environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from leap.core import Decision, Episode, History, Observation, PrivilegedState, Task
from leap.envs.base import Environment, EnvironmentConfig, Finding, Outcome, Progress
from leap.envs.live import called
from leap.envs.tutor import Expert, Taught, Tutor
from leap_worlds.intercode.base import BoxedEnvironment, Boxes, IntercodeSession, Pool
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig
from leap_worlds.intercode.bash.generated.family import Family
from leap_worlds.intercode.bash.images import ImageKind
from leap_worlds.intercode.bash.quoting import Malformed, is_submit, read_action
from leap_worlds.intercode.bash.reward import Parts, similarity
from leap_worlds.intercode.bash.source import Nl2Bash, Source
from leap_worlds.intercode.bash.tasks import NOT_REPEATABLE, BashTask
from leap_worlds.intercode.bash.teacher import Coach, Memory
from leap_worlds.intercode.bash.world import Compat, Rules, World
from leap_worlds.intercode.bash.worlds import Worlds
from leap_worlds.intercode.text import SUBMIT, paths_in, shorten_output


class ShellConfig(EnvironmentConfig):
    """Options of every Bash environment."""

    gone: ClassVar[dict[str, object]] = {"gold_time_limit": 30.0}

    compat: Compat = Field(
        default="intercode",
        description="intercode: upstream's rules. fixed: true quoting, true cd, all contents checked; another benchmark.",
    )
    sandbox: str = Field(default="auto", description="Where commands run: namespace, docker; auto takes the first that works.")
    image: ImageKind = Field(
        default="full",
        description="What the file systems are put on. full: Debian with upstream's packages; small: without imagemagick; "
        "machine: this machine's own programs, in seconds and without a download (generated tasks alone).",
    )
    time_limit: float = Field(default=10.0, gt=0, description="Seconds for a command.")
    observation_limit: int = Field(
        default=10_000, ge=200, description="Longest observation shown, in characters; the reward knows it whole."
    )


class BashConfig(ShellConfig):
    """InterCode Bash's options in a recipe."""

    source: Literal["official", "generated"] = Field(
        default="official", description="NL2Bash's tasks, or a generated family of tasks and file systems of leap's own."
    )
    generator: BashFamilyConfig = Field(default_factory=BashFamilyConfig, description="What to generate.")
    path: Path | None = Field(default=None, description="Upstream's data; $INTERCODE_DATA, or leap's cache, if null.")

    @model_validator(mode="after")
    def _possible(self) -> BashConfig:
        if self.source == "official" and self.image == "machine":
            raise ValueError("image: machine is for source: generated; upstream's golds need Debian's programs (full or small)")
        return self


class GeneratedConfig(ShellConfig):
    """Options of generated Bash tasks in a recipe."""

    generator: BashFamilyConfig = Field(default_factory=BashFamilyConfig, description="What to generate.")
    image: ImageKind = Field(
        default="machine",
        description="What the file systems are put on. machine: this machine's own programs, in seconds and without a download; "
        "full: Debian with InterCode's packages; small: without imagemagick.",
    )


C = TypeVar("C", bound=ShellConfig, covariant=True)


class ShellEnvironment(BoxedEnvironment[C, BashTask]):
    """Requests to be fulfilled in a shell, by InterCode's rules, whatever the source of the tasks."""

    prompts: ClassVar[str] = "bash"

    def __init__(self, config: C, source: Source) -> None:
        super().__init__(config)
        self.source = source
        self.gold_splits = source.gold_splits  # pyright: ignore[reportAttributeAccessIssue] - the options decide
        self.rules = Rules(config.compat, config.time_limit)
        memory = Memory()
        self._coaches = Pool(lambda: source.coach(Worlds(self.boxes, self.rules, self.record), memory), Coach.close)

    def prepare(self, progress: Progress | None = None) -> None:
        similarity("", "")  # says at once if scikit-learn is missing
        super().prepare(progress)

    def open_boxes(self, progress: Progress | None) -> Boxes:
        return self.source.open_boxes(self.config.sandbox, self.config.image, progress)

    def read_records(self) -> dict[str, BashTask]:
        return {task.id: task for split in self.gold_splits for task in self.source.split(split)}

    def split(self, name: str) -> list[tuple[str, BashTask]]:
        return [(task.id, task) for task in self.source.split(name)]

    def coaching(self, record: BashTask) -> AbstractContextManager[Coach]:
        """A scripted teacher with roll-ins, for this thread alone during the `with` block."""
        return self._coaches.lent(record.id)

    @property
    def benchmark(self) -> str:
        """The benchmark's name in records: `compat: fixed` and generated tasks are other benchmarks than InterCode's."""
        name = self.source.benchmark
        return name if self.config.compat == "intercode" else f"{name}-{self.config.compat}"

    def start(self, task: Task) -> BashSession:
        return BashSession(self, task, self.record(task))

    @property
    def tutor(self) -> BashTutor:
        return BashTutor(self)

    def privileged(self, record: BashTask) -> PrivilegedState:
        """The gold command and its output, as in the paper; the plan is that of the beginning."""
        with self.coaching(record) as coach:
            output = coach.stages(record)[-1].output
        shown = shorten_output(output, self.config.observation_limit)
        return PrivilegedState(
            text=f"Task: {record.query}\nGold command: {record.gold}\nIts output:\n{shown or '(none)'}",
            facts={"gold": record.gold, "output": output, "file_system": record.file_system},
            plan=(record.gold, SUBMIT),
        )

    def valid(self, action: str, observation: Observation) -> bool:
        """Any command that upstream's rules can read; what it does is judged by running it."""
        if self.config.compat == "intercode" and not is_submit(action):
            try:
                read_action(action, "/")
            except Malformed:
                return False
        return bool(action.strip())

    def entities(self, text: str) -> set[str]:
        return paths_in(text)

    def why_unsolvable(self, task: Task) -> str:
        """Why the gold need not score 1.0 against itself; empty where it must."""
        return NOT_REPEATABLE.get(task.id, "")

    def vocabulary(self) -> Sequence[str]:
        return self.source.vocabulary()

    def names(self) -> Sequence[str]:
        return self.source.names()

    def versions(self) -> dict[str, str]:
        played = f"compat {self.config.compat}, sandbox {self.boxes.description}"
        return {self.benchmark: played, **self.source.versions()}

    def close(self) -> None:
        self._coaches.close()
        super().close()


class BashEnvironment(ShellEnvironment[BashConfig]):
    """NL2Bash (Lin et al. 2018) as InterCode has it (Yang et al. 2023): 200 requests to be fulfilled in a shell. With
    `source: generated`, the tasks of `GeneratedBashEnvironment`."""

    name: ClassVar[str] = "intercode-bash"
    Config: ClassVar[type[EnvironmentConfig]] = BashConfig
    test_splits: ClassVar[frozenset[str]] = frozenset({"test", "code-0.7-test", "all", "unseen"})

    def __init__(self, config: BashConfig | None = None) -> None:
        config = config or BashConfig()
        super().__init__(config, Family(config.generator) if config.source == "generated" else Nl2Bash(config.path))


class GeneratedBashEnvironment(ShellEnvironment[GeneratedConfig]):
    """Requests and file systems of leap's own, generated by a seed, in InterCode's schema and under its rules."""

    name: ClassVar[str] = "intercode-generated"
    Config: ClassVar[type[EnvironmentConfig]] = GeneratedConfig
    test_splits: ClassVar[frozenset[str]] = frozenset({"unseen"})
    fetch_data = Environment.fetch_data  # nothing of upstream's is needed

    def __init__(self, config: GeneratedConfig | None = None) -> None:
        config = config or GeneratedConfig()
        super().__init__(config, Family(config.generator))

    @classmethod
    def doctor(cls) -> Sequence[Finding]:
        return ()


class BashTutor(Tutor[ShellEnvironment[ShellConfig]]):
    """The unprivileged expert, and the coach that tries its proposals in boxes."""

    blocking: ClassVar[bool] = True
    idle: ClassVar[Mapping[str, Sequence[str]]] = {"submit-at-once": (SUBMIT,), "true-then-submit": ("true", SUBMIT)}

    def expert(self, task: Task) -> Expert:
        return self.environment.source.expert()

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        if privilege == 0:
            return self.environment.source.expert().decide(history)
        with self.environment.coaching(self.environment.record(history.task)) as coach:
            advice = coach.advise(history, privilege)
        if advice is None or advice.value < 1.0:
            return None
        return Decision(reason=advice.reason, action=advice.action)

    async def correct_along(self, episode: Episode, privilege: int) -> list[Taught]:
        """The teacher with its roll-ins, which also look at what came of the student's own action."""
        return await called(self._along, episode, privilege, blocking=True)

    def _along(self, episode: Episode, privilege: int) -> list[Taught]:
        record = self.environment.record(episode.task)
        state, expert = self.environment.privileged(record), self.environment.source.expert()
        if privilege == 0:
            histories = [episode.history(t) for t in range(len(episode.steps))]
            return [Taught(history, state, expert.decide(history)) for history in histories]
        with self.environment.coaching(record) as coach:
            return [
                Taught(history, state.model_copy(update={"plan": plan, "hopeless": plan is None}), decision)
                for history, decision, plan in coach.along(episode, privilege)
            ]

    async def roll_in(self, history: History, action: str, left: int) -> float:
        return await called(self._worth, history, action, left, blocking=True)

    def _worth(self, history: History, action: str, left: int) -> float:
        with self.environment.coaching(self.environment.record(history.task)) as coach:
            return coach.worth(history, action, left)


class BashSession(IntercodeSession):
    """One task being worked on, in a box of its own. What programs print of times and processes differs from run to run."""

    repeats: ClassVar[bool] = False
    first: ClassVar[str] = "A new shell is open at /."

    def __init__(self, environment: ShellEnvironment[ShellConfig], task: Task, record: BashTask) -> None:
        super().__init__(environment.config.observation_limit)
        self._environment = environment
        self._record = record
        self._box = environment.boxes.open(record.file_system)
        self._world = World(self._box, environment.rules, record.query)
        self._history = History(task=task, observations=(self.observe(),))

    def run(self, action: str) -> None:
        self._world.act(action)
        self._history = self._history.extend(action, self.observation())

    def shown(self) -> str:
        return self._world.last

    def act(self, action: str) -> Outcome:
        outcome = super().act(action)
        return outcome._replace(done=True) if self._world.gone else outcome

    def value(self, submission: str) -> float:
        total = self.judge().total
        return 0.0 if self._world.gone else total

    def judge(self) -> Parts:
        """The reward, part by part, if the student submitted now. Changes nothing."""
        with self._environment.coaching(self._record) as coach:
            return coach.worlds.judge(self._world, self._record)

    def explain(self) -> list[tuple[str, str, str]]:
        """The reward's parts as they are now: each with its value and why."""
        parts = self.judge()
        changes = [f"missing {c.status} {c.path}" for c in parts.missing]
        changes += [f"extra {c.status} {c.path}" for c in parts.extra]
        rows = [
            ("submitting", "0.01", ""),
            ("changed paths", f"{parts.diff:.2f}", "; ".join(changes) or "as the gold"),
            ("new files' contents", f"{parts.content:.2f}", "; ".join(f"unlike {c.path}" for c in parts.unlike) or "as the gold"),
            ("last output", f"{parts.answer:.2f}", f"cosine with the gold's {parts.similarity:.3f}"),
            ("in all", f"{parts.total:.2f}", "solved" if parts.solved else "not solved"),
        ]
        return rows + ([("upstream", "", f"would raise: {parts.upstream_error}")] if parts.upstream_error else [])

    def privileged(self) -> PrivilegedState:
        state = self._environment.privileged(self._record)
        if not self._history.actions:
            return state
        with self._environment.coaching(self._record) as coach:
            advice = coach.advise(self._history, 100, grounded=False)
        plan = advice.plan if advice is not None and advice.value == 1.0 else None
        return state.model_copy(update={"plan": plan, "hopeless": plan is None})

    def close(self) -> None:
        self._box.close()
