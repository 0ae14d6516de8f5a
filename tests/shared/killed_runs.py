"""Runs that are killed at their file operations and given again, against one that was left alone: recipes, and how to compare."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from flaky_endpoint import Flaky
from kill_points import Ended, Point, Warm
from small_games import small_games

from leap import registry
from leap.models import mock
from leap.runs.manifest import Manifest
from leap.testing.corridor import EAST, Corridor
from leap.testing.server import MockServer

_STUDENT: dict[str, Any] = {
    "scratch": {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "max_tokens": 512},
    "prompt": {"renderer": "dialogue", "instructions": False, "candidates": False},
    "sampling": {"temperature": 0.5, "max_tokens": 12, "max_reason_tokens": 4},
    "decoding": "constrained",
    "batch": 2,
}
EXPERT: dict[str, Any] = {
    "name": "expert",
    "seed": 3,
    "iterations": 1,
    "horizon": 3,
    "environment": {
        "name": "alfworld",
        "test": ["unseen"],
        "options": small_games(2, 1, 1),
    },
    "student": _STUDENT,
    "demonstrations": {"episodes": 2, "successes_only": False},
    "teacher": {"episodes": "all"},
    "training": {"branches": True, "optimizer": "muon", "batch_tokens": 1000, "steps": 2, "save_steps": 1},
}
"""The quickstart, as small as it gets: games are made, a scripted expert plays, the environment's teacher corrects."""


SEARCH = EXPERT | {"teacher": {"kind": "search", "episodes": "all", "answers": 2}}
"""The same, corrected by search."""


@registry.environment("killed-corridor")
class KilledCorridor(Corridor):
    """A corridor."""

    name = "killed-corridor"


def paid(address: str, size: int = 2, **endpoint: Any) -> dict[str, Any]:
    """A recipe whose corrections and a baseline are paid for at an endpoint."""
    model = {"model": "openai/mock", "endpoint": {"base_url": address, "concurrency": 2, **endpoint}}
    return {
        "name": "paid",
        "seed": 3,
        "iterations": 1,
        "horizon": 3,
        "environment": {"name": "killed-corridor", "test": ["unseen"], "options": {"size": size}},
        "student": _STUDENT,
        "demonstrations": {"episodes": 2, "successes_only": False},
        "teacher": {"kind": "model", **model, "by": "step", "episodes": "all"},
        "baselines": {"react": [{**model, "examples": 0}]},
        "training": {"steps": 2, "save_steps": 1, "batch_rows": 4, "device_rows": 4, "lr": 1e-3},
        "prices": {"openai/mock": {"input": 1.0, "output": 2.0}},
    }


class Teacher:
    """What an endpoint says: a correction that goes east, with a reason that names the request by its words and seed, so that an
    answer to another request is seen in all that is made of it.

    Attributes:
        answers: How often each answer was given.
    """

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()

    def __call__(self, request: mock.Request) -> str:
        told = json.dumps([list(request.messages), request.seed, request.schema], sort_keys=True)
        word = "".join(chr(ord("a") + int(digit, 16)) for digit in hashlib.sha256(told.encode()).hexdigest()[:24])
        said = f"REASON: {word}\nACTION: {EAST}"
        if request.schema is not None:
            said = json.dumps({"leave_as_it_is": False, "corrected_reason": word, "corrected_action": EAST})
        self.answers[said] += 1
        return said


# ---- what is on file ---------------------------------------------------------------------------------------------------


def on_file(folder: Path) -> dict[str, Any]:
    """All files below a folder by their names, with what they hold but for times and the order in which things happened; and the
    folders in which nothing is."""
    empty = {
        f"{path.relative_to(folder)}/": None for path in folder.rglob("*") if path.is_dir() and not any(path.iterdir())
    }
    return empty | {
        str(path.relative_to(folder)): _held(path) for path in sorted(folder.rglob("*")) if not path.is_dir()
    }


def _held(path: Path) -> Any:
    try:
        return _read(path)
    except (ValueError, sqlite3.DatabaseError):
        return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> Any:
    if path.name == "provenance.jsonl":  # a line for each start
        return {str(sorted(json.loads(line))) for line in path.read_bytes().splitlines()}
    if path.name == "calls.sqlite":
        return sorted(call for call in calls(path) if not call[-1])
    if path.suffix == ".jsonl":
        return sorted(json.dumps(_timeless(json.loads(line))) for line in path.read_bytes().splitlines())
    if path.name == "files.json":  # lengths and hashes, of journals with their times
        return {name: sorted(files) for name, files in json.loads(path.read_bytes())["files"].items()}
    # How long each start took; a stage that was done when its process was killed is not told again.
    if path.name == "stages.json":
        return {type(entry["seconds"]) for entry in json.loads(path.read_bytes())}
    if path.parent.name == "index":  # of games, with the times at which their files were written
        return sorted(json.loads(path.read_bytes()))
    if path.name == "index.html":  # drawn from report.json
        return None
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_bytes()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


_OF_CLOCKS = {"seconds", "latency", "stages", "provenance", "made"}
"""What differs between any two runs. Of a report's stages, what was made when a run was killed is not told again."""


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in _OF_CLOCKS}
    if isinstance(value, float):
        return round(value, 9)  # prices are added up in another order
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def calls(ledger: Path) -> list[tuple[Any, ...]]:
    """What a ledger has booked, but for times. It may be that of a process which was killed; it stays as it is."""
    if not ledger.exists():
        return []
    copy = ledger.parent.parent / "ledger-copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for part in ledger.parent.glob(f"{ledger.name}*"):
        shutil.copy(part, copy)
    try:
        with closing(sqlite3.connect(copy / ledger.name)) as db:
            columns = "key, stage, provider, model, tokens_in, tokens_out, cost, text, truncated, error"
            return db.execute(f"SELECT {columns} FROM calls").fetchall()
    except sqlite3.OperationalError:  # killed before the table was made
        return []
    finally:
        shutil.rmtree(copy)


# ---- runs ------------------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """A recipe's runs, all at the same place, one after the other.

    Args:
        warm: Runs them.
        work: The folder that `warm` watches.
        recipe: The recipe's file.
        teacher: Who answers at the endpoint, where one is paid.
        endpoint: That endpoint.
    """

    warm: Warm
    work: Path
    recipe: Path
    teacher: Teacher | None = None
    endpoint: Flaky | None = None
    reference: dict[str, Any] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    seconds: float = 0.0
    again: int = 0

    @property
    def run(self) -> Path:
        return self.work / "run"

    def give(self, **how: Any) -> Ended:
        """Gives the command, once."""
        environment = {"LEAP_CACHE": str(self.work / "cache"), "OPENAI_API_KEY": "of-no-value"}
        return self.warm.run(["run", str(self.recipe), "--run-dir", str(self.run)], environment=environment, **how)

    def anew(self) -> None:
        """Removes all that the last runs have left."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        if self.teacher is not None:
            self.teacher.answers.clear()

    def undisturbed(self) -> None:
        """A run that is left alone, which the others are compared with; and what its distinct file operations are."""
        for _ in range(1 if self.warm.warm else 2):  # the first imports what the others then have
            self.anew()
            ended = self.give()
            assert ended.code == 0, ended.output
        self.points, self.seconds, self.reference = ended.points, ended.seconds, on_file(self.work)
        if self.teacher is not None:
            assert set(self.teacher.answers.values()) == {1}

    def killed_at(self, point: Point) -> str:
        """Kills a run there and gives the command again; returns what differs from the undisturbed one, or nothing."""
        self.anew()
        ended = self.give(kill=point)
        if ended.code == 0:
            return "not met"
        if ended.code != -9:
            return f"ended by itself: {ended.code} {ended.output[-300:]}"
        under_way = self.under_way()
        ended = self.give(watch=False)
        if ended.code:
            return f"does not go on: {ended.code} {ended.output[-500:]}"
        return self.compared(under_way)

    def under_way(self) -> Counter[str]:
        """Answers that an endpoint has given and that are not booked: calls under way when the process was killed."""
        if self.teacher is None:
            return Counter()
        booked = Counter(row[7] for row in calls(self.run / "calls.sqlite"))
        return self.teacher.answers - booked

    def compared(self, under_way: Counter[str], but: Sequence[str] = ()) -> str:
        """What differs from the undisturbed run, or nothing.

        Args:
            under_way: Answers that were lost in kills.
            but: Files that are not compared.
        """
        found = on_file(self.work)
        for name in but:
            found[name] = self.reference.get(name)
        if differing := sorted(
            name for name in found.keys() | self.reference.keys() if found.get(name) != self.reference.get(name)
        ):
            named = [
                f"{'left over' if name not in self.reference else 'missing' if name not in found else 'other'}: {name}"
                for name in differing
            ]
            return "; ".join(named[:5])
        if damaged := list(Manifest(self.run).damage(whole=True)):
            return f"files.json says: {damaged[0][1]}"
        if self.teacher is not None:
            self.again += sum(under_way.values())
            if twice := self.teacher.answers - under_way - Counter(set(self.teacher.answers)):
                return f"paid twice: {len(twice)} answers that were booked"
        return ""


_WITHOUT_A_TRACE = ("close", "fsync", "fdatasync")
"""Operations that change nothing on file: a kill before one leaves what a kill before the next other one leaves."""
_ALIKE = ("chmod", "fchmod", "mkdir")
"""Operations of which one of a name is like the other."""
_WRITES = ("write", "pwrite", "sendfile", "copy_file_range")


def distinct(points: Sequence[Point]) -> list[Point]:
    """Where to kill a run so that each of its distinct file operations is met: before the first and the last of each name, and in
    the middle of each of those that writes."""
    last = {point.what: point.number for point in points}
    chosen = []
    for point in points:
        kind = point.what.split()[0]
        first = point.number == 1
        if kind not in _WITHOUT_A_TRACE and (first or (point.number == last[point.what] and kind not in _ALIKE)):
            chosen += [point, point._replace(half=True)] if kind.startswith(_WRITES) else [point]
    return chosen


@contextmanager
def trials(folder: Path, under: Sequence[str] = ()) -> Iterator[Callable[..., Trial]]:
    """Gives a function that makes the runs of a recipe below a folder: "expert", "search", or "paid" with options of `paid`.
    One at a time is at work; `under` is a command that runs them."""
    work, teacher = folder / "work", Teacher()
    with MockServer(teacher) as server, Flaky(server.port) as endpoint, Warm(work, ["killed_runs"], under) as warm:

        @cache
        def trial(kind: str, **options: Any) -> Trial:
            unpaid = {"expert": EXPERT, "search": SEARCH}.get(kind)
            values = unpaid or paid(f"http://127.0.0.1:{endpoint.port}/v1", **options)
            recipe = folder / f"{len(list(folder.glob('*.yaml')))}.yaml"
            recipe.write_text(yaml.safe_dump(values))
            made = Trial(warm, work, recipe, *([] if unpaid else [teacher, endpoint]))
            made.undisturbed()
            return made

        yield trial
