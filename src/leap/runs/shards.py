"""Shards: the work of a stage in batches that any process can do, each with all that it needs.

What crosses to another process or machine is names, settings, tasks and episodes, never live objects. What is in a shard depends
on the recipe alone and never on who works on it or on how many there are, so that whoever does gives the same records.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Container, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from leap import registry
from leap.core.record import Record, content_key
from leap.envs.base import load_environment
from leap.errors import LeapError, RunError
from leap.models.metered import Booking
from leap.recipe import ExecutorConfig, Recipe
from leap.runs.actors import Actors, OpenStudent
from leap.runs.directory import RunDirectory
from leap.sync import run_sync

if TYPE_CHECKING:
    from leap.models.vllm import Served

log = logging.getLogger(__name__)

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
        name: For people: "rollout-1, shard 3 of 12".
        work: What is done with it; pickled as its name.
        root: The run directory, which holds the checkpoints.
        recipe: The recipe, but for its executor.
        spec: Whatever else the work needs, the same in all shards of the stage.
        items: What is worked on: tasks, episodes.
        done: Keys of the records that are on file. They are not wanted again, though what they are made from may be worked on
            again as a part of the batch.
        keys: The keys of their records, in the same order.
        record: The records' type.
        files: The files and folders of the run directory that the work reads, relative to it: of whoever has no such directory.
        modules: What must be imported first, as it registers things by decorators.
        pays: Whether models at endpoints are asked, through the run's ledger.
        number: Its place among all shards of the stage, from 0, those that are on file included.
    """

    name: str
    work: Work
    root: Path
    recipe: Recipe
    spec: Any
    items: tuple[Any, ...]
    keys: tuple[str, ...]
    record: type[Record]
    done: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    pays: bool = False
    number: int = 0

    @property
    def key(self) -> str:
        """Names the shard by what is to be made, on file or not."""
        return content_key("shard", f"{self.work.__module__}:{self.work.__qualname__}", self.keys)


def in_shards(
    what: str,
    work: Work,
    record: type[Record],
    actors: Actors,
    items: Mapping[str, Any],
    known: Container[str],
    *,
    spec: Any = None,
    size: int = BATCH,
    files: Iterable[Path] = (),
    pays: bool = False,
) -> list[Shard]:
    """Cuts the work of a stage into shards, and leaves out those of which everything is on file.

    Args:
        what: Names the work, for people.
        work, record, spec, pays: As of a `Shard`.
        actors: Those of this process, with the recipe and the run directory.
        items: What is to be worked on by the keys of its records, in order: all of it, for a shard is always the same batch.
        known: The keys that are on file.
        size: Items in a shard.
        files: What of the run directory is read; what is not there is left out.
    """
    recipe = actors.recipe.model_copy(update={"executor": ExecutorConfig()})  # who works on a shard needs no executor
    root, keys, shards = actors.run.root, [*items], []
    whole = Shard(what, work, root, recipe, spec, (), (), record, modules=registry.user_modules(), pays=pays)
    whole = replace(whole, files=tuple(file.relative_to(root).as_posix() for file in files if file.exists()))
    for number, start in enumerate(range(0, len(keys), size)):
        some = tuple(keys[start : start + size])
        done = frozenset(key for key in some if key in known)
        if len(done) < len(some):
            name, of = f"{what}, shard {number + 1} of {-(-len(keys) // size)}", tuple(items[key] for key in some)
            shards.append(replace(whole, name=name, items=of, keys=some, done=done, number=number))
    return shards


def together(shards: Sequence[Shard], *, apart: bool) -> Iterator[Shard]:
    """The shards of a stage as work takes them: as one, so that nothing waits at their ends; or one by one where answers depend,
    in the last bits, on what else is in their batch."""
    if apart:
        yield from shards
    else:
        items, keys = (tuple(chain(*parts)) for parts in zip(*((one.items, one.keys) for one in shards), strict=True))
        yield replace(shards[0], items=items, keys=keys, done=frozenset(chain(*(one.done for one in shards))))


def run_shard(
    shard: Shard,
    ledger: Booking | None = None,
    on_record: Callable[[Any], None] | None = None,
    run: RunDirectory | None = None,
    open_student: OpenStudent | None = None,
    served: Callable[[], Served] | None = None,
) -> list[Any]:
    """Does the work of one shard in this process and returns the records that are wanted. It needs the shard, the run directory
    (or the shard's files of it) and an installed leap, and keeps environment and weights for the next shard of the same run. A
    process works on one shard at a time.

    Args:
        shard: What to do.
        ledger: The way to the run's ledger; without one, a shard that pays is an error.
        on_record: Gets each record as soon as it is there, too, in another thread.
        run: The run directory, where it is not simply the shard's root.
        open_student, served: See `Actors`.

    Raises:
        LeapError: What the work raised; or code that is not leap's did, and the message carries its traceback.
    """
    records: list[Any] = []

    def hand_on(record: Any) -> None:
        records.append(record)
        if on_record is not None:
            on_record(record)

    for module in shard.modules:
        try:
            import_module(module)
        except ImportError as error:  # nothing of it may be needed
            log.warning("a worker cannot import %s, which registers things by decorators: %s", module, error)
    _way.ledger = ledger
    actors = _actors_of(shard, run)
    actors.open_student, actors.served = open_student, served
    try:
        run_sync(shard.work([shard], actors, hand_on))
    except LeapError:
        raise
    except Exception as error:  # whoever hears of it in another process does not see where it was raised
        if not (theirs := registry.raised_by_others(error)):
            raise
        told = f"{shard.name}: {type(error).__name__} in code that is not leap's. Its traceback:\n{theirs}"
        raise RunError(told) from error
    return records


class _Way:
    """The way to the run's ledger that the shard at hand was given, for models that stay open from shard to shard."""

    def __init__(self) -> None:
        self.ledger: Booking | None = None

    def __getattr__(self, name: str) -> Any:
        if self.ledger is None and name in ("note", "unread"):  # what people may read is no reason to end
            return lambda *_: None
        if self.ledger is None:
            raise RunError(
                "a worker was to ask a model at an endpoint, but its executor gives it no way to the run's ledger."
            )
        return getattr(self.ledger, name)


_way = _Way()
_known: dict[tuple[Path, str], Actors] = {}
"""The actors of the run whose shards this process works on."""


def _actors_of(shard: Shard, run: RunDirectory | None) -> Actors:
    key = (shard.root, shard.recipe.model_dump_json())
    if key not in _known:
        _forget()
        section = shard.recipe.environment
        environment = load_environment(section.name, section.options)
        environment.prepare()
        where = run or RunDirectory(shard.root)
        _known[key] = Actors(shard.recipe, where, environment, ledger=cast(Booking, _way))
    return _known[key]


@atexit.register
def _forget() -> None:
    for actors in _known.values():
        actors.close()
        actors.environment.close()
    _known.clear()
