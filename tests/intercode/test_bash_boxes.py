"""InterCode Bash on real boxes: rewards, the teacher's roll-ins, and that nothing leaks from episode to episode."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from leap.core import Actor, Episode, History, Step, StopReason, Task
from leap.envs.base import opened
from leap.errors import LeapError
from leap_worlds.intercode.bash.env import BashConfig, BashEnvironment, BashSession

QUICK = ("fs_1/0", "fs_1/20", "fs_1/46", "fs_2/14", "fs_3/17", "fs_3/43", "fs_4/15")


@pytest.fixture(scope="module")
def world(boxes: None, intercode_data: Path) -> Iterator[BashEnvironment]:
    environment = BashEnvironment(BashConfig(path=intercode_data))
    try:
        environment.prepare()
    except LeapError as error:
        pytest.skip(f"no sandbox here: {error}")
    yield environment
    environment.close()


def task(world: BashEnvironment, name: str) -> Task:
    return next(task for task in world.tasks("all") if task.id == name)


def play(world: BashEnvironment, name: str, actions: list[str], horizon: int = 10) -> Episode:
    one = task(world, name)
    steps: list[Step] = []
    with opened(world, one) as session:
        shown, outcome = session.observe(), None
        for action in actions:
            outcome = session.act(action)
            steps.append(Step(observation=shown, action=action, reward=outcome.reward))
            shown = outcome.observation
    assert outcome is not None
    return Episode(task=one, actor=Actor(name="student"), horizon=horizon, steps=tuple(steps), final=shown,
                   score=outcome.score, success=outcome.success, stop=StopReason.ENDED)  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_gold_scores_and_so_does_the_unrolled_teacher(world: BashEnvironment, name: str) -> None:
    one = task(world, name)
    assert play(world, name, [world.record(one).gold, "submit"]).success
    with opened(world, one) as session:
        history, outcome = History(task=one, observations=(session.observe(),)), None
        for left in range(10, 0, -1):
            with world.coaching(world.record(one)) as coach:
                advice = coach.advise(history, 50, left=left)
            assert advice is not None and advice.value == 1.0 and advice.reason
            outcome = session.act(advice.action)
            history = history.extend(advice.action, outcome.observation)
            if outcome.done:
                break
    assert outcome is not None and outcome.success


def test_a_stage_that_shows_nothing_is_none_for_nobody_could_see_it_done(world: BashEnvironment) -> None:
    record = replace(world.record(task(world, "fs_1/0")), index=9_999, gold="find / -name no_such_thing | wc -l")
    with world.coaching(record) as coach:
        assert [stage.command for stage in coach.stages(record)] == [record.gold]


def test_doing_nothing_scores(world: BashEnvironment) -> None:
    """fs_1/58 finds nothing: a silent command solves it, while to submit at once compares the request with no output."""
    assert play(world, "fs_1/58", list(world.tutor.idle["submit-at-once"])).score == pytest.approx(0.67)
    assert play(world, "fs_1/58", list(world.tutor.idle["true-then-submit"])).success


def test_episodes_are_fresh(world: BashEnvironment) -> None:
    play(world, "fs_1/0", ["rm -rf /testbed /.git; touch /etc/zzz /left"])
    shown = play(world, "fs_1/0", ["ls -d /testbed /.git /etc/zzz /left"]).final.text
    assert "/testbed\n" in shown and shown.count("No such file") == 2


def test_teacher_corrects_the_step_that_lost_the_task(world: BashEnvironment) -> None:
    """fs_2/14 removes *.doc files of one folder; the second action destroys more than can be brought back."""
    episode = play(world, "fs_2/14", ["ls /system/folder1", "rm -rf /system /.git", "ls /", "submit"])
    decisions = [decision for _, _, decision in asyncio.run(world.tutor.correct_along(episode, 50))]
    assert decisions[0] is not None and decisions[0].action == "ls /system/folder1"
    assert decisions[1] is not None and "-name" in decisions[1].action
    plans = [state.plan for _, state, _ in asyncio.run(world.tutor.correct_along(episode, 50))]
    assert plans[1] is not None and plans[2] is None


def test_teacher_undoes_the_cd_trap_and_submits_when_done(world: BashEnvironment) -> None:
    gold = world.record(task(world, "fs_3/17")).gold
    episode = play(world, "fs_3/17", ["cd /workspace && ls", "ls", "cd /", gold, "ls /workspace", "submit"])
    decisions = [decision.action if decision else None for _, _, decision in asyncio.run(world.tutor.correct_along(episode, 50))]
    assert decisions[1] == "cd /" and decisions[2] == "cd /"
    assert decisions[4] == "submit"


def test_explained_reward_adds_up(world: BashEnvironment) -> None:
    with opened(world, task(world, "fs_1/44")) as session:
        assert isinstance(session, BashSession)
        session.act("touch /testbed/dir1/abc.txt /extra.txt")
        parts = session.judge()
        assert parts.extra and parts.diff == 0.05
        assert any("extra ?? extra.txt" in why for _, _, why in session.explain())
        session.act("rm /extra.txt")
        assert session.judge().solved
