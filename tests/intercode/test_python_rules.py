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
from square import squaring

from leap_worlds.intercode.python.actions import (
    defining,
    function_name,
    prepared,
    reward,
    submitted_name,
    taken_apart,
)
from leap_worlds.intercode.python.env import PythonSession
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

    def reset(self) -> None:
        self.kill()

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()


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


@pytest.mark.parametrize(
    ("test", "calls", "rest"),
    [
        ("assert f([Pair(1, 2)], 4) == 3", "(f([Pair(1, 2)], 4), )", "assert values[0] == 3"),
        ("assert set(f(1)) == set(g(2))", "(f(1), g(2), )", "assert set(values[0]) == set(values[1])"),
        ("assert math.isclose(f(1), 2.0)", "(f(1), )", "assert math.isclose(values[0], 2.0)"),
        ("assert sum(10, 15) == 6", "(sum(10, 15), )", "assert values[0] == 6"),
        ("assert True", "()", "assert True"),
    ],
)
def test_a_test_is_taken_apart_into_its_calls_and_what_is_asked_of_them(test: str, calls: str, rest: str) -> None:
    assert taken_apart(test, "def f(x): ...\ndef sum(a, b): ...") == (calls, rest)


@pytest.fixture
def square() -> Iterator[PythonSession]:
    """A task to square a number, its interpreters in processes here."""
    with squaring(lambda _: Process(), "processes", time_limit=1.0) as session:
        yield session


CHEATS = {
    "replies that wait": """
def f(x): return 0
put('[{"output": "", "error": ""}]\\n[' + ', '.join(['{"output": "", "error": ""}'] * 5) + ']\\n')
""",
    "the token of the request": """
def f(x):
    frame = sys._getframe()
    while "line" not in frame.f_locals: frame = frame.f_back
    token = json.loads(frame.f_locals["line"])[2]
    put(json.dumps([token, *[{"output": "", "error": ""}] * 5]) + chr(10))
    os._exit(0)
""",
    "a value of its own mind": """
class Equal(int):
    def __eq__(self, other): return True
def f(x): return Equal()
""",
    "a value that runs": """
class Value:
    def __reduce__(self): return os._exit, (0,)
def f(x): return Value()
""",
    "a kind that is changed on the way": """
import base64, pickle
def f(x): return 0
changed = b"ccollections\\nCounter\\nN}(\\x8c\\x06__eq__cbuiltins\\nstr\\nu\\x86b0(ccollections\\nCounter\\n)\\x81t."
pickle.dumps = lambda *_: b"\\x80\\x04" + changed
""",
    "what makes text of values": """
class Any(dict):
    def __eq__(self, other): return True
    def items(self): return [("__eq__", lambda *_: True)]
def f(x): return Any(x=1)
json.dumps = lambda *_: '[2, [[0, [[1, ["__class__", 4]]]]]]'
""",
    "every class of numbers": """
import gc
def f(x): return 0
for kind in (list, tuple, str):
    for one in gc.get_referents(kind.__dict__):
        if isinstance(one, dict): one["__eq__"] = lambda *_: True
""",
    "a tracer and a hook": """
def f(x): return 0
def trace(frame, event, argument):
    if "seconds" in frame.f_locals: frame.f_locals["code"] = "pass"
    return trace
sys.settrace(trace); sys.setprofile(lambda *_: None)
sys.addaudithook(lambda *_: None)
sys.unraisablehook = sys.excepthook = lambda *_: None
""",
    "words that are something else": """
import builtins
def f(x): return 0
builtins.exec = lambda *_: None
builtins.str = builtins.print = lambda *_, **__: ""
""",
    "bytes in memory": """
import ctypes
class Yes:
    def __eq__(self, other): return True
def f(x): return 0
put_here, take = (ctypes.c_void_p.from_address(id(kind) + 200) for kind in (int, Yes))  # how they compare
put_here.value = take.value
""",
    "an answer after the end": """
import atexit, signal
def f(x): os._exit(0)
atexit.register(put, '["", {"output": "", "error": ""}]\\n')
for number in (signal.SIGALRM, signal.SIGTERM): signal.signal(number, lambda *_: put("[]"))
""",
    "another server": """
def f(x): return 0
frame = sys._getframe()
while "line" not in frame.f_locals: frame = frame.f_back
frame.f_locals["run"].__code__ = (lambda code, names, seconds: {"output": "", "error": ""}).__code__
""",
    "a thread that writes": """
def f(x):
    time.sleep(0.2)
def go():
    for _ in range(20):
        time.sleep(0.05)
        put('[' + ', '.join(['{"output": "", "error": ""}'] * 5) + ']\\n')
threading.Thread(target=go, daemon=True).start()
""",
    "a process that stays": """
def f(x): return 0
if os.fork() == 0:
    for _ in range(40):
        put('["", ' + ', '.join(['{"output": "", "error": ""}'] * 5) + ']\\n')
        time.sleep(0.05)
    os._exit(0)
""",
    "errors made none": """
import builtins
def f(x): return 0
builtins.AssertionError = builtins.TypeError = None
sys.stdout.write = sys.stderr.write = lambda *_: None
""",
}


@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS)
def test_no_trick_in_the_students_interpreter_passes_a_test(square: PythonSession, code: str) -> None:
    put = """
def put(text):
    for fd in range(3, 20):
        try: os.write(fd, text.encode())
        except OSError: pass
"""
    square.run(f"import json, os, sys, threading, time\n{put}{code}")
    assert "syntax" not in square.shown() and "not defined" not in square.shown(), square.shown()
    assert square.judge("f") == 0.0


def test_right_values_pass_and_what_is_printed_is_compared_as_upstream_has_it(square: PythonSession) -> None:
    assert square.judge("f") == 0.0, "not defined yet"
    square.run("def power(x): return x**2")
    assert square.judge("power") == 1.0
    square.run("def near(x): return 4 if x == 2 else x")
    assert square.judge("near") == 1 / 3
    square.run("def loud(x):\n  print('I square')\n  return x * x")
    assert square.judge("loud") == 0.0
    assert [share for _, share, _ in square.explain()] == ["0.00"] * 3
