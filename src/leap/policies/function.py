"""A policy that is a plain function of the history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from leap.core import Actor, Decision, History
from leap.envs.live import called
from leap.policies.base import Act, Peek, Player

Decide = Callable[[History], Decision | str]
"""From a history to a decision, or to an action alone. May be `async def`."""


class FunctionPolicy:
    """Plays by a function, which sees histories and nothing else.

    Args:
        decide: The function; a plain one is run in a thread, so that one that waits for a server holds nobody up.
        name: Who it is, for the record; the function's own name by default.
        concurrency: Episodes played at once.
    """

    privileged = False
    waves = False

    def __init__(self, decide: Decide, *, name: str | None = None, concurrency: int = 16) -> None:
        self.actor = Actor(name=name or getattr(decide, "__name__", type(decide).__name__))
        self.concurrency = concurrency
        self._decide = decide

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        """Opens an episode; the seed is not used, for the function draws nothing of leap's."""
        yield self

    async def decide(self, history: History) -> Act:
        """Asks the function."""
        decision = await called(self._decide, history, blocking=True)
        return Act(Decision(reason="", action=decision) if isinstance(decision, str) else decision)
