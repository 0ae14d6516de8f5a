"""What a student of InterCode Python may do to its whole box, and that no test of a wrong function passes by it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from square import squaring

from leap_worlds.intercode.python.env import PythonSession
from leap_worlds.sandbox import Image, SandboxProvider


@pytest.fixture
def square(provider: SandboxProvider, image: Image) -> Iterator[PythonSession]:
    """A task to square a number, in boxes."""
    with squaring(lambda _: provider.create(image), "boxes", time_limit=3.0) as session:
        yield session


# Each defines a wrong f and then does something to the box. `put` writes a file that programs may run.
CHEATS = {
    "another interpreter in its place": r'''
put("/fake", """#!/bin/bash
echo ready
while read -r line; do
  token=${line##*, }; token=${token%]}
  right='{"output": "", "error": ""}'
  echo "[$token, $right, $right, $right, $right, $right]"
done
""")
import shutil
found = shutil.which("python3"); os.rename(found, "/real"); os.rename("/fake", found)
os._exit(0)
''',
    "what the next interpreter loads": r"""
import json, site
evil = "import builtins, json\nbuiltins.AssertionError = None\njson.dumps = lambda *_, **__: '[\"\"]'\n"
for folder in [*site.getsitepackages(), os.path.dirname(os.__file__)]:
    os.makedirs(folder, exist_ok=True)
    put(folder + "/sitecustomize.py", evil); put(folder + "/usercustomize.py", evil)
    put(folder + "/evil.pth", "import builtins; builtins.exec = lambda *_: None\n")
os._exit(0)
""",
    "the library's own json": r"""
import json, shutil
loads = "def loads(text):\n    import ast\n    return ast.literal_eval(text)\n"
put(json.__file__, loads + "def dumps(value):\n    return '[3, [4, 9, 16]]'\n")
shutil.rmtree(os.path.join(os.path.dirname(json.__file__), "__pycache__"), ignore_errors=True)
os._exit(0)
""",
    "another process that writes into the server": r"""
if os.fork() == 0:
    parent = os.getppid()
    while True:
        for name in (str(parent),):
            for fd in range(3, 10):
                try:
                    with open(f"/proc/{name}/fd/{fd}", "wb", buffering=0) as pipe:
                        pipe.write(b'["", ' + b", ".join([b'{"output": "", "error": ""}'] * 5) + b"]\n")
                except OSError: pass
        time.sleep(0.1)
""",
    "a daemon that answers for every interpreter": r"""
if os.fork() == 0:
    os.setsid()
    while True:
        for name in filter(str.isdigit, os.listdir("/proc")):
            for fd in range(10):
                try:
                    with open(f"/proc/{name}/fd/{fd}", "wb", buffering=0) as pipe: pipe.write(b'[]\n')
                except OSError: pass
os._exit(0)
""",
    "memory of the server written by another": r"""
if os.fork() == 0:
    parent = os.getppid()
    time.sleep(0.2)
    with open(f"/proc/{parent}/maps") as maps, open(f"/proc/{parent}/mem", "r+b", buffering=0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            if "w" not in rights or "[" in line and "heap" not in line: continue
            begin, end = (int(part, 16) for part in span.split("-"))
            try: memory.seek(begin); held = memory.read(end - begin)
            except OSError: continue
            at = held.find(b"no plain data")
            if at >= 0: memory.seek(begin + at); memory.write(b"a plain thing")
    os._exit(0)
""",
    "no interpreter at all": r"""
import shutil
os.remove(shutil.which("python3"))
os._exit(0)
""",
    "nothing at all": r"""
import shutil
shutil.rmtree("/bin", ignore_errors=True); shutil.rmtree("/usr", ignore_errors=True); shutil.rmtree("/lib", ignore_errors=True)
os._exit(0)
""",
    "no room for a process": r"""
import subprocess
for _ in range(200):
    try: subprocess.Popen(["sleep", "7000"], start_new_session=True)
    except OSError: break
os._exit(0)
""",
    "files where the judge may look": r"""
for name in ("/tmp/values", "/tmp/reply", "/dev/shm/reply", "/root/.pythonrc"):
    put(name, '[["output", ""], ["error", ""]]')
os.dup2(os.open("/tmp/reply", os.O_RDONLY), 3)
""",
}


@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS)
def test_nothing_done_to_the_box_passes_a_test(square: PythonSession, code: str) -> None:
    start = """
import os, sys, time
def f(x): return 0
def put(path, text):
    with open(path, "w") as file: file.write(text)
    os.chmod(path, 0o755)
"""
    square.run(start + code)
    assert "syntax" not in square.shown() and "not defined" not in square.shown(), square.shown()
    square.run("def f(x): return 0")
    assert square.act("submit f").score == 0.0


def test_right_values_pass_in_boxes(square: PythonSession) -> None:
    square.run("def f(x): return x ** 2")
    assert square.act("submit f").score == 1.0
