"""Plays tasks and returns the episodes in the tasks' order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leap.core import Episode, Task
from leap.envs.base import Environment
from leap.policies.base import ExpertPolicy, Policy
from leap.rollouts import rollout


def played(environment: Environment, policy: Policy, tasks: Sequence[Task], **settings: Any) -> list[Episode]:
    """Plays each task once with a policy.

    Args:
        environment: Where the tasks are from.
        policy: Who acts.
        tasks: Tasks to play.
        **settings: Arguments of `leap.rollouts.rollout` in place of a horizon of 6, seed 0 and the random stream "test".

    Returns:
        The episodes, in the tasks' order.
    """
    episodes: list[Episode] = []
    chosen: dict[str, Any] = {"horizon": 6, "seed": 0, "stream": "test"} | settings
    rollout(environment, policy, list(tasks), on_episode=episodes.append, **chosen)
    order = {task.key: index for index, task in enumerate(tasks)}
    return sorted(episodes, key=lambda episode: order[episode.task.key])


def expert_episodes(environment: Environment, split: str = "train", *, horizon: int = 8) -> list[Episode]:
    """Plays every task of a split with the environment's expert and returns the episodes, in the tasks' order."""
    return played(environment, ExpertPolicy(environment), environment.tasks(split), horizon=horizon)
