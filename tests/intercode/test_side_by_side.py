"""Sessions in threads: what is said and scored is the same as one after another, and slow commands do not wait for another."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from leap.core import Actor, Episode, Step, StopReason, Task
from leap.envs.base import opened
from leap.envs.tutor import Taught
from leap.errors import LeapError
from leap_worlds.intercode.base import Boxes, Pool
from leap_worlds.intercode.bash.env import BashConfig, BashEnvironment, GeneratedBashEnvironment, GeneratedConfig
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig
from leap_worlds.sandbox import ExecResult, Sandbox
from leap_worlds.sandbox.namespace.provider import NamespaceSandbox

SMALL = BashFamilyConfig(file_systems={"train": 4, "valid": 1, "unseen": 1})
AT_ONCE = 16


def test_a_pool_lends_to_one_at_a_time_and_prefers_the_last_use() -> None:
    made, closed = [], []
    pool = Pool(lambda: made.append(len(made)) or made[-1], closed.append)
    with pool.lent("a") as one, pool.lent("b") as other:
        assert (one, other) == (0, 1)
    with pool.lent("b") as again:
        assert again == 1
    with pytest.raises(ValueError, match="broken"), pool.lent("a"):
        raise ValueError("broken")
    assert closed == [0]
    with pool.lent("new") as rest:
        assert rest == 1
    pool.close()
    assert closed == [0, 1] and len(made) == 2


def test_a_pool_is_never_shared_by_two_threads() -> None:
    using: set[int] = set()
    count, guard = iter(range(100)), threading.Lock()
    pool = Pool(lambda: next(count), lambda _: None)

    def use(number: int) -> None:
        with pool.lent(number % 3) as thing:
            with guard:
                assert thing not in using
                using.add(thing)
            time.sleep(0.001)
            with guard:
                using.remove(thing)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(200)))
    assert next(count) <= 8


def test_generated_tasks_are_the_same_under_either_name() -> None:
    both = (
        GeneratedBashEnvironment(GeneratedConfig(generator=SMALL)),
        BashEnvironment(BashConfig(source="generated", generator=SMALL)),
    )
    one, other = ([task for split in world.gold_splits for task in world.tasks(split)] for world in both)
    assert one == other and len(one) == 6 * SMALL.tasks
    assert {task.env for task in one} == {"intercode-bash-generated"}
    assert both[0].source.versions() == both[1].source.versions()


@pytest.fixture(scope="module")
def world(boxes: None) -> Iterator[GeneratedBashEnvironment]:
    world = GeneratedBashEnvironment(GeneratedConfig(generator=SMALL, time_limit=20))
    try:
        world.prepare()
    except LeapError as error:
        pytest.skip(f"no sandbox here: {error}")
    yield world
    world.close()


def played(world: GeneratedBashEnvironment, task: Task) -> Episode:
    """An episode of someone who looks around, spoils something and submits."""
    steps, score = [], 0.0
    with opened(world, task) as session:
        seen = session.observe()
        for action in (f"ls {world.record(task).gold.split()[-1]}", "rm -rf /usr/share; touch /extra", "submit"):
            steps.append(Step(observation=seen, action=action))
            outcome = session.act(action)
            seen, score = outcome.observation, outcome.score
    return Episode(task=task, actor=Actor(name="student"), horizon=8, steps=tuple(steps), final=seen, score=score,
                   success=False, stop=StopReason.ENDED)  # fmt: skip


def test_slow_commands_run_at_once(world: GeneratedBashEnvironment) -> None:
    tasks = world.tasks("train", limit=AT_ONCE)
    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as threads:
        sessions = list(threads.map(lambda task: stack.enter_context(opened(world, task)), tasks))
        began = time.monotonic()
        shown = list(threads.map(lambda session: session.act("sleep 1; echo done").observation.text, sessions))
        took = time.monotonic() - began
    assert shown == ["done\n"] * AT_ONCE
    assert took < 5  # one after another they take 16 s and more; a busy machine needs its time to start them


class Mortal:
    """A box that ends when a command says so: its monitor is killed, as where the machine's memory is used up."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box

    def __getattr__(self, name: str) -> Any:
        return getattr(self._box, name)

    def exec(self, argv: list[str], **rest: Any) -> ExecResult:
        if "touch /die" in argv[-1]:
            assert isinstance(self._box, NamespaceSandbox)
            own = self._box.exec(["readlink", "/proc/self/ns/net"]).output.decode().strip()
            zygote = self._box._zygote.process.pid
            for pid in Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split():
                if str(Path(f"/proc/{pid}/ns/net").readlink()) == own:
                    os.kill(int(pid), signal.SIGKILL)
        return self._box.exec(argv, **rest)


def test_a_box_that_dies_ends_its_episode_and_not_the_run(world: GeneratedBashEnvironment) -> None:
    kept = world.boxes
    world.boxes = Boxes(lambda of: cast(Sandbox, Mortal(kept.open(of))), kept.description)
    task = world.tasks("train", limit=1)[0]
    try:
        with opened(world, task) as session:
            if "namespace" not in kept.description:
                pytest.skip("a monitor is a box of namespaces'")
            steps = [Step(observation=session.observe(), action="ls")]
            steps.append(Step(observation=session.act("ls").observation, action="touch /die"))
            outcome = session.act("touch /die")
            assert outcome.done and not outcome.success and outcome.observation.text == "Command timed out"
            assert session.act("submit").score == 0.0
        episode = Episode(task=task, actor=Actor(name="student"), horizon=8, steps=tuple(steps), final=outcome.observation,
                          score=0.0, success=False, stop=StopReason.ENDED)  # fmt: skip
        told = asyncio.run(world.tutor.correct_along(episode, 50))  # where it dies again
        assert len(told) == 2 and told[0].decision is not None
        with opened(world, task) as session:
            session.act(world.record(task).gold)
            assert session.act("submit").score == 1.0
    finally:
        world._coaches.close()
        world.boxes = kept


def test_scores_and_corrections_are_those_of_one_after_another(world: GeneratedBashEnvironment) -> None:
    tasks = world.tasks("train", limit=8, seed=1)
    golds = [world.record(task).gold for task in tasks]

    def solved(task: Task, gold: str) -> float:
        with opened(world, task) as session:
            session.act(gold)
            return session.act("submit").score

    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert set(threads.map(solved, tasks * 2, golds * 2)) == {1.0}
        episodes = list(threads.map(lambda task: played(world, task), tasks))
    assert [played(world, task) for task in tasks] == episodes

    def fresh() -> GeneratedBashEnvironment:  # nothing is remembered there
        other = GeneratedBashEnvironment(world.config)
        other.boxes = world.boxes
        return other

    async def all_at_once(other: GeneratedBashEnvironment) -> list[list[Taught]]:
        return list(await asyncio.gather(*(other.tutor.correct_along(episode, 50) for episode in episodes)))

    async def one_by_one(other: GeneratedBashEnvironment) -> list[list[Taught]]:
        return [await other.tutor.correct_along(episode, 50) for episode in episodes]

    first, second = fresh(), fresh()
    try:
        told = asyncio.run(all_at_once(first))
        assert told == asyncio.run(one_by_one(second))
        assert any(step.decision is not None for steps in told for step in steps)
    finally:
        for other in (first, second):
            other._coaches.close()
