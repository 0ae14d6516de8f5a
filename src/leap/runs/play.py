"""Tasks played and kept on file: what a journal holds already is not played again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from leap.core import Actor, Episode, Task
from leap.core.episode import episode_key
from leap.envs.base import Environment
from leap.files import Journal
from leap.policies.base import Policy
from leap.progress import Bar
from leap.rollouts import episode_seed, rollout

UnderWay = Callable[[], AbstractContextManager[tuple[Bar, Callable[..., Any]]]]
"""Shows work under way: gives a bar, and a function that notes figures."""


def play_tasks(
    environment: Environment,
    actor: Actor,
    policy: Callable[[], Policy],
    tasks: Sequence[Task],
    journal: Journal[Episode],
    *,
    horizon: int,
    seed: int,
    stream: str,
    under_way: UnderWay,
) -> list[Episode]:
    """Plays what is not on file.

    Args:
        environment: Where to play.
        actor: Who plays, for the record.
        policy: Makes the player; called only if something is to be played.
        tasks: What to play.
        journal: Where each episode is kept as it ends.
        horizon: Largest number of actions per episode.
        seed: The recipe's.
        stream: Name of the random stream.
        under_way: Opened only if something is to be played.

    Returns:
        The tasks' episodes, in the order of splits and ids.
    """
    keys = [
        episode_key(task, actor, seed=episode_seed(seed, stream, task), horizon=horizon)
        for task in sorted(tasks, key=lambda task: (task.split, task.id))
    ]
    if any(key not in journal for key in keys):
        player = policy()
        on_file = [episode for key in keys if (episode := journal.get(key)) is not None]
        done, solved, tokens, shortened = len(on_file), sum(episode.success for episode in on_file), 0, 0
        with under_way() as (bar, note):
            bar.update(done, len(tasks), "")

            def keep(episode: Episode) -> None:
                nonlocal done, solved, tokens, shortened
                journal.append(episode)
                done += 1
                solved += episode.success
                tokens += sum(step.prompt_tokens + step.completion_tokens for step in episode.steps)
                shortened += sum(step.dropped > 0 for step in episode.steps)
                bar.update(done, len(tasks), f"{solved / done:.0%} solved")

            rollout(
                environment,
                player,
                tasks,
                horizon=horizon,
                seed=seed,
                stream=stream,
                done=journal,
                on_episode=keep,
            )
            note(episodes=len(tasks), tokens=tokens)
            if shortened:
                note(shortened_prompts=shortened)
    return [episode for key in keys if (episode := journal.get(key)) is not None]
