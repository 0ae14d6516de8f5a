"""Executors: where the shards of a stage are played. `local` plays them in this process; others are registered by a decorator or
an entry point (`leap.executors`) and named in a recipe, `executor: {kind: NAME, ...}` with its own options.

What crosses to another process or machine is a `Shard`: names, settings and tasks, never live objects. Episodes come back; only
the process that drives the run writes its files. Which tasks are in a shard depends on the recipe alone and never on who plays
it or on how many there are, so that every executor gives the same episodes.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from leap.core import Episode, StopReason
from leap.envs.base import load_environment
from leap.evaluation import Evaluation, evaluate_episodes
from leap.files import Journal
from leap.models.breaker import check_lost
from leap.progress import Bar
from leap.recipe import ExecutorConfig, Recipe
from leap.rollouts import Play, check_faults, play_all
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.runs.policies import PolicySpec
from leap.sync import run_sync

SHARD = 16
"""Tasks in a shard of whoever plays each episode by itself; a student's shards are its batches."""

UnderWay = Callable[[], AbstractContextManager[tuple[Bar, Callable[..., None]]]]
"""Shows work under way: gives a bar, and a function that notes figures."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a stage's tasks, with all that another process needs to play them. It can be pickled.

    Attributes:
        root: The run directory, which holds the checkpoints.
        recipe: The recipe, but for its executor.
        spec: Who plays.
        play: What.
        done: Keys of the episodes that are on file; they are not wanted again, though their tasks may be played again as a part
            of a batch.
    """

    root: Path
    recipe: Recipe
    spec: PolicySpec
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
        tasks = [task for shard in shards for task in shard.play.tasks]
        done = frozenset().union(*(shard.done for shard in shards))
        whole = replace(shards[0], play=replace(shards[0].play, tasks=tasks), done=done)
        playing = asyncio.create_task(_play(whole, here, ended.put_nowait))
        playing.add_done_callback(lambda _: ended.put_nowait(None))
        try:
            while (episode := await ended.get()) is not None:
                yield episode
            await playing
        finally:
            playing.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await playing


def play_shard(shard: Shard) -> list[Episode]:
    """Plays one shard in this process and returns the episodes that are wanted. It needs the shard, the run directory and an
    installed leap, and keeps environment and weights for the next shard of the same run."""
    episodes: list[Episode] = []
    run_sync(_play(shard, _actors_of(shard), episodes.append))
    return episodes


async def _play(shard: Shard, actors: Actors, on_episode: Callable[[Episode], None]) -> None:
    policy = actors.acting(shard.spec).policy()
    # Who drives the run counts the errors of all shards.
    await play_all(actors.environment, policy, shard.play, on_episode, done=shard.done, error_share=1.0)


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


def play_tasks(
    spec: PolicySpec,
    play: Play,
    actors: Actors,
    journal: Journal[Episode],
    under_way: UnderWay,
    executor: Executor | None = None,
) -> list[Episode]:
    """Plays what is not in a journal, and puts each episode there as it ends. `under_way` is opened only if something is to be
    played; this process plays where there is no executor.

    Returns:
        The tasks' episodes, in the order of splits and ids.

    Raises:
        LeapError: Too many were lost to failed calls of a model, or to errors of the environment. All others are on file.
    """
    tasks, actor = play.tasks, actors.acting(spec).actor
    key_of = {task.key: play.key_of(task, actor) for task in tasks}
    keys = [key_of[task.key] for task in sorted(tasks, key=lambda task: (task.split, task.id))]
    on_file = [episode for key in keys if (episode := journal.get(key)) is not None]
    if len(on_file) == len(keys):
        return on_file
    recipe = actors.recipe.model_copy(update={"executor": ExecutorConfig()})  # who plays a shard needs no executor
    size = actors.recipe.student.batch if spec.kind in ("student", "rollout") else SHARD
    shards = []
    for start in range(0, len(tasks), size):
        some = tasks[start : start + size]
        done = frozenset(key for task in some if (key := key_of[task.key]) in journal)
        if len(done) < len(some):
            shards.append(Shard(actors.run.root, recipe, spec, replace(play, tasks=some), done))
    played: list[Episode] = []
    # Put on file when all is played: where there are too many, they are played again.
    faults: list[Episode] = []
    lost: list[Episode] = []
    # What is paid is booked in one place, so whoever asks an endpoint plays in this process.
    chosen = LocalExecutor(None) if executor is None or actors.pays(spec) else executor

    async def keep_all(bar: Bar) -> None:
        solved = sum(episode.success for episode in on_file)
        async with aclosing(chosen.map(shards, actors)) as episodes:  # pyright: ignore[reportArgumentType]
            async for episode in episodes:
                played.append(episode)
                if episode.stop is StopReason.ENVIRONMENT_ERROR:
                    faults.append(episode)
                    check_faults([one.error for one in faults], len(tasks), actors.recipe.environment.error_share)
                elif episode.lost:
                    lost.append(episode)
                else:
                    journal.append(episode)
                solved += episode.success
                done = len(on_file) + len(played)
                bar.update(done, len(tasks), f"{solved / done:.0%} solved")

    with under_way() as (bar, note):
        bar.update(len(on_file), len(tasks), "")
        run_sync(keep_all(bar))
        check_lost(actor.name, [one.error for one in lost], len(tasks), actors.recipe.lost_share)
        for episode in (*faults, *lost):
            journal.append(episode)
        if faults:
            note(environment_errors=len(faults))
        if lost:
            note(lost=len(lost))
        steps = [step for episode in played for step in episode.steps]
        note(episodes=len(tasks), tokens=sum(step.prompt_tokens + step.completion_tokens for step in steps))
        if shortened := sum(step.dropped > 0 for step in steps):
            note(shortened_prompts=shortened)
    return [episode for key in keys if (episode := journal.get(key)) is not None]


def score_tasks(
    spec: PolicySpec, play: Play, actors: Actors, file: Path, under_way: UnderWay, executor: Executor | None = None
) -> Evaluation:
    """Plays what is not in the journal of that file, as `play_tasks` does, and scores all."""
    return evaluate_episodes(play_tasks(spec, play, actors, Journal(file, Episode), under_way, executor), policy=spec.name)
