"""Python tasks: which code is run as it stands, the reward, and the interpreter's server (in a process of the test's own)."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap_worlds.intercode.python.actions import defining, function_name, prepared, reward, submitted_name
from leap_worlds.intercode.python.interpreter import Interpreter


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("1 + 1", "print(1 + 1)"),
        ("x = 1", "x = 1"),
        ("print(1)", "print(1)"),
        ("import os", "import os"),
        ("assert f(1) == 2", "assert f(1) == 2"),
        ("def f(x):\n  return x", "def f(x):\n  return x"),
        ("def broken(", "def broken("),
    ],
)
def test_what_upstream_prints(action: str, code: str) -> None:
    assert prepared(action) == code


@given(st.text())
def test_any_text_is_code_or_no_python(action: str) -> None:
    with contextlib.suppress(SyntaxError, ValueError):
        assert action in prepared(action)


def test_what_is_submitted() -> None:
    before = ["x = 1", "def f(a): return a", "f(1)"]
    assert submitted_name("submit g", before) == "g"
    assert submitted_name("submit g(x)", before) == "g"
    assert submitted_name("submit", before) == "f"
    assert submitted_name("submit", ["x = 1"]) is None
    assert submitted_name("submit 1; import os", before) is None


def test_gold_runs_as_it_stands() -> None:
    gold = "from math import gcd\ndef f(a, b):\n  return gcd(a, b)"
    assert prepared(defining(gold)) == defining(gold)
    assert function_name(gold) == "f"


def test_reward_is_the_share_of_tests_that_end_alike() -> None:
    ok, wrong = {"output": "", "error": ""}, {"error": "Error: "}
    assert reward({"a": ok, "b": wrong}, {"a": ok, "b": ok}) == 0.5
    assert reward({"a": wrong}, {"a": wrong}) == 1.0  # a broken test counts, as upstream has it


class Process:
    """The server in a process here instead of in a box: for code of the test's own alone."""

    def start(self, argv: list[str]) -> Process:
        self._process = subprocess.Popen([sys.executable, *argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def read_line(self, *, timeout: float, max_bytes: int = 10**6) -> bytes | None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        return self._process.stdout.readline().rstrip(b"\n") or None if ready else None

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def interpreter() -> Iterator[Interpreter]:
    process: Any = Process()
    running = Interpreter(process, seconds=1.0)
    yield running
    running._end()


def test_what_is_defined_stays_and_what_is_printed_comes_back(interpreter: Interpreter) -> None:
    assert interpreter.run("x = 20") == {"output": "", "error": ""}
    assert interpreter.run("print(x + 1)") == {"output": "21", "error": ""}
    assert interpreter.run("sys.stderr.write('e')") == {"output": "", "error": "e"}
    assert interpreter.run("1/0") == {"error": "Error: division by zero"}
    assert interpreter.run("print('\\ud800')") == {"output": "\\ud800", "error": ""}
    assert interpreter.run("import os; os.write(1, b'noise')")["error"] == ""
    assert interpreter.run("raise SystemExit(3)") == {"error": "Error: 3"}
    assert interpreter.run("input()") == {"error": "Error: EOF when reading a line"}


def test_code_without_end_is_interrupted_and_what_was_defined_stays(interpreter: Interpreter) -> None:
    interpreter.run("x = 1")
    began = time.monotonic()
    assert interpreter.run("while True:\n  pass") == {"error": "Error: timed out"}
    assert time.monotonic() - began < 10
    assert interpreter.run("print(x)") == {"output": "1", "error": ""}


def test_code_that_ends_the_interpreter_gets_a_fresh_one(interpreter: Interpreter) -> None:
    interpreter.run("x = 1")
    assert "error" in interpreter.run("import os; os._exit(0)")
    assert interpreter.run("print(1)") == {"output": "1", "error": ""}
    assert interpreter.run("x") == {"error": "Error: name 'x' is not defined"}


@pytest.mark.parametrize(
    "forged", [b'[{"output": "", "error": ""}]', b"null", b"[1]", b"1e999", b"[" * 90_000, b"[]", b'["", {"output": ""}]']
)
def test_what_code_writes_in_the_servers_place_is_no_reply(interpreter: Interpreter, forged: bytes) -> None:
    """Neither at once nor for the request that comes next: there, every test of a wrong function would pass."""
    text = f"b'[' * {len(forged)}" if len(forged) > 1000 else repr(forged)
    write = f"import os\nfor fd in range(3, 10):\n  try: os.write(fd, {text} + b'\\n')"
    assert interpreter.run(f"{write}\n  except OSError: pass") == {"error": "Error: the interpreter ended"}
    assert interpreter.run("print(1)") == {"output": "1", "error": ""}


def test_a_reply_that_waits_for_the_next_request_is_none(interpreter: Interpreter) -> None:
    code = """
import os, sys
frame = sys._getframe()
while "line" not in frame.f_locals: frame = frame.f_back
token = frame.f_locals["loads"](frame.f_locals["line"])[2]
mine, next_one = frame.f_locals["dumps"]([token, {"output": ""}]), frame.f_locals["dumps"]([token, {"output": ""}] * 2)
for fd in range(3, 10):
    try: os.write(fd, (mine + chr(10) + next_one + chr(10)).encode())
    except OSError: pass
"""
    assert interpreter.run(code) == {"output": ""}
    assert interpreter.run_all(["assert False"]) == [{"error": "Error: the interpreter ended"}]
    assert interpreter.run("print(1)") == {"output": "1", "error": ""}
