"""The desk, a named actor of Ray through which what runs on a cluster reaches the process that drives the run: its ledger and,
where they do not see the run directory, its files."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from leap import registry
from leap.errors import LeapError, RunError
from leap.files import digest
from leap.models.base import Completion, Request
from leap.models.prices import Prices
from leap.recipe import Recipe
from leap.runs.shards import Shard

DESK = "leap-desk"
"""The desk's name."""


class Desk:
    """Questions of workers, and the driver's answers. A driver cannot be called, so it comes for them."""

    def __init__(self) -> None:
        self._open: list[tuple[int, tuple[Any, ...]]] = []
        self._news = asyncio.Event()
        self._answers: dict[int, asyncio.Future[tuple[bool, Any]]] = {}
        self._number = self._taker = 0

    async def ask(self, *question: Any) -> tuple[bool, Any]:
        """Hands a question in and waits for whether it is answered, and for the answer or the error."""
        self._number = number = self._number + 1
        self._answers[number] = asyncio.get_running_loop().create_future()
        self._open.append((number, question))
        self._news.set()
        try:
            return await self._answers[number]
        finally:
            del self._answers[number]

    async def take(self) -> list[tuple[int, tuple[Any, ...]]]:
        """The open questions with their numbers, as soon as there are some. Who came before and does not wait any more, as after
        an interruption, gets none."""
        self._taker = taker = self._taker + 1
        self._news.set()
        while not self._open and taker == self._taker:
            self._news.clear()
            await self._news.wait()
        taken: list[tuple[int, tuple[Any, ...]]] = []
        if taker == self._taker:
            taken, self._open = self._open, taken
        return taken

    async def answer(self, number: int, answered: bool, value: Any) -> None:
        """Answers a question; whoever asked may be gone."""
        if (waiting := self._answers.get(number)) is not None and not waiting.done():
            waiting.set_result((answered, value))


def ask(desk: Any, *question: Any) -> Any:
    """The driver's answer to a question.

    Raises:
        LeapError: The answer is this.
    """
    import ray

    return told(*ray.get(desk.ask.remote(*question)))


def told(answered: bool, value: Any) -> Any:
    """An answer, or the error that came in its place."""
    if not answered:
        raise value
    return value


class BookedAtDesk:
    """The way to the run's ledger; see `leap.models.metered.Booking`.

    Args:
        desk: The desk.
        recipe: With prices and budget.

    Attributes:
        turn: Names the worker's turn at a shard: what it has claimed is free again when it dies.
        told: What was told in this turn without waiting.
    """

    def __init__(self, desk: Any, recipe: Recipe) -> None:
        self.prices, self.budget, self.turn = Prices(recipe.prices), recipe.budget, ""
        self.told: list[Any] = []
        self._desk = desk

    async def _ask(self, *question: Any) -> Any:
        return told(*await self._desk.ask.remote(*question))

    async def claim(self, key: str) -> Completion | None:
        return await self._ask("claim", self.turn, key)

    async def admit(self, key: str) -> None:
        await self._ask("admit", self.turn, key)

    async def settle(
        self, key: str, name: str, completion: Completion, latency: float, error: str = "", request: Request | None = None
    ) -> Completion:
        return await self._ask("settle", self.turn, key, name, completion, latency, error, request)

    def release(self, key: str) -> None:
        self.told.append(self._desk.ask.remote("release", self.turn, key))

    def note(
        self, key: str, name: str, completion: Completion, latency: float, error: str, request: Request
    ) -> None:
        self.told.append(self._desk.ask.remote("note", self.turn, key, name, completion, latency, error, request))

    def unread(self, key: str, problem: str) -> None:
        self.told.append(self._desk.ask.remote("unread", self.turn, key, problem))


# ---- files -----------------------------------------------------------------------------------------------------------------


def offer(path: Path, storage: str | None) -> dict[str, Any]:
    """Makes a file, or those of a folder, available to other machines.

    Args:
        path: The file or folder; one that is not there has no files.
        storage: A folder that all machines reach; where there is none, Ray's object store holds the files as long as this process
            lives.

    Returns:
        For the name of each file within the path (empty for the path itself) where it is to be had.
    """
    import ray

    files = {"": path} if path.is_file() else {str(one.relative_to(path)): one for one in path.rglob("*") if one.is_file()}
    if storage is None:
        return {name: ray.put(file.read_bytes()) for name, file in files.items()}
    import fsspec

    offered: dict[str, Any] = {}
    for name, file in files.items():
        offered[name] = f"{storage.rstrip('/')}/{digest(file)}"  # what has the same content is there once
        system, place = fsspec.url_to_fs(offered[name])
        if not system.exists(place):
            system.makedirs(storage_parent := place.rpartition("/")[0], exist_ok=True)
            half = f"{storage_parent}/{os.urandom(8).hex()}.half"
            system.put_file(str(file), half)
            system.mv(half, place)
    return offered


def fetch(offered: Mapping[str, Any], path: Path) -> None:
    """Puts at a path what was offered."""
    import ray

    for name, where in offered.items():
        file = path / name if name else path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(where, str):
            import fsspec

            system, place = fsspec.url_to_fs(where)
            system.get_file(place, str(file))
        else:
            file.write_bytes(ray.get(where))


class Copies:
    """What a machine that does not see the run directory has fetched of it."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self._folder: Path | None = None

    def here(self, shard: Shard, sign: str) -> Shard:
        """A shard as this machine can work on it.

        Args:
            shard: The shard.
            sign: A file that lies in the run directory.
        """
        if (shard.root / sign).exists():
            return shard
        self._folder = self._folder or Path(mkdtemp(prefix="leap-run-"))
        for file in shard.files:
            if not (self._folder / file).exists():
                fetch(ask(self._desk, "files", file), self._folder / file)
        return replace(shard, root=self._folder)

    def remove(self) -> None:
        """Removes what was fetched."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def settle_in(folder: str, path: Sequence[str], things: Sequence[tuple[str, str, Any]]) -> None:
    """Makes a process of the cluster like the driver's.

    Args:
        folder: The driver's working folder, in which a recipe's relative paths are meant, where it is there.
        path: Where the driver finds modules.
        things: What a script or a notebook has registered itself: kind of thing, name, thing.
    """
    with suppress(OSError):
        os.chdir(folder)
    sys.path += [place for place in path if place not in sys.path]
    for kind, name, thing in things:
        getattr(registry, kind)(name)(thing)


# ---- the driver's side of the desk ---------------------------------------------------------------------------------------


async def attend(desk: Any, answers: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
    """Answers what workers ask at the desk, as long as this is not cancelled.

    Args:
        desk: The desk.
        answers: What answers a question, by the question's first word; it gets the others.
    """

    async def answer(number: int, word: str, *others: Any) -> None:
        try:
            told = (True, await answers[word](*others))
        except LeapError as error:
            told = (False, error)
        except Exception as error:
            told = (False, RunError(f"{type(error).__name__}: {error}"))
        await desk.answer.remote(number, *told)

    async with asyncio.TaskGroup() as answering:
        while True:
            for number, question in await desk.take.remote():
                answering.create_task(answer(number, *question))
