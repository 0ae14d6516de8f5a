"""A corridor in which every action takes a while, during which other episodes go on."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from leap import registry
from leap.core import Episode, Task
from leap.envs.base import EnvironmentConfig, Outcome
from leap.files import Journal
from leap.testing.corridor import Corridor, CorridorConfig, CorridorSession


class SlowConfig(CorridorConfig):
    pause: float = Field(default=0.1, ge=0, description="Seconds that an action takes.")


@registry.environment("slow-corridor")
class SlowCorridor(Corridor):
    """A corridor."""

    name: ClassVar[str] = "slow-corridor"
    Config: ClassVar[type[EnvironmentConfig]] = SlowConfig
    config: SlowConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def start(self, task: Task) -> SlowSession:
        return SlowSession(self.config)


class SlowSession(CorridorSession):
    """One walk."""

    def __init__(self, config: SlowConfig) -> None:
        super().__init__(config)
        self._pause = config.pause

    async def act(self, action: str) -> Outcome:  # pyright: ignore[reportIncompatibleMethodOverride]
        await asyncio.sleep(self._pause)
        return super().act(action)


@cache
def kept(file: str) -> dict[str, Episode]:
    """The episodes of a journal by their keys, read once."""
    return {one.key: one for one in Journal(Path(file), Episode)}
