"""Executors: where the shards of a stage are played. `local` plays them in this process; others are registered by a decorator or
an entry point (`leap.executors`) and named in a recipe, `executor: {kind: NAME, ...}` with its own options.

What crosses to another process or machine is a `Shard`: names, settings and tasks, never live objects. Episodes come back; only
the process that drives the run writes its files. Which tasks are in a shard depends on the recipe alone and never on who plays
it or on how many there are, so that every executor gives the same episodes.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from leap import registry
from leap.core import Episode, Task
from leap.envs.base import load_environment
from leap.recipe import ExecutorConfig, Recipe
from leap.rollouts import play_all
from leap.runs.actors import Actors, Role
from leap.runs.directory import RunDirectory
from leap.sync import run_sync


@dataclass(frozen=True, slots=True)
class Play:
    """What is to be played.

    Attributes:
        role: Who plays.
        tasks: The tasks, in order.
        horizon: Largest number of actions.
        stream: Name of the random stream.
    """

    role: Role
    tasks: tuple[Task, ...]
    horizon: int
    stream: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a stage's tasks, with all that another process needs to play them. It can be pickled.

    Attributes:
        root: The run directory, which holds the checkpoints.
        recipe: The recipe, but for its executor.
        play: Who plays what.
        done: Keys of the episodes that are on file; they are not wanted again, though their tasks may be played again as a part
            of a batch.
    """

    root: Path
    recipe: Recipe
    play: Play
    done: frozenset[str] = frozenset()


class Executor(ABC):
    """Plays shards, somewhere.

    Args:
        config: Its options, an instance of its `Config`.
    """

    Config: ClassVar[type[ExecutorConfig]] = ExecutorConfig

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Episode]:
        """Plays shards and yields their episodes as they end, in any order. `play_shard` plays one in any process.

        Args:
            shards: What to play.
            here: The actors of this process, for executors that play in it.
        """

    def close(self) -> None:  # noqa: B027 - most executors hold nothing
        """Frees what the executor holds."""


class LocalExecutor(Executor):
    """Plays in this process, with the weights and the environment that it holds already."""

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Episode]:
        ended: asyncio.Queue[Episode | None] = asyncio.Queue()
        whole = replace(shards[0].play, tasks=tuple(task for shard in shards for task in shard.play.tasks))
        done = frozenset().union(*(shard.done for shard in shards))

        async def playing() -> None:
            try:
                await _play(whole, here, done, ended.put_nowait)
            finally:
                ended.put_nowait(None)

        under_way = asyncio.create_task(playing())
        try:
            while (episode := await ended.get()) is not None:
                yield episode
            await under_way
        finally:
            under_way.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await under_way


def play_shard(shard: Shard) -> list[Episode]:
    """Plays one shard in this process and returns the episodes that are wanted. It needs the shard, the run directory and an
    installed leap, and keeps environment and weights for the next shard of the same run."""
    episodes: list[Episode] = []
    run_sync(_play(shard.play, _actors_of(shard), shard.done, episodes.append))
    return episodes


async def _play(play: Play, actors: Actors, done: frozenset[str], on_episode: Any) -> None:
    await play_all(
        actors.environment,
        actors.acting(play.role).policy(),
        play.tasks,
        horizon=play.horizon,
        seed=actors.recipe.seed,
        stream=play.stream,
        done=done,
        on_episode=on_episode,
        error_share=1.0,  # who drives the run counts the errors of all shards
    )


_known: dict[tuple[Path, str], Actors] = {}
"""The actors of the run whose shards this process plays."""


def _actors_of(shard: Shard) -> Actors:
    key = (shard.root, shard.recipe.model_dump_json())
    if key not in _known:
        for actors in _known.values():
            actors.close()
            actors.environment.close()
        _known.clear()
        section = shard.recipe.environment
        environment = load_environment(section.name, section.options)
        environment.prepare()
        _known[key] = Actors(shard.recipe, RunDirectory(shard.root), environment)
    return _known[key]


def open_executor(section: ExecutorConfig) -> Executor:
    """Makes the executor that a recipe names.

    Raises:
        RecipeError: There is none of that name.
        PrerequisiteError: Its package cannot be imported.
    """
    return registry.executor.get(section.kind)(section)
