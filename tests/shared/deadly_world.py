"""The tiny world, in which a task ends the process that starts it as often as a folder says, as a machine that is lost does."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import ClassVar

from leap import registry
from leap.core import Decision, Task
from leap.envs.base import EnvironmentConfig, Session
from leap.errors import PrerequisiteError
from leap.teachers.function import Ask
from tiny_world import TinyWorld, TinyWorldConfig


class DeadlyConfig(TinyWorldConfig):
    """Options.

    Attributes:
        deaths: Folder of files, each named by a task's number, with how often it still kills.
        driver: The process that is never killed.
    """

    deaths: str = ""
    driver: int = 0


@registry.environment("deadly")
class DeadlyWorld(TinyWorld):
    """Find the key, if you live."""

    name: ClassVar[str] = "deadly"
    Config: ClassVar[type[EnvironmentConfig]] = DeadlyConfig

    def start(self, task: Task) -> Session:
        config: DeadlyConfig = self.config  # type: ignore[assignment]
        left = Path(config.deaths) / task.id.replace("/", "-")
        if os.getpid() != config.driver and left.exists() and (number := int(left.read_text())):
            left.write_text(str(number - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().start(task)


@registry.teacher("slipping")
def slipping(ask: Ask) -> Decision | None:
    """A teacher whose code has a slip."""
    return ask.lesson  # type: ignore[attr-defined]


@registry.teacher("refusing")
def refusing(ask: Ask) -> Decision | None:
    """A teacher that is ill."""
    raise PrerequisiteError("no lessons today")
