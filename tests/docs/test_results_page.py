"""Tables that are made from data are up to date, and what the data says of leap stands in the logs that it names."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/results.md", "docs/benchmarks.md")


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """The module that makes the tables."""
    spec = importlib.util.spec_from_file_location("make_results", ROOT / "docs" / "make_results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_what_the_data_says(made: ModuleType, page: str) -> None:
    told = (ROOT / page).read_text(encoding="utf-8")
    assert told.count("<!-- made: ") == told.count("<!-- end -->") > 0
    assert told == made.render(ROOT / page), "give: python docs/make_results.py"


def test_a_table_that_was_changed_by_hand_is_found(made: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    changed = (ROOT / "README.md").read_text(encoding="utf-8").replace("**76.3**", "**77.3**")
    page.write_text(changed, encoding="utf-8")
    assert made.render(page) != changed


def rows(made: ModuleType) -> list[dict[str, Any]]:
    return [
        {**told["all"], **row} for world in made.WORLDS for told in made.load(world)["ladders"] for row in told["rows"]
    ]


def test_every_row_says_where_it_was_read_and_ours_say_everything(made: ModuleType) -> None:
    for row in rows(made):
        assert {"environment", "split", "taught", "size", "source"} <= set(row), row["who"]
        assert {"solved", "success", "score"} & set(row), row["who"]
        assert set(row) <= {
            *made.COLUMNS,
            "who",
            "solved",
            "success",
            "score",
            "spread",
            "interval",
            "source",
            "seen",
            "ours",
        }
        if row.get("ours"):
            assert set(made.COLUMNS) <= set(row), row["who"]
        else:
            assert row["seen"] in ("read", "said"), row["who"]


def logged(made: ModuleType, result: dict[str, Any], log: Path) -> bool:
    """Whether a log has the figure and both ends of its interval."""
    figures = re.findall(r"\d+\.\d", made.figure(result))
    text = log.read_text(encoding="utf-8")
    return len(figures) == 3 and all(re.search(rf"(?<![\d.]){re.escape(one)}(?!\d)", text) for one in figures)


def test_figures_of_leap_stand_in_their_logs(made: ModuleType) -> None:
    for row in made.load("quickstarts"):
        for key in ("cloned", "best", "expert"):
            if isinstance(row[key], dict):
                assert logged(made, {"n": row["n"], **row[key]}, ROOT / "benchmarks" / row["log"]), (row["log"], key)
    own = [row for row in rows(made) if row.get("ours")]
    assert own
    for row in own:
        (log,) = re.findall(r"\(\.\./(benchmarks/[^)]+)\)", row["source"])
        assert logged(made, row, ROOT / log), row["who"]


def test_speed_that_the_readme_quotes_was_measured(made: ModuleType) -> None:
    told = json.loads(made.SPEED.read_text(encoding="utf-8"))
    measured = {made.significant(one["times"]) for part in told["parts"].values() for one in part.get("figures", ())}
    assert measured
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"([\d,.]+) times\b", readme)) <= measured
