"""InterCode Bash as a leap environment."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from leap.core import Decision, Episode, History, Observation, PrivilegedState, Task
from leap.envs.base import Environment, EnvironmentConfig, Finding, Outcome, Progress, Session, sampled, unknown_split
from leap.envs.grammar import Line
from leap.envs.live import called
from leap.envs.tutor import Taught, Tutor
from leap.errors import PrerequisiteError
from leap_worlds.intercode.bash.boxes import Boxes
from leap_worlds.intercode.bash.expert import BashExpert
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig
from leap_worlds.intercode.bash.generated.expert import GeneratedExpert
from leap_worlds.intercode.bash.generated.requests import Request
from leap_worlds.intercode.bash.generated.tasks import Family, GeneratedTask
from leap_worlds.intercode.bash.generated.teacher import GeneratedCoach
from leap_worlds.intercode.bash.generated.vocabulary import names, vocabulary
from leap_worlds.intercode.bash.images import ImageKind
from leap_worlds.intercode.bash.quoting import Malformed, is_submit, read_action
from leap_worlds.intercode.bash.reward import Parts
from leap_worlds.intercode.bash.similarity import similarity
from leap_worlds.intercode.bash.tasks import NOT_REPEATABLE, TEST_SPLITS, BashTask, load_tasks, split_tasks
from leap_worlds.intercode.bash.teacher import SUBMIT, Coach
from leap_worlds.intercode.bash.world import Compat, Limits, Shown, World, judge
from leap_worlds.intercode.data import IntercodeData
from leap_worlds.intercode.fetch import data_here, fetch_all
from leap_worlds.intercode.text import paths_in, shorten_output

if TYPE_CHECKING:
    from leap_worlds.sandbox.base import Sandbox

FIRST = "A new shell is open at /."


class BashConfig(EnvironmentConfig):
    """InterCode Bash's options in a recipe."""

    source: Literal["official", "generated"] = Field(
        default="official", description="NL2Bash's tasks, or a generated family of tasks and file systems of leap's own."
    )
    generator: BashFamilyConfig = Field(default_factory=lambda: BashFamilyConfig(), description="What to generate.")
    path: Path | None = Field(default=None, description="Upstream's data; $INTERCODE_DATA, or leap's cache, if null.")
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
    gold_time_limit: float = Field(default=30.0, gt=0, description="Seconds for the gold command.")
    observation_limit: int = Field(
        default=10_000, ge=200, description="Longest observation shown, in characters; the reward knows it whole."
    )


    @model_validator(mode="after")
    def _possible(self) -> BashConfig:
        if self.source == "official" and self.image == "machine":
            raise ValueError("image: machine is for source: generated; upstream's golds need Debian's programs (full or small)")
        return self


class BashEnvironment(Environment[BashConfig]):
    """NL2Bash (Lin et al. 2018) as InterCode has it (Yang et al. 2023): 200 requests to be fulfilled in a shell."""

    name: ClassVar[str] = "intercode-bash"
    Config: ClassVar[type[EnvironmentConfig]] = BashConfig
    test_splits: ClassVar[frozenset[str]] = TEST_SPLITS | {"unseen"}
    grammar = Line()
    gold_splits: ClassVar[tuple[str, ...]] = ("all",)

    def __init__(self, config: BashConfig | None = None) -> None:
        super().__init__(config)
        self.alone = threading.RLock()  # held by who uses the coach, or the boxes that it and the gold runs share
        self._family = Family(self.config.generator) if self.config.source == "generated" else None
        self._coach: Coach | None = None
        self._gold_run: tuple[str, World, Shown] | None = None
        self._tasks: dict[str, BashTask] | None = None
        self._boxes: Boxes | None = None

    def prepare(self, progress: Progress | None = None) -> None:
        """Reads the tasks, finds a sandbox that works and makes the four file systems' images, if they are not there yet."""
        similarity("", "")  # says at once if scikit-learn is missing
        self._load()
        if self._boxes is None and self._family is not None:
            from leap_worlds.intercode.bash.generated.images import open_generated_boxes

            self._boxes = open_generated_boxes(self.config.sandbox, self._family, self.config.image, progress)
        elif self._boxes is None:
            from leap_worlds.intercode.bash.images import open_boxes

            self._boxes = open_boxes(self.config.sandbox, IntercodeData(self.config.path), self.config.image, progress)

    def _load(self) -> dict[str, BashTask]:
        if self._tasks is None and self._family is not None:
            self._tasks = {task.id: task for split in self.config.generator.file_systems for task in self._split(split)}
        elif self._tasks is None:
            self._tasks = {task.id: task for task in load_tasks(IntercodeData(self.config.path))}
        return self._tasks

    @property
    def boxes(self) -> Boxes:
        """Where commands run."""
        if self._boxes is None:
            self.prepare()
        assert self._boxes is not None
        return self._boxes

    @classmethod
    def doctor(cls) -> list[Finding]:
        return data_here()

    def fetch_data(self, progress: Progress | None = None, *, source: str | None = None) -> list[Finding]:
        return fetch_all(self.config.path, source, progress)

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        chosen = sampled(self._split(split), split, limit, seed)
        return [
            Task(env=self.benchmark, split=split, id=task.id, instruction=task.query, kind=kind_of(task))
            for task in chosen
        ]

    def _split(self, split: str) -> Sequence[BashTask]:
        if self._family is None:
            return split_tasks(list(self._load().values()), split)
        if split not in self.config.generator.file_systems:
            raise unknown_split("the generated family", split, self.config.generator.file_systems)
        return self._family.split(split)

    @property
    def benchmark(self) -> str:
        """What numbers are of: `compat: fixed` and generated tasks are other benchmarks than InterCode's."""
        name = self.name if self._family is None else f"{self.name}-generated"
        return name if self.config.compat == "intercode" else f"{name}-{self.config.compat}"

    def record(self, task: Task) -> BashTask:
        """The task with its gold command.

        Raises:
            PrerequisiteError: It is not in the data at hand.
        """
        record = self._load().get(task.id)
        if record is None or record.query != task.instruction:
            raise PrerequisiteError(f"task {task.id!r} ({task.instruction[:60]!r}) is not in the data at hand.")
        return record

    def request(self, task_id: str) -> Request:
        """What a generated task's words say, in parts: what who reads them knows."""
        record = self._load()[task_id]
        assert isinstance(record, GeneratedTask)
        return record.request

    def start(self, task: Task) -> BashSession:
        return BashSession(self, task, self.record(task))

    def world(self, record: BashTask, box: Sandbox) -> World:
        """A task's world in a fresh box."""
        return World(
            box,
            compat=self.config.compat,
            limits=Limits(command=self.config.time_limit, gold=self.config.gold_time_limit),
            query=record.query,
        )

    def gold_world(self, record: BashTask) -> World:
        """A fresh world for a gold run; the one before is gone then."""
        self._gold_run = None
        return self.world(record, self.boxes.spare(record.file_system, "gold"))

    def roll_in_world(self, record: BashTask) -> World:
        """A fresh world for trying something; the one before is gone then."""
        return self.world(record, self.boxes.spare(record.file_system, "roll-in"))

    def walk_world(self, record: BashTask) -> World:
        """A fresh world to go along an episode in; the one before is gone then."""
        return self.world(record, self.boxes.spare(record.file_system, "walk"))

    def gold_run(self, record: BashTask) -> tuple[World, Shown]:
        """The world in which the gold was run, and what came of it. Asking for the same task again at once gives the same
        run, but where the gold tells of the moment."""
        if self._gold_run is None or self._gold_run[0] != record.id or record.id in NOT_REPEATABLE:
            gold = self.gold_world(record)
            self._gold_run = (record.id, gold, gold.run_gold(record.gold))
        return self._gold_run[1:]

    def judge(self, world: World, record: BashTask) -> Parts:
        """The reward of a world as it is now. The gold runs in a fresh box."""
        with self.alone:
            return judge(world, *self.gold_run(record), self.config.compat)

    @property
    def coach(self) -> Coach:
        """The scripted teacher with its roll-ins."""
        if self._coach is None:
            self._coach = Coach(self) if self._family is None else GeneratedCoach(self)
        return self._coach

    def expert(self) -> BashExpert | GeneratedExpert:
        """A fresh unprivileged expert of this kind of tasks."""
        return BashExpert() if self._family is None else GeneratedExpert(self.request)

    @property
    def tutor(self) -> BashTutor:
        return BashTutor(self)

    def privileged(self, record: BashTask) -> PrivilegedState:
        """The gold command and its output, as in the paper; the plan is that of the beginning."""
        with self.alone:
            output = self.coach.stages(record)[-1].output
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
        """For generated tasks: every word of their file systems, their requests and of what is said and done about them."""
        return () if self._family is None else vocabulary(self.config.generator.lexicon)

    def names(self) -> Sequence[str]:
        return () if self._family is None else names(self.config.generator.lexicon)

    def prompt_directory(self) -> Path:
        return Path(__file__).parents[1] / "prompts" / "bash"

    def versions(self) -> dict[str, str]:
        told = {self.benchmark: f"compat {self.config.compat}, sandbox {self.boxes.description}"}
        return told if self._family is None else told | {"family": self._family.fingerprint}

    def close(self) -> None:
        if self._boxes is not None:
            self._boxes.close()
            self._boxes = self._gold_run = None


class BashTutor(Tutor[BashEnvironment]):
    """The unprivileged expert, and the coach that tries its proposals in boxes."""

    blocking: ClassVar[bool] = True
    idle: ClassVar[Mapping[str, Sequence[str]]] = {
        "submit-at-once": (SUBMIT,),
        "true-then-submit": ("true", SUBMIT),
    }

    def expert(self, task: Task) -> BashExpert | GeneratedExpert:
        return self.environment.expert()

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        if privilege == 0:
            return self.environment.expert().decide(history)
        with self.environment.alone:
            advice = self.environment.coach.advise(history, privilege)
        if advice is None or advice.value < 1.0:
            return None
        return Decision(reason=advice.reason, action=advice.action)

    async def correct_along(self, episode: Episode, privilege: int) -> list[Taught]:
        """The teacher with its roll-ins, which also look at what came of the student's own action."""
        return await called(self._along, episode, privilege, blocking=True)

    def _along(self, episode: Episode, privilege: int) -> list[Taught]:
        environment = self.environment
        with environment.alone:
            state = environment.privileged(environment.record(episode.task))
            if privilege == 0:
                histories = [episode.history(t) for t in range(len(episode.steps))]
                return [Taught(history, state, environment.expert().decide(history)) for history in histories]
            return [
                Taught(history, state.model_copy(update={"plan": plan, "hopeless": plan is None}), decision)
                for history, decision, plan in environment.coach.along(episode, privilege)
            ]

    async def roll_in(self, history: History, action: str, left: int) -> float:
        return await called(self._worth, history, action, left, blocking=True)

    def _worth(self, history: History, action: str, left: int) -> float:
        with self.environment.alone:
            return self.environment.coach.worth(history, action, left)


def kind_of(task: BashTask) -> str:
    """What results are told apart by: the file system; of generated tasks, how the file is named."""
    if isinstance(task, GeneratedTask):
        return str(task.request.select or "none")
    return f"fs_{task.file_system}"


class BashSession(Session):
    """One task being worked on, in a box of its own. What programs print of times and processes differs from run to run."""

    repeats: ClassVar[bool] = False

    def __init__(self, environment: BashEnvironment, task: Task, record: BashTask) -> None:
        self._environment = environment
        self._record = record
        self._box = environment.boxes.open(record.file_system)
        self._world = environment.world(record, self._box)
        self._history = History(task=task, observations=(self.observe(),))

    def observe(self) -> Observation:
        return Observation(text=FIRST)

    def act(self, action: str) -> Outcome:
        if action == "skip":
            return Outcome(Observation(text="skipped"), done=True)
        if is_submit(action):
            parts = self.judge()
            return Outcome(self._show(self._world.last), reward=parts.total, done=True, success=parts.solved, score=parts.total)
        shown = self._show(self._world.act(action).text)
        self._history = self._history.extend(action, shown)
        return Outcome(shown)

    def judge(self) -> Parts:
        """The reward, part by part, if the student submitted now. Changes nothing."""
        return self._environment.judge(self._world, self._record)

    def explain(self) -> list[tuple[str, str, str]]:
        """The reward's parts as they are now: each with its value and why."""
        parts = self.judge()
        changes = [f"missing {c.status} {c.path}" for c in parts.missing] + [f"extra {c.status} {c.path}" for c in parts.extra]
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
        with self._environment.alone:
            advice = self._environment.coach.advise(self._history, 100, grounded=False)
        plan = advice.plan if advice is not None and advice.value == 1.0 else None
        return state.model_copy(update={"plan": plan, "hopeless": plan is None})

    def close(self) -> None:
        self._box.close()

    def _show(self, text: str) -> Observation:
        return Observation(text=shorten_output(text, self._environment.config.observation_limit))
