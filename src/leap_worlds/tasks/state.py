"""What is hidden from a student, in words: more of it at each level."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from leap_worlds.intercode.text import paths_in, shorten_output
from leap_worlds.tasks.folder import Phase
from leap_worlds.tasks.script import Command, unrolled
from leap_worlds.tasks.verify import Result

_FAILS = re.compile(
    r"^\s*(?:FAILED|FAIL:?|ERROR|not ok|✗|✘|\[FAIL\]|---\s*FAIL:)\s*(.+)$", re.IGNORECASE | re.MULTILINE
)
_MOST = 12_000


def in_words(phase: Phase, result: Result | None, level: int) -> str:
    """What a teacher is told of a phase.

    Args:
        phase: The phase at hand.
        result: What its tests say now; None where they were not run.
        level: 25: which checks fail now; 50: and what the solution touches; 75: and its steps; 100: the script and the tests.
    """
    said = [_checks(result, level)] if result is not None else []
    script = phase.script
    if script is not None and level >= 50:
        commands = unrolled(script) or (Command(script),)
        programs = dict.fromkeys(
            command.program for command in commands if command.program and "\n" not in command.program
        )
        paths = sorted(path for path in paths_in(script) if not path.startswith(("/bin/", "/usr/bin/")))
        said.append(f"Files that the solution touches: {', '.join(paths) or 'none by name'}")
        said.append(f"Programs that it uses: {', '.join(programs) or 'none'}")
        if level >= 75:
            said.append(
                "Its steps:\n" + "\n".join(f"{n}. {step(command)}" for n, command in enumerate(commands, start=1))
            )
        if level >= 100:
            said.append(f"Reference solution (solve.sh):\n{shorten_output(script.strip(), _MOST)}")
    if level >= 100:
        said += [f"Test {path.name}:\n{shorten_output(text.strip(), _MOST)}" for path, text in _sources(phase.tests)]
    return "\n\n".join(said)


def _checks(result: Result, level: int) -> str:
    if result.score >= 1.0:
        return "All checks pass now."
    fails = failing(result.log)[:40]
    rewards = ", ".join(f"{name} {value:g}" for name, value in result.rewards.items()) or result.problem
    said = f"The tests give now: {rewards}."
    if fails:
        said += "\nChecks that fail now:\n" + "\n".join(f"- {name[:300]}" for name in fails)
    if result.log.strip() and (level >= 75 or not fails):
        said += f"\nWhat the tests print, at the end:\n{result.log.strip()[-1500:]}"
    return said


def failing(log: str) -> list[str]:
    """The checks that the tests print as failed, as far as they do."""
    return list(dict.fromkeys(found.strip() for found in _FAILS.findall(log)))


def step(command: Command) -> str:
    """One command of a solution in words: the comment above it, else its program and the files that it names."""
    if command.comment:
        return command.comment
    paths = ", ".join(sorted(paths_in(command.text)))
    return f"use {command.program}{f' on {paths}' if paths else ''}"


def _sources(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """The tests that are texts, the short ones first."""
    found = []
    for path in sorted(
        each for folder in folders for each in folder.rglob("*") if each.is_file() and each.stat().st_size < 64_000
    ):
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError):
            continue
    return sorted(found, key=lambda each: len(each[1]))[:6]
