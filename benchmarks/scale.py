"""Episodes by many workers: python benchmarks/scale.py [endpoint] [games] [overhead] prints benchmarks/scale.log.

endpoint: a world whose steps take 100 ms, a model at an endpoint that takes 500 ms; 1 and 4 workers of Ray, four episodes at
once in each. games: native ALFWorld and its scripted expert, and what the driving process could take at most. overhead: a stage
of a minute by one worker of Ray and by this process. Workers have started when a clock starts, and played a first shard.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests" / "shared"))

import slow_corridor

from leap import registry
from leap.core import Episode, Task
from leap.files import Journal
from leap.policies.base import ExpertPolicy
from leap.progress import Bar
from leap.recipe import Recipe
from leap.rollouts import Play
from leap.runs.actors import Actors
from leap.runs.directory import RunDirectory
from leap.runs.executors import Executor
from leap.runs.playing import play_tasks
from leap.runs.policies import PolicySpec
from leap.runs.shards import BATCH
from leap.testing.corridor import EAST
from leap.testing.server import MockServer


@contextmanager
def bench(values: dict[str, Any], folder: Path) -> Iterator[Actors]:
    """The actors of a recipe in a run directory of its own."""
    from leap.envs.base import load_environment

    recipe = Recipe.model_validate(values)
    environment = load_environment(recipe.environment.name, recipe.environment.options)
    environment.prepare()
    actors = Actors(recipe, RunDirectory(folder), environment)
    with closing(environment), closing(actors):
        yield actors


@contextmanager
def executor(actors: Actors, workers: int, **more: Any) -> Iterator[Executor | None]:
    """Workers of Ray on this machine, all started; none where this process is to work."""
    if not workers:
        yield None
        return
    config = {"kind": "ray", "address": "local", "workers": workers, "cpus_per_worker": 0.5, **more}
    recipe = Recipe.model_validate(actors.recipe.model_dump() | {"executor": config})
    made = registry.executor.get("ray")(recipe.executor)
    with closing(made):
        made.check(recipe)
        yield made


def seconds(actors: Actors, spec: PolicySpec, tasks: Sequence[Task], workers: Executor | None, stream: str) -> float:
    """How long it takes to play tasks and to put their episodes on file."""
    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        journal, play = Journal(Path(folder) / "episodes.jsonl", Episode), Play(tasks, actors.recipe.horizon, 0, stream)

        @contextmanager
        def under_way() -> Iterator[tuple[Bar, Any]]:
            yield Bar(lambda *_: None), lambda **_: None

        assert len(play_tasks(spec, play, actors, journal, under_way, workers)) == len(tasks)
    return time.perf_counter() - began


def endpoint() -> None:
    """Episodes per second of one worker and of four: steps of 100 ms, answers of 500 ms."""
    with MockServer(lambda _: f"REASON: on we go\nACTION: {EAST}", delay=0.5) as server, TemporaryDirectory() as folder:
        at = {"base_url": server.base_url, "concurrency": 4}
        model = {"model": "openai/mock", "endpoint": at, "examples": 0}
        values = {
            "name": "endpoint",
            "horizon": 3,
            "environment": {"name": "slow-corridor", "options": {"size": 10_000}},
            "baselines": {"react": [model]},
        }
        with bench(values, Path(folder)) as actors:
            react = actors.recipe.baselines.react[0]
            spec = PolicySpec("react", "react", "react", react=react)
            tasks = actors.environment.tasks("train")
            rates = {}
            for number, (workers, episodes) in enumerate({1: 64, 4: 256}.items()):
                with executor(actors, workers) as chosen:
                    # Each worker plays its first shard before the clock starts: it opens the connection then.
                    first, rest = tasks[: 16 * workers], tasks[16 * workers : 16 * workers + episodes]
                    seconds(actors, spec, first, chosen, f"first-{number}")
                    took = seconds(actors, spec, rest, chosen, f"endpoint-{number}")
                rates[workers] = episodes / took
                print(f"endpoint: {workers} workers, {episodes} episodes of 3 steps: {took:.1f} s, {rates[workers]:.2f}/s")
            booked = actors.ledger.total().calls
        assert booked == server.counts.answered, "every call is booked"
        print(f"endpoint: 4 workers play {rates[4] / rates[1]:.2f} times what 1 plays; {booked} calls, each booked once")


def games() -> None:
    """Native ALFWorld, its scripted expert: episodes appended per second, and what bounds them."""
    generator = {"seed": 0, "games": {"train": 2000, "valid": 1, "unseen": 1}, "rooms": ["bathroom"], "dialect": "move"}
    with TemporaryDirectory() as folder:
        values = {
            "name": "games",
            "horizon": 30,
            "environment": {"name": "alfworld", "options": {"source": "generated", "generator": generator}},
        }
        with bench(values, Path(folder)) as actors:
            tasks = actors.environment.tasks("train")
            spec = PolicySpec("expert", "expert", "expert")
            for workers in (0, 1, 2):
                with executor(actors, workers) as chosen:
                    seconds(actors, spec, tasks[: 16 * max(1, workers)], chosen, "first")
                    took = seconds(actors, spec, tasks, chosen, "games")
                who = f"{workers} workers of Ray" if workers else "this process"
                print(f"games: {who}: {len(tasks)} episodes in {took:.1f} s, {len(tasks) / took:,.0f}/s")
            bounds(actors, spec, tasks)


def bounds(actors: Actors, spec: PolicySpec, tasks: Sequence[Task]) -> None:
    """What the driving process takes when nobody has to play: episodes that are there already."""
    from leap.runs import playing

    kept = Journal(actors.run.root / "kept.jsonl", Episode)
    play = Play(tasks, actors.recipe.horizon, 0, "bounds")

    @contextmanager
    def under_way() -> Iterator[tuple[Bar, Any]]:
        yield Bar(lambda *_: None), lambda **_: None

    played = play_tasks(spec, play, actors, kept, under_way)
    size = sum(len(one.line()) for one in played) / len(played)
    began = time.perf_counter()
    journal = Journal(actors.run.root / "appended.jsonl", Episode)
    for one in played:
        journal.append(one)
    took = time.perf_counter() - began
    print(f"games: appending alone: {len(played) / took:,.0f}/s, {size / 1024:.1f} KiB each")
    file = str(actors.run.root / "kept.jsonl")

    async def hand_out(shards: Sequence[Any], here: Actors, hand_on: Any) -> None:
        ready = slow_corridor.kept(file)  # read once by each worker: a function that held them would be sent with each shard
        for shard in shards:
            for task in shard.items:
                hand_on(ready[play.key_of(task, here.acting(spec).actor)])

    whole = playing.play_shards
    playing.play_shards = hand_out  # type: ignore[assignment]
    try:
        with executor(actors, 2) as chosen:
            seconds(actors, spec, tasks[:32], chosen, "bounds")
            took = seconds(actors, spec, tasks, chosen, "bounds")
    finally:
        playing.play_shards = whole
    print(f"games: 2 workers that have all episodes in hand: {len(tasks) / took:,.0f}/s handed over and appended")


def overhead() -> None:
    """A stage of a minute by this process and by one worker of Ray, twice each, in turn; both play as many episodes at once."""
    ExpertPolicy.concurrency = BATCH  # a worker has one shard in hand, and this process would have 64 episodes
    with TemporaryDirectory() as folder:
        values = {"name": "overhead", "horizon": 3, "environment": {"name": "slow-corridor", "options": {"size": 10_000}}}
        values["environment"]["options"]["pause"] = 0.2
        with bench(values, Path(folder)) as actors:
            tasks, spec = actors.environment.tasks("train"), PolicySpec("expert", "expert", "expert")
            took: dict[int, list[float]] = {0: [], 1: []}
            for _ in range(2):
                for workers in took:
                    with executor(actors, workers) as chosen:
                        seconds(actors, spec, tasks[:BATCH], chosen, "first")
                        took[workers].append(seconds(actors, spec, tasks[: 100 * BATCH], chosen, "overhead"))
            here, there = (min(each) for each in took.values())
            more = f"{there / here - 1:+.1%}"
            print(f"overhead: {BATCH} episodes at once, this process {here:.1f} s, one worker of Ray {there:.1f} s: {more}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 leaves nothing to workers where other programs run
    for part in sys.argv[1:] or ("endpoint", "games", "overhead"):
        {"endpoint": endpoint, "games": games, "overhead": overhead}[part]()
