"""What becomes of an environment whose own code raises, or that returns what it may not."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from leap.core import Episode, StopReason, Task
from leap.envs.base import Outcome, listed
from leap.envs.live import states_along
from leap.errors import ContractError, EnvironmentFault, PrerequisiteError
from leap.files import Journal
from leap.policies.base import ExpertPolicy, Policy, TeacherPolicy
from leap.progress import Progress
from leap.recipe import Recipe
from leap.rollouts import Play, rollout
from leap.runs.playing import play_tasks
from leap.sync import run_sync
from tiny_world import House, TinyTutor, TinyWorld, TinyWorldConfig

METHODS = ("start", "observe", "act", "privileged", "close")


class Faulty(TinyWorld):
    """The tiny world, in which one method of one task raises.

    Args:
        method: Which.
        broken: Numbers of the tasks.
        blocking: Whether sessions run in threads.
    """

    name: ClassVar[str] = "faulty"

    def __init__(self, method: str, broken: tuple[int, ...] = (3,), *, blocking: bool = False) -> None:
        super().__init__(TinyWorldConfig(tasks=20))
        self.method, self.broken, self.slow = method, broken, blocking
        self.closed: list[str] = []

    def start(self, task: Task) -> House:
        bad = int(task.id.split("/")[1]) in self.broken
        if bad and self.method == "start":
            raise OSError("no more rooms")
        world = self

        class Broken(House):
            blocking: ClassVar[bool] = world.slow

            def act(self, action: str) -> Outcome:
                fail("act", bad and action == "take key")
                return super().act(action)

            def observe(self) -> Any:
                fail("observe", bad)
                return super().observe()

            def privileged(self) -> Any:
                fail("privileged", bad)
                return super().privileged()

            def close(self) -> None:
                world.closed.append(task.id)
                fail("close", bad)

        def fail(method: str, now: bool) -> None:
            if now and world.method == method:
                raise OSError(f"the {method} of the user is broken")

        return Broken(random.Random(task.id))


def played(world: TinyWorld, policy: Policy | None = None, **more: Any) -> list[Episode]:
    episodes: list[Episode] = []
    policy = policy or TeacherPolicy(world, 50)
    rollout(world, policy, Play(world.tasks("train"), 8, 0, "test"), episodes.append, **more)
    return sorted(episodes, key=lambda episode: int(episode.task.id.split("/")[1]))


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_fault_ends_its_episode_alone_and_tells_where(
    method: str, blocking: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    world = Faulty(method, blocking=blocking)
    episodes = played(world)
    assert [e.task.id for e in episodes if e.stop is StopReason.ENVIRONMENT_ERROR] == ["train/3"]
    assert all(e.success for e in episodes if e.task.id != "train/3")
    told = episodes[3].error
    assert told.startswith("environment faulty, task train/3, ") and method in told
    assert Path(__file__).name in told and "leap/envs/live.py" not in told and "OSError" in told
    assert told in caplog.text
    assert len(world.closed) == 20 - (method == "start")
    assert len(episodes[3].steps) == {"start": 0, "observe": 0, "privileged": 0, "act": 1, "close": 3}[method]
    if method == "act":
        assert "step 1, act('take key')" in told and episodes[3].final.text == "There is a key."


def test_a_fault_of_the_tutor_is_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    world = TinyWorld(TinyWorldConfig(tasks=1))
    for method, policy in (("expert", ExpertPolicy), ("correct", lambda world: TeacherPolicy(world, 50))):
        with monkeypatch.context() as patch:
            patch.setattr(TinyTutor, method, lambda *_: {}["nothing"])
            (episode,) = played(world, policy(world), error_share=1.0)
        assert episode.stop is StopReason.ENVIRONMENT_ERROR and "KeyError" in episode.error


def test_what_went_wrong_first_is_told(caplog: pytest.LogCaptureFixture) -> None:
    world = Faulty("close")

    def act(self: House, action: str) -> Outcome:
        raise ValueError("the first")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(House, "act", act)
        episodes = played(world, error_share=1.0)
    assert "the first" in episodes[3].error and "the close of the user is broken" in caplog.text


def test_too_many_faults_end_the_rollout_with_the_first_of_them() -> None:
    world = Faulty("act", (3, 4, 9))
    assert len(played(world, error_share=0.15)) == 20
    with pytest.raises(EnvironmentFault, match=r"2 of 20 episodes .* 5% .*task train/3, step 1, act"):
        played(world, error_share=0.05)


def test_a_replay_that_meets_a_fault_says_so() -> None:
    (episode, *_) = played(TinyWorld(TinyWorldConfig(tasks=1)))
    with pytest.raises(EnvironmentFault, match="task train/0, step 0, privileged: OSError"):
        run_sync(states_along(Faulty("privileged", (0,)), episode))


def test_faults_go_on_file_only_with_a_stage_that_is_whole(tmp_path: Path) -> None:
    def play(world: TinyWorld, journal: Journal[Episode]) -> list[Episode]:
        policy = TeacherPolicy(world, 50)
        acting = SimpleNamespace(actor=policy.actor, policy=lambda: policy)
        recipe = Recipe.model_validate({"name": "faults", "environment": {"name": "tiny-world", "error_share": 0.1}})
        run = SimpleNamespace(root=tmp_path)
        actors: Any = SimpleNamespace(
            recipe=recipe, run=run, environment=world, acting=lambda _: acting, pays=lambda _: False, files=lambda _: []
        )
        spec: Any = SimpleNamespace(kind="teacher")
        return play_tasks(spec, Play(world.tasks("train"), 8, 0, "test"), actors, journal, under_way)

    noted: dict[str, Any] = {}

    @contextmanager
    def under_way() -> Any:
        with Progress().stage("test") as bar:
            yield bar, lambda **figures: noted.update(figures)

    file = tmp_path / "episodes.jsonl"
    with pytest.raises(EnvironmentFault):
        play(Faulty("act", (1, 2, 3)), Journal(file, Episode))
    kept = Journal(file, Episode)
    assert kept and all(episode.success for episode in kept)
    episodes = play(Faulty("act", (1, 2)), kept)  # mended in part: the rest is played, and stays as it is
    assert len(episodes) == 20 and noted["environment_errors"] == 2
    again = play(Faulty("act", ()), Journal(file, Episode))
    assert sum(episode.stop is StopReason.ENVIRONMENT_ERROR for episode in again) == 2


BAD = {
    "score": (lambda o: o._replace(score=1.5), r"the score 1\.5 is not in \[0, 1\]"),
    "negative": (lambda o: o._replace(score=-0.1), "the score -0.1 is not"),
    "nan score": (lambda o: o._replace(score=math.nan), "the score nan is not"),
    "nan reward": (lambda o: o._replace(reward=math.nan), "reward nan and parts {} are to be finite"),
    "parts": (lambda o: o._replace(parts={"price": math.inf}), "parts {.price.: inf} are to be finite"),
    "score as text": (lambda o: o._replace(score="0.5"), "score '0.5', reward 0.0 and parts {} are to be finite numbers"),
    "no reward": (lambda o: o._replace(reward=None), "reward None and parts {} are to be finite numbers"),
    "no parts": (lambda o: o._replace(parts=None), "parts None are to be finite numbers"),
    "parts without names": (lambda o: o._replace(parts={1: 0.5}), "parts {1: 0.5} are to be"),
    "a score as an array": (lambda o: o._replace(score=np.array([0.5, 0.5])), "score array"),
    "a huge score": (lambda o: o._replace(score=10**400), r"score 10+, reward"),
    "neither done nor not": (lambda o: o._replace(done="yes"), "done 'yes' and success False True or False"),
    "no success": (lambda o: o._replace(success=None), "success None True or False"),
    "tuple": (lambda o: tuple(o), "an Outcome is needed, not"),
    "text": (lambda o: o._replace(observation="dark"), "an Observation is needed, not 'dark'"),
    "none": (lambda o: None, "an Outcome is needed, not None"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_outcome_that_breaks_the_contract_ends_the_run(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, problem = BAD[what]
    act = House.act
    monkeypatch.setattr(House, "act", lambda self, action: change(act(self, action)))
    with pytest.raises(ContractError, match=f"environment tiny-world, task train/0, step 0, act.*{problem}"):
        played(TinyWorld(TinyWorldConfig(tasks=3)))


@pytest.mark.parametrize(("method", "value"), [("observe", "dark"), ("privileged", {"place": "hat"})])
def test_other_wrong_types_are_refused_too(method: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(House, method, lambda self: value)
    with pytest.raises(ContractError, match=f"environment tiny-world, task train/0, .*{method}: an? .* is needed, not"):
        played(TinyWorld(TinyWorldConfig(tasks=1)))


def test_numbers_of_any_kind_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    act = House.act

    def numbered(self: House, action: str) -> Outcome:
        observation, reward, done, success, score, _ = act(self, action)
        parts = {"rooms": np.float32(score), "doors": True}
        return Outcome(observation, np.int64(reward), np.bool_(done), int(success), np.float64(score), parts)  # type: ignore[arg-type]

    plain = played(TinyWorld(TinyWorldConfig(tasks=2)))
    monkeypatch.setattr(House, "act", numbered)
    for one, other in zip(plain, played(TinyWorld(TinyWorldConfig(tasks=2))), strict=True):
        assert other.score == one.score == other.parts["rooms"] and other.success is one.success
        assert Episode.model_validate_json(other.line()) == other


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("raised", [StopIteration, SystemExit, asyncio.CancelledError])
def test_what_ends_loops_programs_and_coroutines_ends_the_episode_alone(
    raised: type[BaseException], blocking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A future takes no StopIteration, so that a run would wait for ever; a world may run a program that calls exit(), or wait
    for something of its own that was cancelled."""

    def fail(self: House, action: str) -> Outcome:
        raise raised

    monkeypatch.setattr(House, "act", fail)
    monkeypatch.setattr(House, "blocking", blocking)
    (episode,) = played(TinyWorld(TinyWorldConfig(tasks=1)), error_share=1.0)
    assert episode.stop is StopReason.ENVIRONMENT_ERROR and raised.__name__ in episode.error
    assert ", in fail" in episode.error and "concurrent" not in episode.error


def test_a_score_may_miss_1_by_a_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    act = House.act
    monkeypatch.setattr(House, "act", lambda self, action: act(self, action)._replace(score=1 + 2e-16 + 0.1 - 0.1))
    assert played(TinyWorld(TinyWorldConfig(tasks=1)))


def test_tasks_may_come_one_by_one_and_versions_as_numbers() -> None:
    class Lazy(TinyWorld):
        def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> Any:
            return iter(super().tasks(split, limit=limit, seed=seed))

        def versions(self) -> Any:
            return {"rooms": 3}

    world = Lazy(TinyWorldConfig(tasks=3))
    found = listed(world, "train")
    assert [task.id for task in found] == ["train/0", "train/1", "train/2"]
    episodes: list[Episode] = []
    rollout(world, TeacherPolicy(world, 50), Play(found, 8, 0, "test"), episodes.append)
    assert len(episodes) == 3 and episodes[0].versions["rooms"] == "3"


@pytest.mark.parametrize("raised", [ZeroDivisionError, SystemExit])
def test_tasks_that_cannot_be_listed_are_told_with_their_traceback(raised: type[BaseException]) -> None:
    class Unlisted(TinyWorld):
        def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
            raise raised

    with pytest.raises(EnvironmentFault, match=rf"tiny-world: tasks\('train'\) raises\n(?s:.*), in tasks\n.*\n{raised.__name__}"):
        listed(Unlisted(TinyWorldConfig(tasks=3)), "train")


def test_tasks_of_one_id_and_of_other_splits_are_refused() -> None:
    class Twice(TinyWorld):
        def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
            return super().tasks(split) * 2

    class Elsewhere(TinyWorld):
        def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
            return super().tasks("train")

    with pytest.raises(ContractError, match=r"environment tiny-world: tasks\('train'\) gives 'train/0' more than once"):
        listed(Twice(TinyWorldConfig(tasks=3)), "train")
    with pytest.raises(ContractError, match=r"environment tiny-world: tasks\('test'\) gives"):
        listed(Elsewhere(TinyWorldConfig(tasks=3)), "test")
    with pytest.raises(ContractError, match="tiny-world: a task is to be played twice"):
        played(Twice(TinyWorldConfig(tasks=3)))


def test_who_needs_a_tutor_says_so_where_there_is_none() -> None:
    class Bare(TinyWorld):
        tutor = None  # type: ignore[assignment]

    for policy in (ExpertPolicy, lambda world: TeacherPolicy(world, 50)):
        with pytest.raises(PrerequisiteError, match="tiny-world has no tutor"):
            policy(Bare())
