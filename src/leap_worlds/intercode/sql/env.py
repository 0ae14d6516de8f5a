"""InterCode SQL as a leap environment: questions about 20 databases, answered by statements to a server."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from leap.core import Decision, Episode, History, Observation, PrivilegedState, Task
from leap.envs.base import EnvironmentConfig, Progress
from leap.envs.live import states_along
from leap.envs.tutor import Taught, Tutor
from leap.errors import RecipeError
from leap_worlds.intercode.base import IntercodeEnvironment, IntercodeSession, UpstreamConfig
from leap_worlds.intercode.data import IntercodeData, SqlRecord
from leap_worlds.intercode.sql.mariadb import ManagedMariaDb
from leap_worlds.intercode.sql.mysql import Answer, MySqlServer, SqlLimits
from leap_worlds.intercode.sql.reward import reward
from leap_worlds.intercode.sql.teacher import SqlExpert, looks_up, teach
from leap_worlds.intercode.text import SUBMIT, shorten_output

Server = ManagedMariaDb | MySqlServer
BRINGS_ON = "This brings me nearer to the answer."
AT_LAST = "This is my last action, and only what is submitted counts, so I submit."
MALFORMED_GOLD = "MariaDB and MySQL 8 cannot parse the gold: upstream's data"


class SqlConfig(UpstreamConfig):
    """InterCode SQL's options in a recipe."""

    database: str = Field(
        default="mariadb", description="mariadb: leap starts the one it finds. mysql://user:password@host:port/: yours."
    )
    time_limit: float = Field(default=10.0, gt=0, description="Seconds for a statement.")
    rows_shown: int = Field(default=100, ge=1, description="Rows of a result that are shown; the reward knows them all.")


class SqlEnvironment(IntercodeEnvironment[SqlConfig, SqlRecord]):
    """Spider's dev set (Yu et al. 2018) as InterCode has it (Yang et al. 2023): 1,034 questions, put to the database
    that the options name unless another is given."""

    name: ClassVar[str] = "intercode-sql"
    Config: ClassVar[type[EnvironmentConfig]] = SqlConfig
    prompts: ClassVar[str] = "sql"

    def __init__(self, config: SqlConfig | None = None, backend: Server | None = None) -> None:
        super().__init__(config)
        database = self.config.database
        if database != "mariadb" and not database.startswith("mysql://"):
            raise RecipeError(f"database: {database!r} is neither mariadb nor an address mysql://...")
        self._opening = threading.Lock()
        self._backend = backend

    def prepare(self, progress: Progress | None = None) -> None:
        """Reads the questions, and loads the databases where leap has them itself."""
        reward([(1,), (2,)], [(1,), (2,)])  # says at once if SciPy is missing
        self.backend.prepare()
        self.records()

    @property
    def backend(self) -> Server:
        """Where statements run."""
        with self._opening:
            if self._backend is None:
                if self.config.database.startswith("mysql://"):
                    self._backend = MySqlServer(self.config.database)
                else:
                    dump = IntercodeData(self.config.path).file("data/sql/spider/ic_spider_dbs.sql")
                    self._backend = ManagedMariaDb(dump)
            return self._backend

    def read_records(self) -> dict[str, SqlRecord]:
        return {f"dev/{i}": record for i, record in enumerate(IntercodeData(self.config.path).sql())}

    def start(self, task: Task) -> SqlSession:
        return SqlSession(self, self.record(task))

    @property
    def tutor(self) -> SqlTutor:
        return SqlTutor(self)

    def valid(self, action: str, observation: Observation) -> bool:
        """Any statement; the server judges it."""
        return bool(action.strip())

    def entities(self, text: str) -> set[str]:
        """Names with an underscore or an inner capital: those of tables and columns that are no plain words."""
        return {word for word in text.replace(".", " ").replace(",", " ").replace("`", " ").split() if _is_name(word)}

    def why_unsolvable(self, task: Task) -> str:
        session = self.start(task)
        error = session.gold.error
        session.close()
        return f"{MALFORMED_GOLD} ({error[:80]}...)" if error else ""

    def versions(self) -> dict[str, str]:
        return {self.benchmark: self.backend.description}

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()


class SqlTutor(Tutor[SqlEnvironment]):
    """The expert that looks around and asks for whole tables, and the teacher that knows the gold statement."""

    idle: ClassVar[Mapping[str, Sequence[str]]] = {"submit-at-once": (SUBMIT,)}

    def expert(self, task: Task) -> SqlExpert:
        return SqlExpert()

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        return teach(history, privileged, privilege)

    async def correct_along(self, episode: Episode, privilege: int) -> list[Taught]:
        """As `correct` says, but a step of the student's that brings the task on is left as it is."""
        states, taught = await states_along(self.environment, episode, after_last=True), []
        for t, step in enumerate(episode.steps):
            history, state, after = episode.history(t), states[t], states[t + 1]
            submits, solved = step.action.startswith(SUBMIT), state.facts["solved"]
            solves = solved if submits else after.facts["solved"] > solved
            decision = self.correct(history, state, privilege)
            if privilege and (solves or looks_up(step.action, history, state)):
                decision = Decision(reason=step.reason or BRINGS_ON, action=step.action)
            elif privilege and t == episode.horizon - 1:  # time is left for nothing but to submit
                better = state.facts["solved"] or state.facts["reward"] > episode.score
                decision = Decision(reason=AT_LAST, action=SUBMIT) if better else None
            taught.append(Taught(history, state, decision))
        return taught


class SqlSession(IntercodeSession):
    """One question being answered, by one connection that cannot change anything."""

    first: ClassVar[str] = "You are connected to a database."

    def __init__(self, environment: SqlEnvironment, record: SqlRecord) -> None:
        super().__init__(environment.config.observation_limit)
        self._environment = environment
        self._record = record
        self._limits = SqlLimits(seconds=environment.config.time_limit)
        self._connection = environment.backend.connect(record.db, self._limits)
        self._last = Answer()
        self._gold: Answer | None = None

    def run(self, action: str) -> None:
        self._last = self._connection.run(action)

    def shown(self) -> str:
        return self._last.text(self._environment.config.rows_shown)

    def value(self, submission: str) -> float:
        return self.judge()

    def judge(self) -> float:
        """The reward if the student submitted now."""
        student = self._last.rows if not self._last.error else None
        return reward(student, self.gold.rows if not self.gold.error else [])

    def explain(self) -> list[tuple[str, str, str]]:
        """The reward as it is now, and why."""
        mine, gold = self._last.rows, self.gold.rows
        if mine is None:
            why = "the last statement failed" if self._last.error else "there is no result yet"
        else:
            why = f"{len(mine)} rows, the gold has {len(gold or [])}; by common rows and their order"
        return [("last result", f"{self.judge():g}", why)]

    @property
    def gold(self) -> Answer:
        """What the gold gives, on a connection of its own: what a student does to its session does not reach it."""
        if self._gold is None:
            connection = self._environment.backend.connect(self._record.db, self._limits)
            self._gold = connection.run(self._record.gold)
            connection.close()
        return self._gold

    def privileged(self) -> PrivilegedState:
        value = self.judge()
        solved = value == 1
        possible = not self.gold.error
        config = self._environment.config
        tables = {name: list(columns) for name, columns in self._record.db_tables.items()}
        facts = {"gold": self._record.gold, "solved": solved, "reward": value, "possible": possible, "tables": tables}
        result = shorten_output(self.gold.text(config.rows_shown), config.observation_limit)
        return PrivilegedState(
            text=f"Task: {self._record.query}\nGold statement: {self._record.gold}\nIts result: {result}",
            facts=facts,
            plan=(SUBMIT,) if solved else (self._record.gold, SUBMIT) if possible else None,
            hopeless=not solved and not possible,
        )

    def close(self) -> None:
        self._connection.close()


def _is_name(word: str) -> bool:
    word = word.strip("'\"();=?!:")
    return word.isidentifier() and ("_" in word.strip("_") or (word[1:] != word[1:].lower() and word != word.upper()))
