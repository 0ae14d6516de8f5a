"""Workers on Ray's side, which keep environment and weights warm between shards."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from leap import __version__
from leap.envs.base import load_environment
from leap.errors import LeapError, RunError
from leap.recipe import Recipe
from leap.runs.ray_desk import BookedAtDesk, Copies, ask, settle_in
from leap.runs.ray_generator import open_far
from leap.runs.shards import Shard, run_shard


class Over(NamedTuple):
    """The end of a worker's turn, with the error that ended it."""

    error: LeapError | None = None


class Worker:
    """An actor that works on shards, one at a time.

    Args:
        desk: Name of the desk; of an actor itself Ray warns that it might be lost when a worker is started again.
        generator: Name of the generator that answers for the student; empty where the worker does so itself.
        *like: See `settle_in`.
    """

    def __init__(self, desk: str, generator: str, *like: Any) -> None:
        import ray

        settle_in(*like)
        self._desk: Any = ray.get_actor(desk)
        self._generator = generator
        self._ledger: BookedAtDesk | None = None
        self._copies = Copies(self._desk)

    def ready(self) -> str:
        """Version of leap, from a worker that lives."""
        return __version__

    def look(self, recipe: Recipe, modules: Sequence[str]) -> str:
        """Looks for what a recipe needs of a worker, once modules are imported that register things; says what is missing."""
        try:
            for module in modules:
                import_module(module)
            section, student = recipe.environment, recipe.student
            environment = load_environment(section.name, section.options)
            environment.prepare()
            environment.close()
            for model in recipe.models:
                model.check()
            if not student.from_scratch:
                from leap.models.checking import check_checkpoint

                check_checkpoint(student.base)
        except LeapError as error:
            return str(error)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def work(self, shard: Shard, turn: str, sign: str) -> Iterator[list[Any]]:
        """Works on a shard and yields its records, as many at once as there are; at the end an `Over`.

        Args:
            shard: What to do.
            turn: Names this turn.
            sign: A file that lies in the run directory.
        """
        import ray

        ended = queue.SimpleQueue[Any]()
        self._ledger = ledger = self._ledger or BookedAtDesk(self._desk, shard.recipe)
        ledger.turn, ledger.told = turn, []
        elsewhere = partial(open_far, self._generator, shard, sign) if self._generator else None

        def run() -> None:
            try:
                served = partial(ask, self._desk, "served")
                run_shard(self._copies.here(shard, sign), ledger, ended.put, open_student=elsewhere, served=served)
                ray.get(ledger.told)
                ended.put(Over())
            except LeapError as error:
                ended.put(Over(error))
            except BaseException as error:
                told = f"{shard.name}: {type(error).__name__}: {error}\n{traceback.format_exc().rstrip()}"
                ended.put(Over(RunError(told)))

        threading.Thread(target=run, daemon=True).start()
        over = False
        while not over:
            some = [ended.get()]
            while not ended.empty():
                some.append(ended.get())
            over = isinstance(some[-1], Over)
            yield some

    def leave(self) -> None:
        """Removes what was copied. The worker is ended then."""
        self._copies.remove()
