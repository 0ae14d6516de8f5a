"""Games for the tests: the small rooms of the golden transcripts, and official games in the later dialect."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from leap_worlds.alfworld.game import Game, parse_game

KINDS = ("place", "clean", "heat", "cool", "two", "look")
DIALECTS = ("put", "move")
CASES = [(dialect, kind) for dialect in DIALECTS for kind in KINDS]

needs_textworld = pytest.mark.skipif(
    not all(map(find_spec, ("textworld", "fast_downward"))),
    reason="the real engine is not installed (pip install 'leap-agents[alfworld]')",
)


@cache
def golden(dialect: str) -> dict[str, Any]:
    """What record.py wrote: domain, grammar, and for each task type a problem and two walks."""
    return json.loads((Path(__file__).parent / "golden" / f"{dialect}.json").read_text(encoding="utf-8"))


def tiny_data(dialect: str, kind: str) -> dict[str, Any]:
    """The small room as the content of a game file."""
    recorded = golden(dialect)
    row = next(row for row in recorded["games"] if row["kind"] == kind)
    return {
        "pddl_domain": recorded["domain"],
        "grammar": recorded["grammar"].replace("UNKNOWN GOAL", row["sentence"]),
        "pddl_problem": row["problem"],
        "solvable": True,
    }


@cache
def tiny_game(dialect: str = "put", kind: str = "place") -> Game:
    """The small room, parsed."""
    return parse_game(tiny_data(dialect, kind), f"tiny {dialect} {kind}")


def walks(dialect: str, kind: str) -> list[dict[str, Any]]:
    """The recorded walks of a small room."""
    return next(row for row in golden(dialect)["games"] if row["kind"] == kind)["walks"]


def write_game(folder: Path, data: dict[str, Any]) -> Path:
    """Writes a game file and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "game.tw-pddl"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def upgraded(path: Path, folder: Path) -> Path:
    """An official 2.1.1 game in the later dialect, made as ALFWorld's own upgrade does."""
    import alfworld

    source = Path(alfworld.__path__[0]) / "data"
    data = json.loads(path.read_text(encoding="utf-8"))
    task = parse_game(data).task.removesuffix(".")
    data["pddl_domain"] = (source / "alfred.pddl").read_text(encoding="utf-8")
    data["grammar"] = (source / "alfred.twl2").read_text(encoding="utf-8").replace("UNKNOWN GOAL", task)
    return write_game(folder, data)
