"""Tasks played and kept on file: what a journal holds already is not played again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from leap.core import Episode, StopReason, Task
from leap.core.episode import episode_key
from leap.files import Journal
from leap.progress import Bar
from leap.rollouts import episode_seed, rollout
from leap.runs.actors import Actors, Role

UnderWay = Callable[[], AbstractContextManager[tuple[Bar, Callable[..., Any]]]]
"""Shows work under way: gives a bar, and a function that notes figures."""


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
    tasks: Sequence[Task]
    horizon: int
    stream: str


def play_tasks(play: Play, actors: Actors, journal: Journal[Episode], under_way: UnderWay) -> list[Episode]:
    """Plays what is not on file.

    Args:
        play: What to play.
        actors: The run's.
        journal: Where each episode is kept as it ends.
        under_way: Opened only if something is to be played.

    Returns:
        The tasks' episodes, in the order of splits and ids.
    """
    seed, tasks = actors.recipe.seed, play.tasks
    acting = actors.acting(play.role)
    keys = [
        episode_key(task, acting.actor, seed=episode_seed(seed, play.stream, task), horizon=play.horizon)
        for task in sorted(tasks, key=lambda task: (task.split, task.id))
    ]
    if any(key not in journal for key in keys):
        player = acting.policy()
        on_file = [episode for key in keys if (episode := journal.get(key)) is not None]
        faults: list[Episode] = []  # put on file when all is played: where there are too many, they are played again
        done, solved, tokens, shortened = len(on_file), sum(episode.success for episode in on_file), 0, 0
        with under_way() as (bar, note):
            bar.update(done, len(tasks), "")

            def keep(episode: Episode) -> None:
                nonlocal done, solved, tokens, shortened
                if episode.stop is StopReason.ENVIRONMENT_ERROR:
                    faults.append(episode)
                else:
                    journal.append(episode)
                done += 1
                solved += episode.success
                tokens += sum(step.prompt_tokens + step.completion_tokens for step in episode.steps)
                shortened += sum(step.dropped > 0 for step in episode.steps)
                bar.update(done, len(tasks), f"{solved / done:.0%} solved")

            rollout(
                actors.environment,
                player,
                tasks,
                horizon=play.horizon,
                seed=seed,
                stream=play.stream,
                done=journal,
                on_episode=keep,
                error_share=actors.recipe.environment.error_share,
            )
            for episode in faults:
                journal.append(episode)
            if faults:
                note(environment_errors=len(faults))
            note(episodes=len(tasks), tokens=tokens)
            if shortened:
                note(shortened_prompts=shortened)
    return [episode for key in keys if (episode := journal.get(key)) is not None]
