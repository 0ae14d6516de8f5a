"""`benchmarks/faults.log` names the tests that hold each fault mended: every one of them is in the suite."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOG = (ROOT / "benchmarks" / "faults.log").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"(tests/\S+\.py)::(\w+)", LOG)))


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_test_that_is_named_is_there(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert {name for other, name in NAMED if other == file} <= there


def test_every_fault_has_a_test_that_holds_it() -> None:
    entries = re.split(r"\n(?=[A-G]\d+ |[a-z][a-z0-9]*(?:-[a-z0-9]+)* {2,}\S)", LOG)[1:]
    held = re.compile(r"\n +held +tests/\S+\.py::test_\w+(\n|$)")
    without = [entry.partition("\n")[0] for entry in entries if not held.search(entry)]
    numbered = [entry for entry in entries if re.match(r"[A-F]\d", entry)]
    assert (len(numbered), without) == (25, [])


def test_nothing_but_tests_is_named_as_one() -> None:
    lines = [line.split() for line in LOG.splitlines() if "::" in line and not line.startswith("#")]
    assert all(re.fullmatch(r"tests/\S+\.py::test_\w+", line[-1]) and line[:-1] in ([], ["held"]) for line in lines)
