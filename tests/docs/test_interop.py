"""Every command and every program of docs/interop.md runs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "interop.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)[^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
PROGRAMS = [
    (name, code) for name, text in SECTIONS.items() for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]


@pytest.mark.slow  # the games are generated once per machine
@pytest.mark.parametrize(("section", "program"), PROGRAMS, ids=[name for name, _ in PROGRAMS])
def test_programs_run(section: str, program: str, tmp_path: Path) -> None:
    for module in re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
