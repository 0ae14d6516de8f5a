"""What was hidden from the student at each step of a run's episodes, for those who export them: by a replay."""

from __future__ import annotations

import logging

from leap.core import Episode, PrivilegedState
from leap.envs.base import Environment, load_environment
from leap.envs.live import states_along
from leap.recipe import load_recipe
from leap.runs.directory import RunDirectory
from leap.sync import run_sync

log = logging.getLogger(__name__)


class Replays:
    """The privileged states along episodes of training and validation tasks; those of test tasks serve nobody. The environment
    is made ready for the first of them. Where that cannot be, or an episode cannot be replayed, there are none, and `close` says
    why: an export is worth having without them.

    Args:
        run: Whose episodes.
        wanted: Whether to replay at all.
    """

    def __init__(self, run: RunDirectory, *, wanted: bool = True) -> None:
        self._run, self._wanted = run, wanted
        self._world: Environment | None = None
        self._tests: list[str] = []
        self._failed: list[str] = []

    def along(self, episode: Episode) -> list[PrivilegedState]:
        """The state before each step; an empty list where there are none."""
        if not self._wanted:
            return []
        try:
            world = self._world or self._ready()
            return [] if episode.task.split in self._tests else run_sync(states_along(world, episode))
        except Exception as error:  # an environment's own code may raise whatever it likes
            self._failed.append(next(iter(str(error).splitlines()), type(error).__name__))
            self._wanted = self._world is not None
            return []

    def close(self) -> None:
        """Frees the environment."""
        if self._world is not None:
            self._world.close()
        if self._failed:
            which = f"of {len(self._failed)} episodes" if self._world else "of any episode"
            log.warning("no privileged states %s: %s", which, self._failed[0])

    def _ready(self) -> Environment:
        section = load_recipe(self._run.recipe).environment
        world = load_environment(section.name, section.options)
        world.prepare()
        self._world, self._tests = world, section.test
        return world
