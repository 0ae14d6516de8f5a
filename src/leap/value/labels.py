"""What actions were worth: outcomes of pi_i's own episodes, of tries in sessions at their states, or distances by the plan."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import cached_property
from typing import NamedTuple, TypeVar

from leap.core import Decision, Episode, content_key, open_action, seed_of
from leap.core.record import Record
from leap.envs.base import Environment, Outcome
from leap.envs.live import Live
from leap.envs.replay import Replay
from leap.errors import EnvironmentFault, ModelError
from leap.policies.base import Policy
from leap.rollouts import decide
from leap.sync import work_through
from leap.value.config import ValueConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

_SESSIONS = 64
"""Sessions at once where no model is asked."""


class Valued(Record):
    """An action at a step, the reason that the student gave for it, and what came of it, each time that it was tried: 0..1, less
    what the discount takes off."""

    t: int
    action: str
    returns: tuple[float, ...]
    reason: str = ""

    @property
    def value(self) -> float:
        """The label: the mean."""
        return sum(self.returns) / len(self.returns)

    @property
    def decision(self) -> Decision:
        return Decision(reason=self.reason, action=self.action)


class Labels(Record):
    """The labels of an episode.

    Attributes:
        episode: Its key.
        settings: Key of what was asked for (`ValueConfig.labels_key`).
        valued: Actions in the order of their steps; at each step the student's own comes first.
        executed: Actions executed for them.
    """

    episode: str
    settings: str
    valued: tuple[Valued, ...]
    executed: int = 0

    @property
    def told(self) -> list[tuple[object, ...]]:
        """What is labelled, for content keys."""
        return [(one.t, one.action, one.returns, *([one.reason] if one.reason else [])) for one in self.valued]

    @cached_property
    def key(self) -> str:
        """Content key of the piece of work."""
        return labels_key(self.episode, self.settings)


def labels_key(episode: str, settings: str) -> str:
    """The key that an episode's labels will have."""
    return content_key("labels", episode, settings)


def worth(outcome: Outcome | Episode, discount: float, actions: int) -> float:
    """An outcome of 0..1 that took so many actions, discounted for all but the first: from the end, so that an action counts for
    more the nearer it is to success, and a long failure is no better than a short one."""
    return (1.0 if outcome.success else min(max(outcome.score, 0.0), 1.0)) * discount ** (actions - 1)


def returns(episode: Episode, discount: float) -> tuple[Valued, ...]:
    """What an episode came to, for each of its own actions: gamma^(T-1-t) times the outcome."""
    left = len(episode.steps)
    return tuple(
        Valued(t=t, action=step.action, returns=(worth(episode, discount, left - t),), reason=step.reason)
        for t, step in enumerate(episode.steps)
    )


async def draw(
    policy: Policy, asked: Sequence[tuple[Episode, int, int]], seed: int
) -> dict[tuple[str, int, int], Decision]:
    """A policy's answers at steps of episodes, each asked for by a number too; without those that cannot be read or had."""
    found: dict[tuple[str, int, int], Decision] = {}

    async def ask(one: tuple[Episode, int, int]) -> None:
        episode, t, number = one
        try:
            async with policy.playing(seed_of(seed, "value answer", episode.key, t, number), None) as player:
                act = await decide(player, episode.history(t))
        except ModelError as error:
            log.warning("task %s, step %d: %s", episode.task.id, t, error)
            return
        if act.parsed:
            found[episode.key, t, number] = act.decision

    await _all(asked, ask, policy)
    return found


async def _all(items: Sequence[T], work: Callable[[T], Awaitable[None]], policy: Policy | None) -> None:
    """Works on all items, as many at once as a policy can; without one as many as there may be sessions."""
    workers, waves = (policy.concurrency, policy.waves) if policy else (_SESSIONS, False)
    await work_through(items, work, workers, waves=waves)


class _Trial(NamedTuple):
    episode: Episode
    replay: Replay
    t: int
    action: str
    roll: int


class Labeller:
    """Labels episodes of pi_i.

    Args:
        environment: Where they were played.
        config: What labels are wanted.
        seed: The recipe's.
        student: pi_i as it goes on.
        hot: pi_i as other answers are drawn.
    """

    def __init__(self, environment: Environment, config: ValueConfig, seed: int, student: Policy, hot: Policy) -> None:
        self._environment, self._config, self._seed = environment, config, seed
        self._student, self._hot, self._key = student, hot, config.labels_key

    async def label(self, episodes: Sequence[Episode]) -> list[Labels]:
        """The labels of some episodes, in order; the students of all of them answer in common batches."""
        config = self._config
        usable = [one for one in episodes if not one.stop.untold]
        if config.labels == "returns":
            told = {one.key: returns(one, config.discount) for one in usable}
            return [Labels(episode=one.key, settings=self._key, valued=told.get(one.key, ())) for one in episodes]
        tried = await self._alternatives(usable)
        found: dict[tuple[str, int, str], list[float]] = {}
        executed: dict[str, int] = {}
        async with AsyncExitStack() as stack:
            trials: list[_Trial] = []
            for episode in usable:
                replay = await stack.enter_async_context(Replay(self._environment, episode))
                for t, decisions in tried[episode.key].items():
                    trials += [_Trial(episode, replay, t, a, k) for a in decisions for k in range(self._rolls)]

            async def make(trial: _Trial) -> None:
                episode, t, action = trial.episode, trial.t, trial.action
                try:
                    value, taken = await self._tried(trial)
                except (ModelError, EnvironmentFault) as error:
                    log.warning(
                        "task %s, step %d: what comes of %r is not known: %s", episode.task.id, t, action, error
                    )
                    return
                executed[episode.key] = executed.get(episode.key, 0) + taken
                if value is not None:
                    found.setdefault((episode.key, t, action), []).append(value)

            await _all(
                sorted(trials, key=lambda one: one.t), make, self._student if config.labels == "replay" else None
            )
        return [
            self._labels(episode, tried.get(episode.key, {}), found, executed.get(episode.key, 0))
            for episode in episodes
        ]

    @property
    def _rolls(self) -> int:
        return self._config.rolls if self._config.labels == "replay" else 1

    def _labels(
        self,
        episode: Episode,
        tried: dict[int, dict[str, str]],
        found: dict[tuple[str, int, str], list[float]],
        executed: int,
    ) -> Labels:
        valued = [
            Valued(t=t, action=action, returns=tuple(sorted(found[episode.key, t, action])), reason=reason)
            for t, decisions in tried.items()
            for action, reason in decisions.items()
            if (episode.key, t, action) in found
        ]
        return Labels(episode=episode.key, settings=self._key, valued=tuple(valued), executed=executed)

    async def _alternatives(self, episodes: Sequence[Episode]) -> dict[str, dict[int, dict[str, str]]]:
        """The actions to be tried and the reasons given for them, by episode and by chosen step in order, the student's own
        first."""
        config, found = self._config, dict[str, dict[int, dict[str, str]]]()
        asked: list[tuple[Episode, int, int]] = []
        for episode in episodes:
            steps = self._random(episode).sample(range(len(episode.steps)), min(config.steps, len(episode.steps)))
            found[episode.key] = {t: {episode.steps[t].action: episode.steps[t].reason} for t in sorted(steps)}
            asked += [(episode, t, number) for t in found[episode.key] for number in range(config.answers)]

        drawn = await draw(self._hot, asked, self._seed)
        for episode, t, number in asked:
            if decision := drawn.get((episode.key, t, number)):
                found[episode.key][t].setdefault(decision.action, decision.reason)
        for episode in episodes:
            for t, known in found[episode.key].items():
                listed = episode.steps[t].observation.admissible or ()
                others = [one for one in listed if one not in known and not open_action(one)]
                known |= dict.fromkeys(self._random(episode, t).sample(others, min(config.listed, len(others))), "")
        return found

    def _random(self, episode: Episode, *of: int) -> random.Random:
        return random.Random(seed_of(self._seed, "value steps", episode.key, *of))

    async def _tried(self, trial: _Trial) -> tuple[float | None, int]:
        """What a trial came to, None where that cannot be told, and how many actions were executed."""
        episode, replay, t, action, roll = trial
        if self._config.labels == "planner":
            async with replay.at(t) as session:
                return await self._distance(session, trial), replay.cost(t) + 1
        if not roll and action == episode.steps[t].action:  # the episode is a trial of its own actions
            return worth(episode, self._config.discount, len(episode.steps) - t), 0
        history, seed = episode.history(t), seed_of(self._seed, "value trial", episode.key, t, action, roll)
        async with self._student.playing(seed, None) as player, replay.at(t) as session:
            taken = 0
            while True:
                outcome, taken = await session.act(action), taken + 1
                if outcome.done or t + taken == episode.horizon:
                    return worth(outcome, self._config.discount, taken), replay.cost(t) + taken
                history = history.extend(action, outcome.observation)
                action = (await decide(player, history)).decision.action

    async def _distance(self, session: Live, trial: _Trial) -> float | None:
        """discount^distance of the goal behind an action, by the plan of one who knows what is hidden; 0 out of reach."""
        outcome, discount = await session.act(trial.action), self._config.discount
        if outcome.done:
            return worth(outcome, discount, 1)
        state = await session.privileged()
        if state.hopeless:
            return 0.0
        if state.plan is None:
            return None
        return discount ** len(state.plan) if trial.t + 1 + len(state.plan) <= trial.episode.horizon else 0.0
