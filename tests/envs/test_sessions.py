"""Sessions that are coroutines, take their time or answer at once: the same episodes, side by side, closed in order."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from leap.core import Actor, Episode, Observation, PrivilegedState, Task
from leap.envs.base import Environment, Outcome, Session
from leap.envs.live import Live, states_along
from leap.envs.tutor import roll_in
from leap.errors import LeapError
from leap.policies.base import ExpertPolicy, Peek, Player, ScriptedPolicy, TeacherPolicy
from leap.policies.model import ModelPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.rollouts import Play, play_all, rollout
from leap.sync import run_sync
from leap.teachers.base import TeacherContext
from leap.teachers.config import ExpertConfig
from leap.teachers.expert import ExpertTeacher
from tiny_world import House, TinyWorld, TinyWorldConfig


class AsyncHouse(House):
    """A house whose methods are coroutines."""

    async def observe(self) -> Observation:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().observe()

    async def act(self, action: str) -> Outcome:  # type: ignore[override]
        await asyncio.sleep(0.001)
        return super().act(action)

    async def privileged(self) -> PrivilegedState:  # type: ignore[override]
        return super().privileged()

    async def close(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)


class SlowHouse(House):
    """A house whose plain methods take their time, each time another."""

    blocking: ClassVar[bool] = True

    def observe(self) -> Observation:
        time.sleep(0.02 * (len(self._place) % 3))
        return super().observe()

    def act(self, action: str) -> Outcome:
        assert threading.current_thread() is not threading.main_thread()
        time.sleep(0.002 * (len(action) % 3))
        return super().act(action)


class Otherwise(TinyWorld):
    """The tiny world with other sessions; those of coroutines are started by one."""

    blocking: ClassVar[bool] = True

    def __init__(self, house: type[House]) -> None:
        super().__init__(TinyWorldConfig(tasks=8))
        self.house = house

    def start(self, task: Task) -> Any:
        import random

        if self.house is not AsyncHouse:
            return self.house(random.Random(task.id))

        async def opening() -> Session:
            await asyncio.sleep(0)
            return AsyncHouse(random.Random(task.id))

        return opening()


def played(environment: Environment, policy: Any, **more: Any) -> list[Episode]:
    episodes: list[Episode] = []
    horizon = more.pop("horizon", 8)
    rollout(environment, policy, Play(environment.tasks("train"), horizon, 0, "test"), episodes.append, **more)
    return sorted(episodes, key=lambda episode: episode.task.id)


def without_clock(episodes: list[Episode]) -> list[dict[str, Any]]:
    return [episode.model_dump(exclude={"seconds"}) for episode in episodes]


@pytest.mark.parametrize("house", [AsyncHouse, SlowHouse])
def test_every_kind_of_session_gives_the_same_episodes_states_and_corrections(house: type[House]) -> None:
    plain, other = Otherwise(House), Otherwise(house)
    for policy in (ExpertPolicy, lambda world: TeacherPolicy(world, 50)):
        assert without_clock(played(other, policy(other))) == without_clock(played(plain, policy(plain)))
    (episode, *_) = played(plain, ExpertPolicy(plain))
    for after_last in (False, True):
        here, there = (run_sync(states_along(world, episode, after_last=after_last)) for world in (plain, other))
        assert here == there and len(here) == len(episode.steps) + after_last
    corrected = [
        asyncio.run(ExpertTeacher(ExpertConfig(privilege=50), TeacherContext(world)).correct(episode))
        for world in (other, plain)
    ]
    assert corrected[0] == corrected[1]
    history, action = episode.history(0), episode.steps[0].action
    for left in range(1, 6):
        value = run_sync(roll_in(other, history, action, left))
        assert value == run_sync(plain.tutor.roll_in(history, action, left)) == float(left >= 4 - (len(episode.steps) == 3))


def test_all_of_it_works_where_an_event_loop_runs_already() -> None:
    async def cell() -> list[Episode]:
        return played(Otherwise(SlowHouse), ExpertPolicy(Otherwise(SlowHouse)))

    assert len(asyncio.run(cell())) == 8


class Corridor(Environment):
    """Ends after as many actions as the task's number says, each of them a wait."""

    name: ClassVar[str] = "corridor"
    blocking: ClassVar[bool] = False

    def __init__(self, session: type[Session], lengths: list[int]) -> None:
        super().__init__()
        self.session, self.lengths = session, lengths
        self.log: list[str] = []

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        return [Task(env="corridor", split=split, id=f"{i}", instruction="wait") for i in range(len(self.lengths))]

    def start(self, task: Task) -> Session:
        self.log.append(f"start {task.id}")
        return self.session(self, int(task.id))  # type: ignore[call-arg]


class Sleeps(Session):
    """Takes 50 ms for an action, as a plain method."""

    def __init__(self, world: Corridor, number: int) -> None:
        self.world, self.number, self.left = world, number, world.lengths[number]
        self.busy = False

    def observe(self) -> Observation:
        return Observation(text="A corridor.")

    def act(self, action: str) -> Outcome:
        self.busy = True
        time.sleep(0.05)
        self.busy = False
        return self._after()

    def _after(self) -> Outcome:
        self.left -= 1
        return Outcome(Observation(text=f"{self.left} left."), done=self.left == 0, success=self.left == 0)

    def privileged(self) -> None:
        return None

    def close(self) -> None:
        assert not self.busy, "closed under an action"
        self.world.log.append(f"close {self.number}")


class Awaits(Sleeps):
    """Takes 50 ms for an action, as a coroutine."""

    async def act(self, action: str) -> Outcome:  # type: ignore[override]
        await asyncio.sleep(0.05)
        return self._after()


class Scripted(ScriptedPolicy):
    """Waits at every step."""

    def __init__(self, concurrency: int, *, waves: bool = False) -> None:
        super().__init__("waiter", ["wait"])
        self.concurrency, self.waves = concurrency, waves


@pytest.mark.parametrize("session", [Sleeps, Awaits])
def test_32_episodes_at_once_take_less_than_twice_the_longest_ones_own_time(session: type[Session]) -> None:
    """164 steps of 50 ms in 32 episodes, the longest of 8, took 20 times as long in 0.1."""
    world = Corridor(session, [8, 4, *[5] * 28, 6, 6])
    longest, took = max(world.lengths) * 0.05, 0.0
    for attempt in range(5):  # the machine may be busy with something else
        began = time.monotonic()
        episodes = played(world, Scripted(32), horizon=20)
        took = time.monotonic() - began
        assert len(episodes) == 32 and sum(len(episode.steps) for episode in episodes) == 164
        if took < 2 * longest or attempt == 4:
            break
    assert took < 2 * longest


class Gate(Sleeps):
    """The first episode ends only when three others have ended: a wave would wait for ever."""

    async def act(self, action: str) -> Outcome:  # type: ignore[override]
        while self.number == 0 and sum(line.startswith("close") for line in self.world.log) < 3:
            await asyncio.sleep(0.001)
        return self._after()


def test_an_episode_that_ends_makes_room_for_the_next_at_once() -> None:
    world = Corridor(Gate, [1, 1, 1, 1, 1])

    async def all_played() -> None:
        play = Play(world.tasks("train"), 3, 0, "test")
        await asyncio.wait_for(play_all(world, Scripted(2), play, lambda episode: None), timeout=60)

    asyncio.run(all_played())
    assert world.log.index("start 3") < world.log.index("close 0")


def test_policies_with_waves_play_in_waves_and_an_interrupted_wave_again_whole() -> None:
    world = Corridor(Awaits, [3, 1, 1, 1, 1])
    episodes = played(world, Scripted(2, waves=True))
    assert world.log.index("start 2") > max(world.log.index(line) for line in ("close 0", "close 1"))
    world.log.clear()
    handed = played(world, Scripted(2, waves=True), done={episodes[2].key, *(one.key for one in episodes[:2])})
    assert [one.task.id for one in handed] == ["3", "4"]
    assert [line for line in world.log if "start" in line] == ["start 2", "start 3", "start 4"]


def test_ctrl_c_closes_every_session_but_never_under_an_action() -> None:
    world = Corridor(Sleeps, [500] * 4)
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        played(world, Scripted(4), horizon=500)
    assert sorted(world.log) == sorted([f"{what} {i}" for i in range(4) for what in ("start", "close")])


def test_a_session_is_used_while_it_is_open_and_not_after() -> None:
    world = Corridor(Sleeps, [1])

    async def after_closing() -> None:
        async with Live(world, world.tasks("train")[0]) as session:
            assert (await session.privileged()).text == ""
        await session.act("wait")

    with pytest.raises(LeapError, match="corridor, task 0: the session is not open, or was closed"):
        run_sync(after_closing())


def test_scripted_players_hand_each_episode_on_before_the_next_and_hear_ctrl_c() -> None:
    """They never wait for anything, so nobody else would have a turn."""
    world, handed, seen = TinyWorld(TinyWorldConfig(tasks=50)), [], []

    async def all_played() -> None:
        async def watching() -> None:
            while True:
                seen.append(len(handed))
                await asyncio.sleep(0)

        watcher = asyncio.create_task(watching())
        tasks, policy = world.tasks("train"), ExpertPolicy(world)
        policy.concurrency = 4
        await play_all(world, policy, Play(tasks, 8, 0, "test"), handed.append)
        watcher.cancel()

    asyncio.run(all_played())
    assert [episode.task.id for episode in handed] == [task.id for task in world.tasks("train")]
    assert len(set(seen)) > 10


def test_all_calls_of_a_session_come_from_one_thread_which_ends_with_it() -> None:
    threads: dict[str, set[int]] = {}

    class Noting(Sleeps):
        def note(self) -> None:
            threads.setdefault(str(self.number), set()).add(threading.get_ident())

        def observe(self) -> Observation:
            self.note()
            return super().observe()

        def act(self, action: str) -> Outcome:
            self.note()
            return super().act(action)

        def close(self) -> None:
            self.note()

    class Slow(Corridor):
        blocking: ClassVar[bool] = True

        def start(self, task: Task) -> Session:
            threads.setdefault(task.id, set()).add(threading.get_ident())
            return super().start(task)

    before = threading.active_count()
    played(Slow(Noting, [3] * 6), Scripted(6))
    assert all(len(own) == 1 for own in threads.values()) and len({thread for (thread,) in threads.values()}) == 6
    for _ in range(200):
        if threading.active_count() <= before:
            break
        time.sleep(0.01)
    assert threading.active_count() <= before


class Late(ScriptedPolicy):
    """Notes in which order conversations are opened."""

    def __init__(self) -> None:
        super().__init__("late", ["wait"])
        self.opened: list[int] = []

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        self.opened.append(seed)
        async with super().playing(seed, peek) as player:
            yield player


def test_conversations_open_in_the_tasks_order_however_long_sessions_take_to_start() -> None:
    class Dawdling(Corridor):
        blocking: ClassVar[bool] = True

        def start(self, task: Task) -> Session:
            time.sleep(0.05 * (4 - int(task.id)))
            return super().start(task)

    world, policy = Dawdling(Sleeps, [1] * 4), Late()
    episodes = played(world, policy)
    assert policy.opened == [episode.seed for episode in episodes]
    assert world.log[0] != "start 0"


def test_a_model_in_this_process_answers_alike_whether_sessions_take_their_time_or_not(tmp_path: Path) -> None:
    """Rows of a batch stand in the tasks' order, and the batch waits for all of them."""
    pytest.importorskip("torch")
    from leap.models.base import Sampling
    from leap.models.hf import HFModel
    from leap.testing.checkpoints import tiny_checkpoint

    tiny_checkpoint(tmp_path / "tiny", "scratch")

    def student(world: Environment) -> ModelPolicy:
        model = HFModel(str(tmp_path / "tiny"), Sampling(temperature=1.0, max_tokens=12, max_reason_tokens=3), batch=3)
        rendering = Renderer(PromptConfig(renderer="dialogue", instructions=False, candidates=False), world.prompts_of)
        return ModelPolicy(model, rendering, Actor(name="student"), constrained=True)

    plain = without_clock(played(Otherwise(House), student(Otherwise(House)), horizon=3))
    assert student(Otherwise(House)).waves
    assert without_clock(played(Otherwise(SlowHouse), student(Otherwise(SlowHouse)), horizon=3)) == plain
