"""The ledger: every call to an endpoint, booked as it is answered. It is the run's bill, its budget and its cache. Calls that
cost nothing are kept in it for people alone: it counts none and answers none from file.

One SQLite file in the run directory. A call is committed before its answer is used, so a process killed at any moment has
booked all but the calls under way, and a request that was answered once is never paid again.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from leap.config import Section
from leap.core import JsonObject
from leap.envs.thought import split_thought
from leap.errors import LeapError, RunError
from leap.models.base import Completion, Request
from leap.models.calls import UNPAID, AskedStore, Call, CallFilter, CallsSection, calls_in
from leap.models.prices import Price, Prices, dollars

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,          -- of the request: model, sampling, messages, seed, schema, tools
    at TEXT NOT NULL,           -- UTC
    stage TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_cached INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    cost REAL NOT NULL,         -- USD
    latency REAL NOT NULL,      -- seconds, retries included
    text TEXT NOT NULL,
    truncated INTEGER NOT NULL,
    error TEXT NOT NULL         -- of a call that failed for good; it cost what the endpoint told, mostly nothing
);
CREATE INDEX IF NOT EXISTS calls_by_key ON calls (key);
"""


class Budget(Section):
    """The most that a run may spend, all stages and all restarts together. Part of a recipe, under `budget`."""

    usd: float | None = Field(default=None, gt=0, description="US dollars, by the price table; no cap if null.")
    tokens: int | None = Field(default=None, gt=0, description="Tokens in and out of endpoints; no cap if null.")


class BudgetReached(LeapError):
    """The run has spent what it may. Everything paid is on file."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Calls summed up.

    Attributes:
        stage: Label of the stage; empty in a total over stages.
        model: `provider/model`; empty in a total over models.
        calls: Answered calls.
        failed: Calls that failed after all retries.
        tokens_in: Tokens of prompts.
        tokens_cached: Those of them that the endpoint had in its cache.
        tokens_out: Tokens generated.
        cost: USD.
        latency: Mean seconds per answered call, retries included.
    """

    stage: str = ""
    model: str = ""
    calls: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    latency: float = 0.0

    def as_dict(self) -> JsonObject:
        """For JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Claim:
    """A request that is being answered: for whom, what is set when that is over, and whether the call has begun."""

    owner: str
    over: asyncio.Future[None]
    under_way: bool = False


class Ledger:
    """A run's calls on file, with its budget. One process at a time; any number of coroutines. How a call goes through it stands
    in `leap.models.metered`.

    Args:
        path: The SQLite file; made if it is not there.
        prices: A recipe's own prices by `provider/model`, over the shipped ones.
        budget: The caps.
        calls: What is kept of the calls for people.

    Attributes:
        label: The stage under which calls are booked now.

    Raises:
        RunError: The file is no ledger or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        prices: Mapping[str, Price] | None = None,
        budget: Budget | None = None,
        calls: CallsSection | None = None,
    ) -> None:
        self.path = path
        self.prices = Prices(prices)
        self.budget = budget or Budget()
        self.label = ""
        self._claims: dict[str, _Claim] = {}  # requests being answered right now, by key
        self._lock = threading.Lock()
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # autocommit: a call is on file as soon as its INSERT returns
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
            # A write-ahead log survives kill -9 without a sync per call; only a power cut could take the last few.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._asked = AskedStore(self._db, calls or CallsSection())
            total = self.total()
        self._usd, self._tokens = total.cost, total.tokens_in + total.tokens_out

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    @property
    def spent(self) -> tuple[float, int]:
        """USD and tokens so far, earlier starts of the run included."""
        return self._usd, self._tokens

    @contextmanager
    def stage(self, label: str) -> Iterator[None]:
        """Books the calls made within under a stage's name."""
        before, self.label = self.label, label
        try:
            yield
        finally:
            self.label = before

    def _reached(self) -> str:
        """What to say where a cap is reached; empty below it."""
        budget = self.budget
        if budget.usd is not None and self._usd >= budget.usd:
            what = f"{dollars(self._usd)} of budget.usd {budget.usd:g}"
        elif budget.tokens is not None and self._tokens >= budget.tokens:
            what = f"{self._tokens:,} tokens of budget.tokens {budget.tokens:,}"
        else:
            return ""
        return (
            f"the budget is used up: {what} are spent. Everything paid is on file; raise the cap (in the recipe, or with "
            "--set) and give the same command again to go on."
        )

    async def claim(self, key: str, owner: str = "") -> Completion | None:
        """A request's answer from the file; None where it is to be paid by whoever asked, who releases the key in the end. The
        same request is under way only once: a second asker waits here."""
        while key in self._claims:
            await asyncio.wait([self._claims[key].over])
        if (on_file := self.get(key)) is None:
            self._claims[key] = _Claim(owner, asyncio.get_running_loop().create_future())
        return on_file

    async def admit(self, key: str) -> None:
        """Lets the call for a claimed key begin."""
        if reached := self._reached():
            while any(claim.under_way for claim in self._claims.values()):
                await asyncio.sleep(0.01)
            raise BudgetReached(self._reached() or reached)
        self._claims[key].under_way = True

    async def settle(self, *call: Any, **more: Any) -> Completion:
        """Books a call; see `book`."""
        return self.book(*call, **more)

    def release(self, key: str) -> None:
        """Whoever claimed this key has ended, with an answer or without."""
        if (claim := self._claims.pop(key, None)) is not None:
            claim.over.set_result(None)

    def abandon(self, owner: str) -> None:
        """Releases what a process that has died had claimed. What it was still waiting for is asked again."""
        for key in [key for key, claim in self._claims.items() if claim.owner == owner]:
            self.release(key)

    def get(self, key: str) -> Completion | None:
        """The answer to a request that was paid before, be it of no use: whoever wants another asks with another seed."""
        with self._lock, _explained(self.path):
            row = self._db.execute(
                "SELECT text, tokens_in, tokens_out, tokens_cached, truncated FROM calls "
                "WHERE key = ? AND error = '' ORDER BY id DESC LIMIT 1",
                (key,),
            ).fetchone()
        if row is None:
            return None
        text = row[0].decode("utf-8", "surrogatepass") if isinstance(row[0], bytes) else row[0]
        said = split_thought(text)
        return Completion(said.answer, *row[1:4], from_cache=True, truncated=bool(row[4]), thought=said.thought)

    def book(
        self,
        key: str,
        name: str,
        completion: Completion,
        latency: float,
        error: str = "",
        request: Request | None = None,
    ) -> Completion:
        """Writes down a call: an answered one, or one that failed for good, with the tokens that were billed all the same; and
        what was asked, where that is given.

        Returns:
            The completion with its cost.

        Raises:
            RunError: The disk is full. The answer is lost; everything before it is safe.
        """
        price = self.prices.get(name)
        completion = replace(completion, cost=price.of(completion) if price else 0.0)
        self._write(key, name, completion, latency, error, request)
        self._usd += completion.cost
        self._tokens += completion.prompt_tokens + completion.completion_tokens
        return completion

    def note(
        self, key: str, name: str, completion: Completion, latency: float, error: str, request: Request
    ) -> None:
        """Keeps a call that cost nothing, as long as prompts are kept; its key begins with `UNPAID`."""
        if self._asked.open:
            self._write(key, name, completion, latency, error, request)

    def _write(
        self, key: str, name: str, completion: Completion, latency: float, error: str, request: Request | None
    ) -> None:
        provider, _, model = name.partition("/")
        tokens = (completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens)
        what = (_storable(completion.whole), completion.truncated, error.encode("utf-8", "replace").decode())
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        values = (key, at, self.label, provider, model, *tokens, completion.cost, round(latency, 3), *what)
        with self._lock, _explained(self.path):
            booked = self._db.execute(f"INSERT INTO calls VALUES (NULL{', ?' * len(values)})", values).lastrowid
            if request is not None and booked:
                self._asked.keep(booked, self.label, name, request, len(what[0]) if key.startswith(UNPAID) else 0)

    def unread(self, key: str, problem: str) -> None:
        """Notes why the answer to a request could not be used."""
        with self._lock, _explained(self.path):
            self._asked.note(key, problem.encode("utf-8", "replace").decode())

    def totals(self) -> list[Totals]:
        """Sums by stage and model, in the order of their first calls."""
        with self._lock, _explained(self.path):
            return _sums(self._db, *_BY_STAGE)

    def total(self) -> Totals:
        """The sum of everything."""
        with self._lock, _explained(self.path):
            return _sums(self._db, "'', ''", "")[0]


def _storable(text: str) -> str | bytes:
    """A text as SQLite takes it: one with a lone surrogate, which is no UTF-8, goes in as bytes and comes out unchanged."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def read_totals(path: Path) -> list[Totals]:
    """Sums by stage and model of a ledger that is only looked at: its run may be under way, its folder read-only.

    Raises:
        RunError: The file is no ledger.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    return _looked_at(path, lambda db: _sums(db, *_BY_STAGE))


def look_at_calls(
    path: Path, look: Callable[[Iterator[Call]], T], wanted: CallFilter | None = None, *, newest: int | None = None
) -> T:
    """What a look at calls of a ledger gives, which changes nothing; see `calls_in`.

    Raises:
        RunError: The file is no ledger.
    """
    if not path.exists() or not path.stat().st_size:
        return look(iter(()))
    return _looked_at(path, lambda db: look(calls_in(db, wanted or CallFilter(), newest)))


def fingerprint(path: Path, calls: int = -1) -> str:
    """Number and content of a ledger's first calls, by default of all, from a file that is sound.

    Raises:
        RunError: The file is no ledger, or damaged.
    """

    def read(db: sqlite3.Connection) -> str:
        if (found := db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        content, count = hashlib.sha256(), 0
        for row in db.execute("SELECT * FROM calls ORDER BY id LIMIT ?", (calls,)):
            content.update(repr(row).encode())
            count += 1
        return f"{count} {content.hexdigest()}"

    return _looked_at(path, read)


def _looked_at(path: Path, look: Callable[[sqlite3.Connection], T]) -> T:
    """What a look at a ledger gives, which changes nothing."""

    def at(how: str) -> T:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True, timeout=30)) as db:
            return look(db)

    with _explained(path):
        if path.with_name(f"{path.name}-wal").exists():  # its run is under way, or was killed
            with suppress(sqlite3.OperationalError):  # the log needs files beside it, which a read-only folder refuses
                return at("mode=ro")
        return at("immutable=1")  # otherwise SQLite would leave a log of its own beside a ledger that is only read


_BY_STAGE = ("stage, provider || '/' || model", " GROUP BY stage, provider, model ORDER BY MIN(id)")


def _sums(db: sqlite3.Connection, labels: str, grouping: str) -> list[Totals]:
    rows = db.execute(
        f"SELECT {labels}, COALESCE(SUM(error = ''), 0), COALESCE(SUM(error != ''), 0), "
        "COALESCE(SUM(tokens_in), 0), COALESCE(SUM(tokens_cached), 0), COALESCE(SUM(tokens_out), 0), "
        "COALESCE(SUM(cost), 0.0), COALESCE(AVG(CASE WHEN error = '' THEN latency END), 0.0) "
        f"FROM calls WHERE key NOT LIKE '{UNPAID}%'{grouping}"
    ).fetchall()
    return [Totals(*row) for row in rows]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
            raise RunError(
                f"the disk is full: cannot write {path}. Everything booked is safe; free some space and give the same "
                "command again to go on."
            ) from error
        said = " ".join(str(error).split())  # SQLite has lines of its own
        raise RunError(f"{path} cannot be used as the ledger of calls: {said}.") from error
