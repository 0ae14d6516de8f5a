"""Writes the tables of README.md and docs/ that are made from data: ladders from benchmarks/ladder/*.yaml,
speed in docs/benchmarks.md from what `python benchmarks/run_all.py` left in benchmarks/run_all.json.

A table stands between two marks, `<!-- made: NAME -->` and `<!-- end -->`; tests/docs/test_results_page.py compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from leap.stats import wilson

ROOT = Path(__file__).parents[1]
LADDERS = ROOT / "benchmarks" / "ladder"
SPEED = ROOT / "benchmarks" / "run_all.json"
WORLDS = ("alfworld", "webshop", "intercode")
COLUMNS = {
    "environment": "environment",
    "version": "version",
    "split": "split",
    "n": "n",
    "seeds": "seeds",
    "horizon": "actions",
    "decoding": "decoding",
    "reward": "reward",
    "size": "weights",
    "taught": "taught by",
}
"""What a row must tell beside its result, in this order; a key that no row of a ladder has is not stated by anybody."""
_MARKED = re.compile(r"<!-- made: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def figure(result: Mapping[str, Any]) -> str:
    """Success in per cent with its 95 % interval: a count's by Wilson, one of several seeds as its log has it.

    Of others' shares the interval is Wilson's where they say n, marked by a dagger, and beside it the spread that they print.
    """
    n, interval, told = result.get("n"), result.get("interval"), result.get("success")
    if "solved" in result:
        told = 100 * result["solved"] / result["n"]
    if told is None:
        return "not stated"
    text, spread = f"{told:.1f}", f" ± {result['spread']}" if "spread" in result else ""
    if interval is None and n is not None:
        interval = [100 * bound for bound in wilson(result.get("solved", n * told / 100), n)]
        text += "" if "solved" in result else "†"
    return f"{text}{spread} [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else text + spread


def merit(row: Mapping[str, Any]) -> float:
    """What a ladder is ordered by: success where it is told, else the score, in per cent."""
    if "solved" in row:
        return 100 * row["solved"] / row["n"]
    return float(row.get("success", row.get("score", 0)))


def ladder(told: Mapping[str, Any]) -> str:
    """One ladder: what is the same for all rows stands above its table, what differs is a column."""
    rows = [{**told["all"], **row} for row in told["rows"]]
    rows.sort(key=merit, reverse=True)
    of = {key: {str(row.get(key, "not stated")) for row in rows} for key in COLUMNS}
    same = [f"{COLUMNS[key]}: {value}" for key, (value, *others) in ((k, list(v)) for k, v in of.items()) if not others]
    varies = [key for key, values in of.items() if len(values) > 1]
    results: dict[str, Callable[[Mapping[str, Any]], str]] = {}
    if any("solved" in row or "success" in row for row in rows):
        results["success, %"] = figure
    if any("score" in row for row in rows):
        results["score"] = lambda row: str(row.get("score", "not stated"))
    head = ["who", *(COLUMNS[key] for key in varies), *results, "source"]
    body = [
        [
            f"**{row['who']}** (leap)" if row.get("ours") else row["who"],
            *(str(row.get(key, "not stated")) for key in varies),
            *(show(row) for show in results.values()),
            row["source"] + (" (said, not read)" if row.get("seen") == "said" else ""),
        ]
        for row in rows
    ]
    about = [told["about"].strip()] if "about" in told else []
    return "\n\n".join([f"#### {told['name']}", *about, _sentence("; ".join(same)), table(head, body)])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = ("| " + " | ".join(line) + " |" for line in (head, *body))
    first, *others = (re.sub(r"\|  \|", "| |", row) for row in rows)
    return "\n".join([first, "|---" * len(head) + "|", *others])


def load(name: str) -> Any:
    """The data of one file."""
    return yaml.safe_load((LADDERS / f"{name}.yaml").read_text(encoding="utf-8"))


def ladders() -> str:
    """All ladders, world by world."""
    parts = []
    for world in map(load, WORLDS):
        parts += [f"### {world['title']}", world["about"].strip(), *map(ladder, world["ladders"])]
    return "\n\n".join(parts)


def quickstarts() -> str:
    """The README's table of students in generated worlds."""
    body, before = [], None
    for row in load("quickstarts"):
        name = "" if row["recipe"] == before else f"[`{row['recipe']}`](docs/results.md#{row['section']})"
        name += f", {row['note']}" if "note" in row else ""
        before = row["recipe"]
        shown = [
            one if isinstance(one, str) else figure({"n": row["n"], **one})
            for one in (row[k] for k in ("cloned", "best", "expert"))
        ]
        value, _, interval = shown[1].partition(" ")
        body.append([name, row["test"], shown[0], f"**{value}** {interval}", shown[2]])
    return table(["recipe", "test tasks, seeds", "behaviour cloning", "best", "expert"], body)


def significant(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def speed() -> str:
    """What each part of benchmarks/run_all.py took, and what could not run there."""
    told = json.loads(SPEED.read_text(encoding="utf-8"))
    machine = told["machine"]
    how = "Small samples (`--quick`) on a busy machine: rough." if told["quick"] else "Full samples."
    body, absent = [], []
    for part in told["parts"].values():
        if "figures" not in part:
            absent.append(f"* {part['title']}: {part.get('left_out') or 'it failed, ' + part['failed']}.")
        for one in part.get("figures", ()):
            taken = f"{significant(one['leap'])} {one['unit']}", significant(one["other"])
            body.append([part["title"], one["what"], one["against"], *taken, significant(one["times"]), str(part["load"])])
    parts = [f"{machine['platform']}, {machine['cores']} cores, Python {machine['python']}. {how}"]
    parts.append(table(["part", "work", "against", "leap", "the other", "times", "load"], body))
    if absent:
        parts += ["Not measured there:", "\n".join(absent)]
    return "\n\n".join(parts)


TABLES: dict[str, Callable[[], str]] = {"ladders": ladders, "quickstarts": quickstarts, "speed": speed}
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "benchmarks.md")


def render(page: Path) -> str:
    """A page with its tables made anew."""
    return _MARKED.sub(
        lambda found: f"<!-- made: {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->", page.read_text(encoding="utf-8")
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page), encoding="utf-8")
