"""InterCode SQL: the reward, the databases that leap has itself, and the teacher, on a small dump of the test's own."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_intercode import sqlite_databases
from sqlite_databases import SqliteDatabases, rows, statements

from leap.core import Actor, Episode, History, Step, StopReason
from leap.envs.base import opened
from leap.errors import LeapError, PrerequisiteError, RecipeError
from leap_worlds.intercode.sql.env import SqlConfig, SqlEnvironment
from leap_worlds.intercode.sql.mariadb import find_server
from leap_worlds.intercode.sql.mysql import MySqlServer
from leap_worlds.intercode.sql.reward import kendall_tau, reward

DUMP = r"""
-- MySQL dump
CREATE USER 'admin'@'%' IDENTIFIED BY 'admin';
CREATE DATABASE IF NOT EXISTS `zoo` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;
USE `zoo`;
CREATE TABLE `animal` (
  `id` int NOT NULL,
  `name` text,
  `weight` double DEFAULT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
INSERT INTO `animal` VALUES (1,'bear; it\'s big',300.5),(2,'hare',NULL),(10,'owl',2);
"""
RECORDS = [
    {"db": "zoo", "query": "How many animals are there?", "gold": "SELECT count(*) FROM animal", "hardness": "easy",
     "db_tables": {"animal": ["id", "name", "weight"]}},
    {"db": "zoo", "query": "Names by number", "gold": "SELECT name FROM animal ORDER BY id", "hardness": "easy",
     "db_tables": {"animal": ["id", "name", "weight"]}},
    {"db": "zoo", "query": "A gold that fails", "gold": "SELEC 1", "hardness": "easy", "db_tables": {}},
]  # fmt: skip


@pytest.mark.parametrize(
    ("student", "gold", "value"),
    [
        ([(1,)], [(1,)], 1.0),
        ([], [], 1.0),
        (None, [], 0.0),
        ([(1,)], [], 0.0),
        ([(1,), (2,)], [(2,), (1,)], -1.0),
        ([(1,), (2,), (3,)], [(1,), (2,)], round(2 / 3, 2)),
        ([(1,), (1,)], [(1,)], 0.5),
        ([("10",), ("2",)], [("10",), ("2",)], 1.0),
        ([(2,)], [(2,), (3,)], 0.5),
    ],
)
def test_reward(student: list | None, gold: list, value: float) -> None:
    assert reward(student, gold) == pytest.approx(value)


@given(st.lists(st.tuples(st.integers(0, 4))), st.lists(st.tuples(st.integers(0, 4))))
def test_reward_is_within_bounds_and_full_for_the_gold_itself(student: list, gold: list) -> None:
    assert -1.0 <= reward(student, gold) <= 1.0
    assert reward(gold, gold) == 1.0


@given(st.lists(st.sampled_from("abc"), min_size=2), st.randoms())
def test_kendall_tau_is_tau_b(first: list[str], random: object) -> None:
    second = sorted(first, key=lambda _: random.random())  # type: ignore[attr-defined]
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]

    def sign(texts: list[str], i: int, j: int) -> int:
        return (texts[i] > texts[j]) - (texts[i] < texts[j])

    num = sum(sign(first, i, j) * sign(second, i, j) for i, j in pairs)
    den = math.sqrt(sum(sign(first, *p) ** 2 for p in pairs) * sum(sign(second, *p) ** 2 for p in pairs))
    tau = kendall_tau(first, second)
    assert math.isnan(tau) if den == 0 else tau == pytest.approx(num / den)


def test_dump_is_read_statement_by_statement() -> None:
    found = list(statements(DUMP))
    assert [statement.split()[0] for statement in found if statement] == ["CREATE", "CREATE", "USE", "CREATE", "INSERT"]
    values = found[4].partition("VALUES")[2]
    assert list(rows(values)) == [[1, "bear; it's big", 300.5], [2, "hare", None], [10, "owl", 2]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intercode")
    (folder / "sql" / "spider").mkdir(parents=True)
    (folder / "sql" / "spider" / "ic_spider_dbs.sql").write_text(DUMP, encoding="utf-8")
    (folder / "sql" / "spider" / "ic_spider_dev.json").write_text(json.dumps(RECORDS), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.engine)])
def world(request: pytest.FixtureRequest, data: Path) -> Iterator[SqlEnvironment]:
    if request.param == "mariadb" and find_server() is None:
        pytest.skip("there is no MariaDB server on this machine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAP_CACHE", str(data / "cache"))
        backend = sqlite_databases(data) if request.param == "sqlite" else None
        environment = SqlEnvironment(SqlConfig(path=data), backend)
        environment.prepare()
        yield environment
        environment.close()


def play(environment: SqlEnvironment, number: int, actions: list[str]) -> Episode:
    task = environment.tasks("all")[number]
    steps = []
    with opened(environment, task) as session:
        shown = session.observe()
        outcome = None
        for action in actions:
            outcome = session.act(action)
            steps.append(Step(observation=shown, action=action, reward=outcome.reward))
            shown = outcome.observation
    assert outcome is not None
    stop = StopReason.ENDED if outcome.done else StopReason.HORIZON
    return Episode(task=task, actor=Actor(name="student"), horizon=10, steps=tuple(steps), final=shown,
                   score=outcome.score, success=outcome.success, stop=stop)  # fmt: skip


def test_gold_scores_and_what_cannot_is_known(world: SqlEnvironment) -> None:
    for number in (0, 1):
        assert play(world, number, [RECORDS[number]["gold"], "submit"]).score == 1.0
    broken = world.tasks("all")[2]
    assert world.why_unsolvable(broken)
    with opened(world, broken) as session:
        assert session.privileged().plan is None


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO animal VALUES (3, 'x', 1)", "DELETE FROM animal", "DROP TABLE animal", "CREATE TABLE x (a int)",
     "START TRANSACTION READ WRITE", "COMMIT", "SET SESSION TRANSACTION READ WRITE"],
)  # fmt: skip
def test_nothing_is_changed(world: SqlEnvironment, statement: str) -> None:
    episode = play(world, 0, [statement, "DELETE FROM animal", RECORDS[0]["gold"], "submit"])
    assert episode.steps[3].observation.text == "[(3,)]"
    assert episode.success


@given(statement=st.text())
def test_no_statement_raises(world: SqlEnvironment, statement: str) -> None:
    play(world, 0, [statement, statement, "submit"])


def test_a_statement_without_end_is_stopped(world: SqlEnvironment, data: Path) -> None:
    slow = SqlEnvironment(world.config.model_copy(update={"time_limit": 0.5}), world.backend)  # the same server, another limit
    endless = "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n WHERE x < 1000000000) SELECT max(x) FROM n"
    if isinstance(world.backend, SqliteDatabases):
        assert "Error" in play(slow, 0, [endless]).final.text
    else:
        assert "Error" in play(slow, 0, ["SET SESSION max_statement_time = 0", "SELECT SLEEP(20)"]).final.text


def test_slow_statements_run_at_once(world: SqlEnvironment) -> None:
    if isinstance(world.backend, SqliteDatabases):
        pytest.skip("SQLite has no SLEEP")
    world.backend.close()  # 16 threads find no server
    with ThreadPoolExecutor(16) as threads, ExitStack() as stack:
        sessions = list(threads.map(lambda _: stack.enter_context(opened(world, world.tasks("all")[0])), range(16)))
        began = time.monotonic()
        shown = list(threads.map(lambda session: session.act("SELECT SLEEP(1), 7").observation.text, sessions))
        took = time.monotonic() - began
        assert shown == ["[(0, 7)]"] * 16 and took < 5  # 16 s one after another
        assert all(session.act(RECORDS[0]["gold"]) and session.act("submit").success for session in sessions)


def test_long_results_are_shown_in_part_and_scored_whole(world: SqlEnvironment) -> None:
    short = SqlEnvironment(world.config.model_copy(update={"rows_shown": 1}), world.backend)
    episode = play(short, 1, [RECORDS[1]["gold"], "submit"])
    assert "3 rows in all, 1 shown" in episode.final.text
    assert episode.success


def test_teacher_looks_up_before_it_names(world: SqlEnvironment) -> None:
    task = world.tasks("all")[1]
    actions = []
    with opened(world, task) as session:
        history = History(task=task, observations=(session.observe(),))
        outcome = None
        for _ in range(6):
            decision = world.tutor.correct(history, session.privileged(), 50)
            assert decision is not None and decision.reason
            actions.append(decision.action)
            outcome = session.act(decision.action)
            history = history.extend(decision.action, outcome.observation)
            if outcome.done:
                break
    assert outcome is not None and outcome.success
    assert actions == ["SHOW TABLES", "DESC animal", RECORDS[1]["gold"], "submit"]


def test_teacher_leaves_good_steps_and_mends_the_others(world: SqlEnvironment) -> None:
    episode = play(world, 1, ["SHOW TABLES", "SELECT nme FROM animal", "submit"])
    decisions = [decision for _, _, decision in asyncio.run(world.tutor.correct_along(episode, 50))]
    assert [d.action if d else None for d in decisions] == ["SHOW TABLES", "DESC animal", "DESC animal"]
    hopeless = play(world, 2, ["SHOW TABLES", "submit"])
    assert [d for _, _, d in asyncio.run(world.tutor.correct_along(hopeless, 50))][-1] is None


def test_at_privilege_0_the_hidden_state_does_not_matter(world: SqlEnvironment) -> None:
    task = world.tasks("all")[0]
    with opened(world, task) as session:
        history, state = History(task=task, observations=(session.observe(),)), session.privileged()
    other = state.model_copy(update={"facts": {}, "text": "", "plan": None})
    tutor = world.tutor
    assert tutor.correct(history, state, 0) == tutor.correct(history, other, 0) == tutor.expert(task).decide(history)


def test_what_is_missing_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="neither mariadb nor"):
        SqlEnvironment(SqlConfig(path=data, database="oracle"))
    with pytest.raises(PrerequisiteError, match="mysql://"):
        MySqlServer("mysql://")
    monkeypatch.setattr("leap_worlds.intercode.sql.mariadb.find_server", lambda: None)
    with pytest.raises(PrerequisiteError, match="apt-get install mariadb-server"):
        SqlEnvironment(SqlConfig(path=data)).prepare()
    with pytest.raises(LeapError, match="cannot reach"):
        nowhere = SqlEnvironment(SqlConfig(path=data, database="mysql://x@127.0.0.1:1/"))
        nowhere.start(nowhere.tasks("all")[0])
