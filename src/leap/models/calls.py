"""What was asked and answered in each call, for people to read: kept beside the ledger's rows, in the same file.

A request is kept packed, with the first one of its stage and model as dictionary, for the prompts of a stage share most of their
text. Keys and headers are no part of a request.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import Field

from leap.config import Section
from leap.core import JsonObject
from leap.models.base import Request

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS asked (
    call INTEGER PRIMARY KEY,   -- its id among the calls
    task TEXT NOT NULL,
    step INTEGER,               -- null where it is about a whole episode
    problem TEXT NOT NULL,      -- why the answer could not be used; empty where it could
    base INTEGER,               -- the call whose request serves as dictionary
    request BLOB NOT NULL       -- empty where it is not kept
);
"""
_WINDOW = 1 << 15  # bytes of a dictionary that zlib looks at

UNPAID = "unpaid "
"""How the keys of calls begin that cost nothing."""
Outcome = Literal["read", "unread", "empty", "cut-off", "failed"]
"""What came of a call: an answer of which all could be used; one of which not all could; one without a word; one that ended for
want of tokens; none."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class CallsSection(Section):
    """What is kept of calls for `leap calls` (answers of endpoints always are, for the run itself); and whether a few are made
    beforehand. Part of a recipe, under `calls`."""

    keep: bool = Field(default=True, description="Keep the prompts, too.")
    most_mb: float = Field(default=500, gt=0, description="Keep prompts up to so many MB of the file, packed.")
    self_test: bool = Field(
        default=True,
        description="Before anything else ask a model teacher about a few steps of a training task, and end where nothing of its "
        "answers can be used.",
    )


class AskedStore:
    """Keeps requests in a ledger's file.

    Args:
        db: The file.
        section: What to keep.
    """

    def __init__(self, db: sqlite3.Connection, section: CallsSection) -> None:
        self._db, self._section = db, section
        self._bases: dict[tuple[str, str], tuple[int, bytes]] = {}  # by stage and model
        self._left = int(section.most_mb * 1e6) if section.keep else 0
        if section.keep:
            db.executescript(SCHEMA)
            answers = f"SELECT COALESCE(SUM(LENGTH(text)), 0) FROM calls WHERE key LIKE '{UNPAID}%'"
            prompts = "SELECT COALESCE(SUM(LENGTH(request)), 0) FROM asked"
            self._left -= sum(db.execute(size).fetchone()[0] for size in (prompts, answers))

    @property
    def open(self) -> bool:
        """Whether calls are kept that are for people alone: prompts are, and there is room for more."""
        return self._left > 0

    def keep(self, call: int, stage: str, model: str, request: Request, answer: int = 0) -> None:
        """Keeps what was asked in a call that is booked, whose answer takes so much of the room."""
        if not self._section.keep:
            return
        base, packed = None, b""
        if self._left > 0:
            text = json.dumps(_told(request)).encode()
            base, beginning = self._bases.setdefault((stage, model), (call, text))
            packed = _packed(text, b"" if base == call else beginning)
            self._left -= len(packed) + answer
            if self._left <= 0:
                log.warning("the prompts on file fill calls.most_mb (%g); later ones are not kept", self._section.most_mb)
        task = request.task.encode("utf-8", "replace").decode()
        what = (call, task, request.step, "", None if base == call else base, packed)
        self._db.execute("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?, ?, ?)", what)

    def note(self, key: str, problem: str) -> None:
        """Notes why the answer to a request could not be used."""
        if self._section.keep:
            latest = "(SELECT MAX(id) FROM calls WHERE key = ? AND error = '')"
            self._db.execute(f"UPDATE asked SET problem = ? WHERE call = {latest}", (problem, key))


def _told(request: Request) -> JsonObject:
    more = {name: getattr(request, name) for name in ("choices", "schema", "tools", "stop", "warmer", "hot")}
    return {"messages": list(request.messages), "seed": request.seed} | {name: one for name, one in more.items() if one}


def _packed(text: bytes, beginning: bytes) -> bytes:
    packer = zlib.compressobj(6, zdict=beginning[-_WINDOW:]) if beginning else zlib.compressobj(6)
    return packer.compress(text) + packer.flush()


def _unpacked(packed: bytes, beginning: bytes) -> bytes:
    return (zlib.decompressobj(zdict=beginning[-_WINDOW:]) if beginning else zlib.decompressobj()).decompress(packed)


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as it is on file.

    Attributes:
        number: Its number in the file, from 1.
        at: When it was answered, UTC.
        stage: Label of the stage.
        model: `provider/model`.
        task, step: What it was about; an empty name and None where that is not on file, None for a whole episode.
        outcome: What came of it.
        problem: What was wrong with the answer, or the error of a call that failed; empty where nothing was.
        tokens_in, tokens_out: Tokens of prompt and answer.
        cost: USD.
        latency: Seconds, retries included.
        answer: The text.
        request: What was asked; None where it is not on file.
    """

    number: int
    at: str
    stage: str
    model: str
    task: str
    step: int | None
    outcome: Outcome
    problem: str
    tokens_in: int
    tokens_out: int
    cost: float
    latency: float
    answer: str
    request: JsonObject | None

    @property
    def about(self) -> str:
        """Task and step, for people."""
        return f"task {self.task}{'' if self.step is None else f', step {self.step}'}" if self.task else ""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls are meant: those that meet all that is given. `stage` is a whole label or its first word, `model` and `task`
    are parts of names."""

    number: int | None = None
    stage: str | None = None
    model: str | None = None
    task: str | None = None
    step: int | None = None
    outcome: Outcome | None = None


_OUTCOME = (
    "CASE WHEN error != '' THEN 'failed' WHEN truncated THEN 'cut-off' WHEN TRIM(text, ' \n\t') IN ('', x'') THEN 'empty' "
    "WHEN problem != '' THEN 'unread' ELSE 'read' END"
)


def calls_in(db: sqlite3.Connection, wanted: CallFilter, newest: int | None = None) -> Iterator[Call]:
    """The calls of a ledger's file, oldest first; the newest so many of them where a number is given."""
    kept = db.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'asked'").fetchone()[0]
    joined = "calls LEFT JOIN asked ON asked.call = calls.id" if kept else _WITHOUT
    conditions = {
        "id = ?": wanted.number,
        "(stage = ? OR stage LIKE ? || ' %')": wanted.stage,
        "INSTR(provider || '/' || model, ?)": wanted.model,
        "INSTR(task, ?)": wanted.task,
        "step = ?": wanted.step,
        f"{_OUTCOME} = ?": wanted.outcome,
    }
    given = {condition: value for condition, value in conditions.items() if value is not None}
    values = [value for condition, value in given.items() for _ in range(condition.count("?"))]
    rows = db.execute(
        f"SELECT id, at, stage, provider || '/' || model, COALESCE(task, ''), step, {_OUTCOME}, COALESCE(problem, ''), "
        f"tokens_in, tokens_out, cost, latency, text, error, base, COALESCE(request, x'') FROM {joined} "
        f"WHERE {' AND '.join(given) or '1'} ORDER BY id DESC LIMIT ?",
        (*values, -1 if newest is None else newest),
    ).fetchall()
    bases: dict[int | None, bytes] = {None: b""}
    for row in reversed(rows):
        number, at, stage, model, task, step, outcome, problem, *figures, text, error, base, packed = row
        if base not in bases:
            bases[base] = _unpacked(db.execute("SELECT request FROM asked WHERE call = ?", (base,)).fetchone()[0], b"")
        request = json.loads(_unpacked(packed, bases[base])) if packed else None
        answer = text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else text
        tokens_in, tokens_out, cost, latency = figures
        told, spent = problem or error, (tokens_in, tokens_out, cost, latency)
        yield Call(number, at, stage, model, task, step, outcome, told, *spent, answer, request)


_WITHOUT = "(SELECT *, '' AS task, NULL AS step, '' AS problem, NULL AS base, x'' AS request FROM calls)"
"""The calls of a run of a version that kept no prompts."""
