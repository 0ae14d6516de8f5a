"""A person at an ALFWorld game (`leap play alfworld`)."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from leap.cli.play import Played, play
from leap.sync import run_sync
from leap_worlds.alfworld.env import AlfworldConfig, AlfworldEnvironment
from leap_worlds.alfworld.generator import GeneratorConfig


def test_a_person_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path))
    generator = GeneratorConfig.model_validate({"games": {"train": 1, "valid": 1, "unseen": 1}, "receptacles": [6, 7]})
    world = AlfworldEnvironment(AlfworldConfig(generator=generator))
    (task,) = world.tasks("train")
    walkthrough = world.start(task).privileged().plan
    assert walkthrough is not None

    def session(answers: list[str]) -> tuple[Played, str]:
        screen = io.StringIO()
        replies = iter(answers)

        def ask(_: str) -> str:
            try:
                return next(replies)
            except StopIteration:
                raise EOFError from None

        return run_sync(play(world, task, Console(file=screen, width=120), ask)), screen.getvalue()

    result, screen = session(["?", *walkthrough])
    assert result.outcome is not None and result.outcome.success
    assert result.hints == 1 and result.steps == len(walkthrough)
    assert f"hint: {walkthrough[0]}" in screen and f"the plan at the start took {len(walkthrough)}" in screen
    assert "solved" in screen and "Your task is to" in screen
    result, screen = session(["1", "999", "", "[/red]", "![/red]", "help", "q"])
    assert result.outcome is not None and not result.outcome.success and result.steps == 2
    assert "there is no number 999" in screen and "[/red] is not on offer" in screen and "Nothing happens." in screen
