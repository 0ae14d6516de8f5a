"""An episode in its environment once more, and sessions that go other ways from its states."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from leap.core import Episode, PrivilegedState
from leap.envs.base import Environment, Outcome
from leap.envs.live import Live, retraced


class Replay:
    """An episode played again, to be used with `async with`, and sessions at its states: copies where the environment offers
    them, or else fresh ones in which the actions so far are taken again.

    Args:
        environment: Where the episode was played.
        episode: The episode.

    Attributes:
        states: The privileged state before each step.
        reached: What the last action came to; None of an episode without steps.
    """

    def __init__(self, environment: Environment, episode: Episode) -> None:
        self._environment, self._episode = environment, episode
        self._copies: list[Live] = []
        self.states: list[PrivilegedState] = []
        self.reached: Outcome | None = None

    async def __aenter__(self) -> Replay:
        """Raises as `retraced`."""
        steps = len(self._episode.steps)
        try:
            async with Live(self._environment, self._episode.task) as session:
                async for outcome in retraced(session, self._episode, steps):
                    self.reached = outcome
                    if len(self.states) < steps:
                        self.states.append(await session.privileged())
                        if (copied := await session.copy()) is not None:
                            self._copies.append(await copied.__aenter__())
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        for session in self._copies:
            await session.__aexit__(None, None, None)
        self._copies.clear()

    def cost(self, t: int) -> int:
        """How many actions it takes to have a session at the state before step t."""
        return 0 if self._copies else t

    @asynccontextmanager
    async def at(self, t: int) -> AsyncIterator[Live]:
        """A session at the state before step t; raises as `retraced`."""
        copied = await self._copies[t].copy() if self._copies else None
        async with copied or Live(self._environment, self._episode.task) as session:
            if copied is None:
                async for _ in retraced(session, self._episode, t):
                    pass
            yield session


async def plans_after(environment: Environment, episode: Episode, t: int) -> dict[str, int | None]:
    """For each admissible action at a step of an episode, how many are left on the plan behind it; None where there is no plan.
    Raises as `retraced`."""
    left: dict[str, int | None] = {}
    async with Replay(environment, episode) as replay:
        for action in episode.steps[t].observation.admissible or ():
            async with replay.at(t) as session:
                outcome = await session.act(action)
                plan = () if outcome.success else None if outcome.done else (await session.privileged()).plan
                left[action] = None if plan is None else len(plan)
    return left
