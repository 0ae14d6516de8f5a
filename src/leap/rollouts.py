"""Rollouts: many episodes at once, each finished one handed on at once, so that a kill loses none of them.

A policy whose answers depend, in the last bits, on what else is in its batch plays in waves of its concurrency, in the
tasks' order. A wave that was interrupted is played again whole and only what is not yet on file is kept: the batch that a
model sees is then the same as if nothing had happened, and with it every number. For any other policy an episode that ends
makes room for the next at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from leap import __version__
from leap.core import Actor, Episode, History, Observation, Step, StopReason, Task, seed_of
from leap.core.episode import episode_key
from leap.envs.base import Environment
from leap.envs.live import Live
from leap.errors import ContractError, EnvironmentFault, ModelError, ModelRefused
from leap.models.breaker import CircuitBreaker
from leap.policies.base import Act, Player, Policy
from leap.sync import synchronous, work_through

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a failed model call is made before its episode ends."""


@dataclass(frozen=True, slots=True)
class Play:
    """What is to be played.

    Attributes:
        tasks: The tasks, in order, each once.
        horizon: Largest number of actions per episode.
        seed: The recipe's seed.
        stream: Name of the random stream, so that different rollouts of one recipe draw differently.
        tokens: Whether steps keep their tokens as sampled.
    """

    tasks: Sequence[Task]
    horizon: int
    seed: int
    stream: str
    tokens: bool = False

    def seed_of(self, task: Task) -> int:
        """The seed of one episode's sampling: the recipe's, split by the name of the stream and by task."""
        return seed_of(self.seed, self.stream, task.key)

    def key_of(self, task: Task, actor: Actor) -> str:
        """The key of a task's episode by an actor."""
        return episode_key(task, actor, seed=self.seed_of(task), horizon=self.horizon)


async def play_all(
    environment: Environment,
    policy: Policy,
    play: Play,
    on_episode: Callable[[Episode], object],
    *,
    done: Container[str] = frozenset(),
    error_share: float = 0.05,
) -> None:
    """Plays every task once (Algorithm 1: roll out pi_{i-1}).

    Args:
        environment: Where to play.
        policy: Who plays.
        play: What to play.
        on_episode: Called with each finished episode, as it finishes.
        done: Keys of episodes on file already; they are not handed on again.
        error_share: The share of the tasks whose episodes may end by an error of the environment's own.

    Raises:
        EnvironmentFault: More of them did.
        ModelError: The policy's model has stopped answering; what was played by then is handed on.
        ContractError: A task is given twice, or the environment returned what it may not.
    """
    wanted = {task.key for task in play.tasks if play.key_of(task, policy.actor) not in done}
    if len({task.key for task in play.tasks}) < len(play.tasks):
        raise ContractError(f"environment {environment.name}: a task is to be played twice.")
    faults: list[str] = []
    breaker = CircuitBreaker(policy.actor.name)

    async def play_one(task: Task) -> None:
        episode = await play_task(environment, policy, task, horizon=play.horizon, seed=play.seed_of(task), tokens=play.tokens)
        if task.key in wanted:
            on_episode(episode)
        if episode.stop is StopReason.ENVIRONMENT_ERROR:
            faults.append(episode.error)
            check_faults(faults, len(play.tasks), error_share)
        breaker.count(episode.error if episode.lost else "")
        await asyncio.sleep(0)  # scripted players never wait: whoever keeps the episode takes it now, and Ctrl-C is heard

    await work_through(play.tasks, play_one, policy.concurrency, waves=policy.waves, wanted=lambda task: task.key in wanted)


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


async def play_task(
    environment: Environment, policy: Policy, task: Task, *, horizon: int, seed: int, tokens: bool = False
) -> Episode:
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
                    act = await decide(player, history)
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
                        tokens=tuple(act.tokens) if tokens else (),
                        logprobs=_logprobs(act) if tokens else (),
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
        versions={"leap": __version__} | {name: str(version) for name, version in environment.versions().items()},
    )


def _logprobs(act: Act) -> tuple[float, ...]:
    """The log-probabilities of an act's tokens; none where there is not a finite one for each."""
    known = len(act.logprobs) == len(act.tokens) and all(map(math.isfinite, act.logprobs))
    return tuple(round(one, 4) for one in act.logprobs) if known else ()


async def decide(player: Player, history: History) -> Act:
    """A player's next act; a call that fails is made again.

    Raises:
        ModelError: All of its calls failed.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await player.decide(history)
        except ModelError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")
