"""The `expert` teacher: the environment's scripted teacher at a privilege level, on every step of an episode."""

from __future__ import annotations

from leap.core import Correction, Episode, Rejection
from leap.envs.tutor import scripts
from leap.teachers.base import Teacher
from leap.teachers.config import ExpertConfig


class ExpertTeacher(Teacher[ExpertConfig]):
    """Corrects by rule: replays the student's episode, and at each of the student's own states asks the environment's
    tutor what it would think and do there, given the privileged state (paper, section 3)."""

    Config = ExpertConfig
    name = "expert"
    concurrency = 16

    async def correct(self, episode: Episode) -> list[Correction]:
        """A correction for every step; where the tutor says that nothing can succeed any more, one rejected for that."""
        taught = await scripts(self.context.environment).correct_along(episode, self.privilege)
        return [
            await self.verdict.correction(episode, t, decision, state, otherwise=Rejection.HOPELESS)
            for t, (_, state, decision) in enumerate(taught)
        ]
