"""A corridor in which every action takes a while, so that a run can be met in the middle of a stage."""

from __future__ import annotations

import time

from pydantic import Field

from leap import registry
from leap.core import Task
from leap.envs.base import Outcome
from leap.testing.corridor import Corridor, CorridorConfig, CorridorSession


class SlowConfig(CorridorConfig):
    pause: float = Field(default=0.1, ge=0, description="Seconds that an action takes.")


@registry.environment("slow-corridor")
class SlowCorridor(Corridor):
    """A corridor."""

    name = "slow-corridor"
    Config = SlowConfig
    blocking = True
    config: SlowConfig

    def start(self, task: Task) -> SlowSession:
        return SlowSession(self.config)


class SlowSession(CorridorSession):
    """One walk."""

    blocking = True

    def __init__(self, config: SlowConfig) -> None:
        super().__init__(config)
        self._pause = config.pause

    def act(self, action: str) -> Outcome:
        time.sleep(self._pause)
        return super().act(action)
