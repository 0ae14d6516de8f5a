"""Workers that need no cluster: the driver of the executor `ray` hands them shards, and they do what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray.exceptions import ActorUnavailableError

from leap import __version__
from leap.runs.ray_desk import BookedAtDesk, Desk
from leap.runs.ray_pool import RayConfig
from leap.runs.ray_worker import Over


@dataclass(frozen=True)
class Record:
    """What is made of an item."""

    key: str


@dataclass(frozen=True)
class Shard:
    """As much of a shard as the driver looks at."""

    name: str
    items: tuple[str, ...]
    done: frozenset[str] = frozenset()
    pays: bool = False



def gone() -> ActorUnavailableError:
    """What Ray says of a worker that died and is started again."""
    return ActorUnavailableError("the actor is restarting", b"0" * 16)


class Remote:
    """A method of an object, called as Ray's actors are."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def remote(self, *arguments: Any) -> Any:
        called = self._method(*arguments)
        return asyncio.ensure_future(called) if asyncio.iscoroutine(called) else called

    def options(self, **_: Any) -> Remote:
        return self


class Reference:
    """A value that is there as soon as it is waited for."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        return self._value


Make = Callable[[str, BookedAtDesk], Awaitable[None]]
"""Makes the record of an item; raises what `gone` gives to die."""


class StubWorker:
    """Makes a record of each item, one after the other."""

    def __init__(self, desk: Any, recipe: Any, make: Make) -> None:
        self.turns = 0
        self._ledger, self._make, self._down = BookedAtDesk(desk, recipe), make, 0
        self.ready, self.work = Remote(self._ready), Remote(self._work)

    async def _ready(self) -> str:
        if self._down:
            self._down -= 1
            raise gone()
        return __version__

    async def _work(self, shard: Shard, turn: str, sign: str) -> AsyncIterator[Reference]:
        self.turns += 1
        self._ledger.turn = turn
        from leap.errors import LeapError

        try:
            for item in shard.items:
                if item not in shard.done:
                    await self._make(item, self._ledger)
                    yield Reference([Record(item)])
        except ActorUnavailableError:
            self._down = 1
            raise
        except LeapError as error:
            yield Reference([Over(error)])
            return
        yield Reference([Over()])


class StubPool:
    """A pool of such workers."""

    def __init__(self, recipe: Any, make: Make, workers: int, **options: Any) -> None:
        desk = Desk()
        self.desk = SimpleNamespace(ask=Remote(desk.ask), take=Remote(desk.take), answer=Remote(desk.answer))
        self.config = RayConfig(workers=workers or 1, **options)
        self.workers: Sequence[StubWorker] = [StubWorker(self.desk, recipe, make) for _ in range(workers)]
        self.dismissed = 0

    def serves(self, number: int) -> list[Any]:
        return []

    def employ(self) -> None:
        pass

    def dismiss(self) -> None:
        self.dismissed += 1
