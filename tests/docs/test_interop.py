"""Every program of docs/interop.md runs, and its commands are run by the tests of their doors."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from interop_page import SECTIONS, blocks

DOORS = Path(__file__).parents[1] / "interop"
PROGRAMS = [(section, code) for section in SECTIONS for code in blocks(section, "python")]


@pytest.mark.slow  # the games are generated once per machine
@pytest.mark.parametrize(("section", "program"), PROGRAMS, ids=[section for section, _ in PROGRAMS])
def test_programs_run(section: str, program: str, tmp_path: Path) -> None:
    for module in re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("section", [section for section in SECTIONS if blocks(section, "sh")])
def test_commands_have_a_test(section: str) -> None:
    assert any(f'commands("{section}"' in file.read_text(encoding="utf-8") for file in DOORS.glob("test_*.py"))
