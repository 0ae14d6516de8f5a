"""Pages say what the code says: the API page names what is public, the FAQ quotes real messages, Python in the README runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import RECIPE

import leap
from leap import registry
from tiny_world import TinyWorld, TinyWorldConfig

ROOT = Path(__file__).parents[2]


def test_the_api_page_names_everything_public() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"leap\.(\w+)\b", page)) | {"__version__"}
    assert set(leap.__all__) <= named
    for name in re.findall(r"^::: (\S+)$", page, re.M):
        thing: Any = leap
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)


def _messages() -> Iterator[str]:
    """Every text in the sources; what is filled in is one character that stands in no message."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_faq_quotes_messages_of_the_code() -> None:
    said = "\n".join(_messages()).replace("`", "")
    headings = re.findall(r"^### (.*)$", (ROOT / "docs" / "faq.md").read_text(encoding="utf-8"), re.M)
    quoted = [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]
    assert len(quoted) > 25
    missing = [one for one in quoted if not re.search("[^\n]*".join(map(re.escape, one.split("..."))), said)]
    assert not missing


def test_python_in_the_documents_is_python() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            ast.parse(block)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(block.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE.replace("name: tiny-world", "name: readme", 1), encoding="utf-8")
    for kind in (registry.teacher, registry.environment):
        monkeypatch.setattr(kind, "_decorated", {})  # what it registers is gone with it
    space = {"MyEnv": lambda: TinyWorld(TinyWorldConfig(tasks=6)), "__name__": "__main__"}
    exec(compile(block, "README.md", "exec"), space)
    assert "The cause is known." in capsys.readouterr().out
    assert Path("runs/readme/report/index.html").is_file()
