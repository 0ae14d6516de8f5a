"""Rollouts: many episodes at once, each finished one handed on at once, so that a kill loses none of them.

A policy whose answers depend, in the last bits, on what else is in its batch plays in waves of its concurrency, in the
tasks' order. A wave that was interrupted is played again whole and only what is not yet on file is kept: the batch that a
model sees is then the same as if nothing had happened, and with it every number. For any other policy an episode that ends
makes room for the next at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container, Sequence

from leap import __version__
from leap.core import Episode, History, Observation, Step, StopReason, Task, content_key
from leap.core.episode import episode_key
from leap.envs.base import Environment
from leap.envs.live import Live
from leap.errors import ContractError, EnvironmentFault, ModelError, ModelRefused
from leap.models.losses import Streak
from leap.policies.base import Act, Player, Policy
from leap.sync import side_by_side, synchronous

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a failed model call is made before its episode ends."""


def episode_seed(seed: int, stream: str, task: Task) -> int:
    """The seed of one episode's sampling: the recipe's, split by the name of the stream and by task."""
    return int(content_key(seed, stream, task.key), 16) % 2**31


async def play_all(
    environment: Environment,
    policy: Policy,
    tasks: Sequence[Task],
    *,
    horizon: int,
    seed: int,
    stream: str,
    done: Container[str] = frozenset(),
    on_episode: Callable[[Episode], None] = lambda episode: None,
    error_share: float = 0.05,
) -> None:
    """Plays every task once (Algorithm 1: roll out pi_{i-1}).

    Args:
        environment: Where to play.
        policy: Who plays.
        tasks: What to play, in order.
        horizon: Largest number of actions per episode.
        seed: The recipe's seed.
        stream: Name of the random stream, so that different rollouts of one recipe draw differently.
        done: Keys of episodes on file already; they are not handed on again.
        on_episode: Called with each finished episode, as it finishes.
        error_share: The share of the tasks whose episodes may end by an error of the environment's own.

    Raises:
        EnvironmentFault: More of them did.
        ModelError: The policy's model has stopped answering; what was played by then is handed on.
        ContractError: A task is given twice, or the environment returned what it may not.
    """
    seeded = [(task, episode_seed(seed, stream, task)) for task in tasks]
    missing = [(task, own) for task, own in seeded if episode_key(task, policy.actor, seed=own, horizon=horizon) not in done]
    wanted = {task.key for task, _ in missing}
    if len({task.key for task in tasks}) < len(tasks):
        raise ContractError(f"environment {environment.name}: a task is to be played twice.")
    faults: list[str] = []
    lost = Streak(policy.actor.name)

    async def play_one(item: tuple[Task, int]) -> None:
        task, own = item
        episode = await play(environment, policy, task, horizon=horizon, seed=own)
        if task.key in wanted:
            on_episode(episode)
        if episode.stop is StopReason.ENVIRONMENT_ERROR:
            faults.append(episode.error)
            check_faults(faults, len(tasks), error_share)
        lost.count(episode.error if episode.lost else "")
        await asyncio.sleep(0)  # scripted players never wait: whoever keeps the episode takes it now, and Ctrl-C is heard

    if not policy.waves:
        await side_by_side(missing, play_one, policy.concurrency)
        return
    for start in range(0, len(seeded), policy.concurrency):
        wave = seeded[start : start + policy.concurrency]
        if any(task.key in wanted for task, _ in wave):
            await side_by_side(wave, play_one, len(wave))


rollout = synchronous(play_all)


def check_faults(errors: Sequence[str], episodes: int, share: float) -> None:
    """Refuses to go on where an environment's own code fails too often.

    Args:
        errors: The errors so far, of an episode each.
        episodes: How many episodes are to be played.
        share: The share of them that may end so.

    Raises:
        EnvironmentFault: More of them did.
    """
    if len(errors) > share * episodes:
        raise EnvironmentFault(
            f"{len(errors)} of {episodes} episodes ended by an error of the environment's own code, where {share:.0%} of them "
            "may (environment.error_share). Mend it and give the same command again; the other episodes are kept. The first "
            f"error: {errors[0]}"
        )


async def play(environment: Environment, policy: Policy, task: Task, *, horizon: int, seed: int) -> Episode:
    """Plays one task to its end. A model that keeps failing ends the episode, with what was reached, not the run; so does an
    environment whose own code raises."""
    began = time.monotonic()
    steps: list[Step] = []
    stop, success, score, parts, error, lost = StopReason.HORIZON, False, 0.0, {}, "", False
    history: History | None = None
    session = Live(environment, task)
    peek = session.privileged if policy.privileged else None
    # The policy's conversation opens first: those of a wave are then in the tasks' order, however long sessions take to start.
    try:
        async with policy.playing(seed, peek) as player, session:
            history = History(task=task, observations=(await session.observe(),))
            while len(steps) < horizon:
                try:
                    act = await _decide(player, history)
                except ModelError as failure:
                    stop, error, lost = StopReason.MODEL_ERROR, str(failure), not isinstance(failure, ModelRefused)
                    log.warning("task %s: %s", task.id, failure)
                    break
                outcome = await session.act(act.decision.action)
                steps.append(
                    Step(
                        observation=history.now,
                        reason=act.decision.reason,
                        action=act.decision.action,
                        completion=act.completion,
                        parsed=act.parsed,
                        reward=outcome.reward,
                        prompt_tokens=act.prompt_tokens,
                        completion_tokens=act.completion_tokens,
                        dropped=act.dropped,
                    )
                )
                history = history.extend(act.decision.action, outcome.observation)
                success, score, parts = outcome.success, outcome.score, dict(outcome.parts)
                if outcome.done:
                    stop = StopReason.SUCCESS if success else StopReason.ENDED
                    break
    except EnvironmentFault as fault:
        stop, error = StopReason.ENVIRONMENT_ERROR, str(fault)
        log.error("%s", fault)
    return Episode(
        task=task,
        actor=policy.actor,
        seed=seed,
        horizon=horizon,
        steps=tuple(steps),
        final=history.now if history is not None else Observation(text=""),
        score=score,
        parts=parts,
        success=success,
        stop=stop,
        seconds=round(time.monotonic() - began, 3),
        error=error,
        lost=lost,
        versions={"leap": __version__, **environment.versions()},
    )


async def _decide(player: Player, history: History) -> Act:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await player.decide(history)
        except ModelError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")
