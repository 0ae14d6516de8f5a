"""Executors: where the shards of a stage are worked on. `local` does it in this process; others are registered by a decorator or
an entry point (`leap.executors`) and named in a recipe, `executor: {kind: NAME, ...}` with its own options.

What crosses to another process or machine is a `Shard`: names, settings, tasks and episodes, never live objects. Records come
back; only the process that drives the run writes its files. What is in a shard depends on the recipe alone and never on who works
on it or on how many there are, so that every executor gives the same records.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Container, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, cast

from leap.envs.base import load_environment
from leap.errors import LeapError, RunError
from leap.models.metered import Booking
from leap.recipe import ExecutorConfig, Recipe
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.sync import run_sync

BATCH = 16
"""Things in a shard where each is worked on by itself; where a model in the process answers many at once, its batches."""


Work = Callable[["Sequence[Shard]", Actors, Callable[[Any], None]], Coroutine[Any, Any, None]]
"""What is done with shards of one stage: a coroutine function of a module, which other processes find by its name. It gets the
shards, the actors of its process, and what takes each record as soon as it is there; see `together`. Adding a kind of work takes
such a function, and a stage that cuts its shards (`in_shards`)."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A batch of a stage's work, with all that another process needs to do it. It can be pickled.

    Attributes:
        name: For people: "rollouts of pi_0, shard 3 of 12".
        work: What is done with it; pickled as its name.
        root: The run directory, which holds the checkpoints.
        recipe: The recipe, but for its executor.
        spec: Whatever else the work needs, the same in all shards of the stage.
        items: What is worked on: tasks, episodes.
        done: Keys of the records that are on file. They are not wanted again, though what they are made from may be worked on
            again as a part of the batch.
        pays: Whether models at endpoints are asked, through the run's ledger.
    """

    name: str
    work: Work
    root: Path
    recipe: Recipe
    spec: Any
    items: tuple[Any, ...]
    done: frozenset[str] = frozenset()
    pays: bool = False


def in_shards(
    what: str,
    work: Work,
    actors: Actors,
    items: Mapping[str, Any],
    known: Container[str],
    *,
    spec: Any = None,
    size: int = BATCH,
    pays: bool = False,
) -> list[Shard]:
    """Cuts the work of a stage into shards, and leaves out those of which everything is on file.

    Args:
        what: Names the work, for people.
        work, spec, pays: As of a `Shard`.
        actors: Those of this process, with the recipe and the run directory.
        items: What is to be worked on by the keys of its records, in order: all of it, for a shard is always the same batch.
        known: The keys that are on file.
        size: Items in a shard.
    """
    recipe = actors.recipe.model_copy(update={"executor": ExecutorConfig()})  # who works on a shard needs no executor
    keys, shards = [*items], []
    for start in range(0, len(keys), size):
        some = keys[start : start + size]
        done = frozenset(key for key in some if key in known)
        if len(done) < len(some):
            name = f"{what}, shard {start // size + 1} of {-(-len(keys) // size)}"
            of = tuple(items[key] for key in some)
            shards.append(Shard(name, work, actors.run.root, recipe, spec, of, done, pays))
    return shards


def together(shards: Sequence[Shard], *, apart: bool) -> Iterator[Shard]:
    """The shards of a stage as work takes them: as one, so that nothing waits at their ends; or one by one where answers depend,
    in the last bits, on what else is in their batch."""
    if apart:
        yield from shards
    else:
        items, done = (
            chain.from_iterable(shard.items for shard in shards),
            frozenset().union(*(shard.done for shard in shards)),
        )
        yield replace(shards[0], items=tuple(items), done=done)


class Executor(ABC):
    """Works on shards, somewhere.

    Args:
        config: Its options, an instance of its `Config`.

    Class attributes:
        pays: Whether its workers reach the run's ledger (`here.ledger`). Shards that pay are worked on in the driving process by
            executors whose workers do not.

    Attributes:
        status: Workers, shards and failures so far, for the progress line.
    """

    Config: ClassVar[type[ExecutorConfig]] = ExecutorConfig
    pays: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self.config = config
        self.status = ""

    @abstractmethod
    def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        """Works on shards of one stage and yields their records, which have a `key`, as they end, in any order. `run_shard` works
        on one in any process. A record may come twice, as when a worker has died and its shard was given to another.

        Args:
            shards: What to do.
            here: The actors of this process, for executors that work in it.

        Raises:
            LeapError: What work raised; or a shard could not be done.
        """

    def rest(self) -> None:  # noqa: B027 - most executors hold nothing
        """Frees weights, as before a training, which loads its own."""

    def close(self) -> None:  # noqa: B027 - most executors hold nothing
        """Frees what the executor holds."""


class LocalExecutor(Executor):
    """Works in this process, with the weights and the environment that it holds already."""

    pays = True

    async def map(self, shards: Sequence[Shard], here: Actors) -> AsyncIterator[Any]:
        ended: asyncio.Queue[Any] = asyncio.Queue()
        left = False

        def hand_on(record: Any) -> None:
            if left:
                raise LeapError("nobody wants it any more")  # ends the work, after the calls under way
            ended.put_nowait(record)

        working = asyncio.create_task(shards[0].work(shards, here, hand_on))
        working.add_done_callback(lambda _: ended.put_nowait(None))
        try:
            while (record := await ended.get()) is not None:
                yield record
            await working
        except GeneratorExit:
            left = True
            if not shards[0].pays:
                working.cancel()
        except asyncio.CancelledError:
            working.cancel()
            raise
        finally:
            with suppress(asyncio.CancelledError, Exception):
                await working


def work_on(
    shards: Sequence[Shard], actors: Actors, keep: Callable[[Any], None], executor: Executor | None = None
) -> None:
    """Has shards of one stage worked on, by this process where there is no executor or where it may not pay, and has each record
    kept once."""
    if not shards:
        return
    chosen = executor if executor is not None and (executor.pays or not shards[0].pays) else LocalExecutor(None)
    kept = set[str]()

    async def everything() -> None:
        async with aclosing(chosen.map(shards, actors)) as records:  # pyright: ignore[reportArgumentType]
            async for record in records:
                if record.key not in kept:
                    kept.add(record.key)
                    keep(record)

    run_sync(everything())


def run_shard(shard: Shard, ledger: Booking | None = None) -> list[Any]:
    """Does the work of one shard in this process and returns the records that are wanted. It needs the shard, the run directory
    and an installed leap, and keeps environment and weights for the next shard of the same run.

    Args:
        shard: What to do.
        ledger: The way to the run's ledger; without one, a shard that pays is an error.
    """
    records: list[Any] = []
    run_sync(shard.work([shard], _actors_of(shard, ledger), records.append))
    return records


class _Unreached:
    """The ledger of a worker that was given no way to one."""

    def __getattr__(self, name: str) -> Any:
        raise RunError(
            "a worker was to ask a model at an endpoint, but its executor gives it no way to the run's ledger."
        )


_known: dict[tuple[Path, str], Actors] = {}
"""The actors of the run whose shards this process works on."""


def _actors_of(shard: Shard, ledger: Booking | None) -> Actors:
    key = (shard.root, shard.recipe.model_dump_json())
    if key not in _known:
        for actors in _known.values():
            actors.close()
            actors.environment.close()
        _known.clear()
        section = shard.recipe.environment
        environment = load_environment(section.name, section.options)
        environment.prepare()
        _known[key] = Actors(
            shard.recipe, RunDirectory(shard.root), environment, ledger=ledger or cast(Booking, _Unreached())
        )
    return _known[key]
