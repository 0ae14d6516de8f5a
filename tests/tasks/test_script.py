"""Reference solutions as lists of commands: taken apart where each can be run by itself, else left whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap_worlds.tasks.script import unrolled

LISTS = [
    ("echo a\necho b", ["echo a", "echo b"]),
    ("#!/bin/bash\nset -euo pipefail\n\ncd /x && ls", ["cd /x && ls"]),
    ("a |\n  b\nc \\\n  d", ["a |\n  b", "c \\\n  d"]),
    ("for x in 1 2; do\n  echo $x\ndone\necho end", ["for x in 1 2; do\n  echo $x\ndone", "echo end"]),
    ("if a; then\n b\nelse\n c\nfi", ["if a; then\n b\nelse\n c\nfi"]),
    ("cat > x <<'EOF'\nif you\n'quote\nEOF\nls", ["cat > x <<'EOF'\nif you\n'quote\nEOF", "ls"]),
    ("cat <<A <<-B\na\nA\n\tb\n\tB\nls", ["cat <<A <<-B\na\nA\n\tb\n\tB", "ls"]),
    ("python3 -c '\nprint(1)\nx = 2\n'\nls", ["python3 -c '\nprint(1)\nx = 2\n'", "ls"]),
    ('echo "a\n# b"\nls', ['echo "a\n# b"', "ls"]),
    ("(cd /a;\n ls)\nls", ["(cd /a;\n ls)", "ls"]),
    ("case $x in\n a) b ;;\nesac\nls", ["case $x in\n a) b ;;\nesac", "ls"]),
    ("A=1 B=2 make\nls", ["A=1 B=2 make", "ls"]),
    ('X="a b" make; ls ${#Y}\nls', ['X="a b" make; ls ${#Y}', "ls"]),
    ("cat <<< $x\nls", ["cat <<< $x", "ls"]),
    ("echo it is # don't\nls", ["echo it is # don't", "ls"]),
]


@pytest.mark.parametrize(("script", "commands"), LISTS)
def test_a_list_is_taken_apart(script: str, commands: list[str]) -> None:
    found = unrolled(script)
    assert found is not None and [command.text for command in found] == commands


@pytest.mark.parametrize(
    "script",
    ["", "# nothing", "X=1\necho $X",
     "export X=1", "f() {\n echo\n}\nf", "source /x", ". /x", "cd $(dirname $0)", "shopt -s globstar",
     "echo ${BASH_SOURCE[0]}", "echo $1", "trap x EXIT", "exit 0", "set -a", "items=(1 2)", "read -r x", "NOW=$(date +%s)",
     "A=1; echo $A", "echo 'open", "if a; then"],
)  # fmt: skip
def test_what_shares_a_shell_is_left_whole(script: str) -> None:
    assert unrolled(script) is None


def test_comments_above_a_command_are_its_own() -> None:
    found = unrolled("#!/bin/bash\n# first\n# then\na\n\n# lost\n\nb\nc\n")
    assert found is not None and [(each.text, each.comment) for each in found] == [
        ("a", "first then"),
        ("b", ""),
        ("c", ""),
    ]


@given(st.text("ab'\"\\\n <>|&;(){}#$EOF=", max_size=60))
def test_nothing_is_lost_whatever_the_script(script: str) -> None:
    found = unrolled(script)
    if found is not None:
        rest = script
        for command in found:  # each stands in the script, behind those before it
            assert command.text in rest
            rest = rest[rest.index(command.text) + len(command.text) :]


@pytest.mark.parametrize("script", [script for script, _ in LISTS])
def test_each_command_is_one_that_bash_can_read(script: str, tmp_path: Path) -> None:
    for command in unrolled(script) or ():
        done = subprocess.run(["bash", "-n", "-c", command.text], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
