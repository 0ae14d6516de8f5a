"""Plays tasks with a policy, or action by action as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leap.core import Actor, Episode, Step, StopReason, Task
from leap.envs.base import Environment
from leap.envs.live import Live
from leap.policies.base import ExpertPolicy, Policy
from leap.rollouts import Play, rollout
from leap.sync import run_sync


def played(
    environment: Environment,
    policy: Policy,
    tasks: Sequence[Task],
    *,
    horizon: int = 6,
    seed: int = 0,
    stream: str = "test",
    tokens: bool = False,
    **settings: Any,
) -> list[Episode]:
    """Plays each task once with a policy.

    Args:
        environment: Where the tasks are from.
        policy: Who acts.
        tasks: Tasks to play.
        horizon, seed, stream, tokens: As of a `leap.rollouts.Play`.
        **settings: Arguments of `leap.rollouts.rollout`.

    Returns:
        The episodes, in the tasks' order.
    """
    episodes: list[Episode] = []
    rollout(environment, policy, Play(tasks, horizon, seed, stream, tokens), episodes.append, **settings)
    order = {task.key: index for index, task in enumerate(tasks)}
    return sorted(episodes, key=lambda episode: order[episode.task.key])


def expert_episodes(environment: Environment, split: str = "train", *, horizon: int = 8) -> list[Episode]:
    """Plays every task of a split with the environment's expert and returns the episodes, in the tasks' order."""
    return played(environment, ExpertPolicy(environment), environment.tasks(split), horizon=horizon)


def walked(
    environment: Environment,
    task: Task,
    actions: Sequence[str],
    *,
    actor: Actor | None = None,
    reason: str = "so",
    horizon: int = 6,
    stop: StopReason | None = None,
) -> Episode:
    """Takes given actions in a fresh session and returns the episode that comes of them.

    Args:
        environment: Where the task is from.
        task: The task.
        actions: What to do, to the last one or to the end of the episode.
        actor: Whose episode it is said to be; the student's by default.
        reason: The reason of every step.
        horizon: As the episode tells.
        stop: Why it ended, if not for success or the horizon.
    """

    async def walk() -> Episode:
        steps: list[Step] = []
        async with Live(environment, task) as session:
            shown, success, score = await session.observe(), False, 0.0
            for action in actions:
                steps.append(Step(observation=shown, reason=reason, action=action, completion=action))
                outcome = await session.act(action)
                shown, success, score = outcome.observation, outcome.success, outcome.score
                if outcome.done:
                    break
        return Episode(
            task=task,
            actor=actor or Actor(name="student", iteration=0),
            horizon=horizon,
            steps=tuple(steps),
            final=shown,
            score=score,
            success=success,
            stop=stop or (StopReason.SUCCESS if success else StopReason.HORIZON),
        )

    return run_sync(walk())
