"""docs/interop.md: its programs and its commands, by section."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_PAGE = (Path(__file__).parents[2] / "docs" / "interop.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([\w -]+)[^\n]*\n(.*?)(?=^## |\Z)", _PAGE, re.MULTILINE | re.DOTALL))


def blocks(section: str, language: str) -> list[str]:
    """The code blocks of a language in a section."""
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)


def commands(section: str, **stand_ins: str) -> list[list[str]]:
    """The commands of a section as lists of words, with something in place of words in capitals."""
    lines = [line for block in blocks(section, "sh") for line in block.splitlines()]
    return [[stand_ins.get(word, word) for word in shlex.split(line, comments=True)] for line in lines]
