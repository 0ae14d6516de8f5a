"""Tasks played and kept on file: what a journal holds already is not played again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from typing import Any

from leap.core import Episode, StopReason
from leap.core.episode import episode_key
from leap.files import Journal
from leap.progress import Bar
from leap.recipe import ExecutorConfig
from leap.rollouts import check_faults, episode_seed
from leap.runs.actors import Actors
from leap.runs.executors import Executor, LocalExecutor, Play, Shard
from leap.sync import run_sync

UnderWay = Callable[[], AbstractContextManager[tuple[Bar, Callable[..., Any]]]]
"""Shows work under way: gives a bar, and a function that notes figures."""

SHARD = 16
"""Tasks in a shard of whoever plays each episode by itself; a student's shards are its batches."""


def play_tasks(
    play: Play, actors: Actors, journal: Journal[Episode], under_way: UnderWay, executor: Executor | None = None
) -> list[Episode]:
    """Plays what is not on file.

    Args:
        play: What to play.
        actors: The run's.
        journal: Where each episode is kept as it ends.
        under_way: Opened only if something is to be played.
        executor: Who plays the shards; this process by default.

    Returns:
        The tasks' episodes, in the order of splits and ids.
    """
    recipe = actors.recipe.model_copy(update={"executor": ExecutorConfig()})  # who plays a shard needs no executor
    seed, tasks, actor = actors.recipe.seed, play.tasks, actors.acting(play.role).actor
    key_of = {
        task.key: episode_key(task, actor, seed=episode_seed(seed, play.stream, task), horizon=play.horizon) for task in tasks
    }
    keys = [key_of[task.key] for task in sorted(tasks, key=lambda task: (task.split, task.id))]
    on_file = [episode for key in keys if (episode := journal.get(key)) is not None]
    if len(on_file) < len(keys):
        size = actors.recipe.student.batch if play.role.kind in ("student", "rollout") else SHARD
        shards = []
        for start in range(0, len(tasks), size):
            some = tasks[start : start + size]
            done = frozenset(key for task in some if (key := key_of[task.key]) in journal)
            if len(done) < len(some):
                shards.append(Shard(actors.run.root, recipe, replace(play, tasks=some), done))
        with under_way() as (bar, note):
            played: list[Episode] = []
            faults: list[Episode] = []  # put on file when all is played: where there are too many, they are played again
            bar.update(len(on_file), len(tasks), "")

            async def keep_all() -> None:
                solved = sum(episode.success for episode in on_file)
                # What is paid is booked in one place, so whoever asks an endpoint plays in this process.
                chosen = executor if executor is not None and not actors.pays(play.role) else LocalExecutor(None)
                async with aclosing(chosen.map(shards, actors)) as episodes:  # pyright: ignore[reportArgumentType]
                    async for episode in episodes:
                        played.append(episode)
                        if episode.stop is StopReason.ENVIRONMENT_ERROR:
                            faults.append(episode)
                            check_faults([one.error for one in faults], len(tasks), actors.recipe.environment.error_share)
                        else:
                            journal.append(episode)
                        solved += episode.success
                        done = len(on_file) + len(played)
                        bar.update(done, len(tasks), f"{solved / done:.0%} solved")

            run_sync(keep_all())
            for episode in faults:
                journal.append(episode)
            if faults:
                note(environment_errors=len(faults))
            steps = [step for episode in played for step in episode.steps]
            note(episodes=len(tasks), tokens=sum(step.prompt_tokens + step.completion_tokens for step in steps))
            if shortened := sum(step.dropped > 0 for step in steps):
                note(shortened_prompts=shortened)
    return [episode for key in keys if (episode := journal.get(key)) is not None]
