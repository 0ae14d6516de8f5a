"""States of a task in copies of a box: what is not done again, and where it has to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leap_worlds.tasks.env import TasksEnvironment, TaskSession
from leap_worlds.tasks.session import States

MakeTasks = Callable[..., TasksEnvironment]
Write = Callable[..., Path]
COUNTS = "cat /app/log 2>/dev/null; [ $(cat /app/log | wc -l) = 2 ]; echo $((1 - $?)) > /logs/verifier/reward.txt"


@pytest.fixture
def world(boxes_here: MakeTasks, one_task: Write) -> TasksEnvironment:
    return boxes_here(one_task(COUNTS, solution="echo a >> /app/log\necho b >> /app/log"), actions="text")


@pytest.fixture(autouse=True)
def copies_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(States, "worth", 0.0)


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every action that is taken in any box."""
    taken: list[str] = []
    act = TaskSession.act

    def noted(self: TaskSession, action: str) -> object:
        taken.append(action)
        return act(self, action)

    monkeypatch.setattr(TaskSession, "act", noted)
    return taken


def test_along_an_episode_each_action_is_taken_once(world: TasksEnvironment, acted: list[str]) -> None:
    (name,) = world.folders
    states = States(world, name)
    one, two = "echo 1 >> /app/log", "echo 2 >> /app/log"
    assert world.reached(name, (one,), (two, "submit"), states)[0] == 1.0
    assert world.reached(name, (one,), ("submit",), states)[0] == 0.0
    assert world.reached(name, (one, two), ("submit",), states) == (1.0, 0)  # the same as before: not tried again
    assert world.reached(name, (one, two), (), states) == (1.0, 0)
    assert acted == [one, two, "submit", "submit", two]
    assert world.reached(name, ("touch /x",), ("submit",), states)[0] == 0.0, "another episode"
    states.close()
    states.close()


def test_what_is_quickly_done_again_is_not_copied(
    world: TasksEnvironment, acted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(States, "worth", 30.0)
    (name,) = world.folders
    states = States(world, name)
    for second in ("touch /x", "touch /y"):
        assert world.reached(name, ("true",), (second, "submit"), states)[0] == 0.0
    assert acted == ["true", "touch /x", "submit", "true", "touch /y", "submit"]
    states.seconds = 31.0
    world.reached(name, ("true",), ("submit",), states)
    world.reached(name, ("true",), ("touch /z",), states)
    states.close()
    assert acted[6:] == ["true", "submit", "touch /z"]


@pytest.mark.parametrize("why", ["something runs", "the sandbox makes none", "no copy can be had"])
def test_where_there_is_no_copy_all_is_done_again_and_comes_to_the_same(
    world: TasksEnvironment, acted: list[str], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    (name,) = world.folders
    first = "echo 1 >> /app/log"
    if why == "something runs":
        first += "; sleep 300 >/dev/null 2>&1 &"
    elif why == "the sandbox makes none":
        monkeypatch.setattr(world.images.provider, "snapshots", False)
    else:
        monkeypatch.setattr(world.images, "snapshot", lambda box, quiet: None)
    states = States(world, name)
    assert world.reached(name, (first,), ("echo 2 >> /app/log", "submit"), states)[0] == 1.0
    assert world.reached(name, (first,), ("submit",), states)[0] == 0.0
    states.close()
    assert acted.count(first) >= 2


def test_what_the_tests_say_now_is_found_in_a_copy_that_changes_nothing(
    world: TasksEnvironment, acted: list[str]
) -> None:
    session = world.start(world.tasks("all")[0])
    assert isinstance(session, TaskSession)
    session.act("echo $RANDOM >> /app/log")
    for _ in range(2):
        assert "reward 0" in session.privileged().text
    session.act("echo 2 >> /app/log")
    assert "All checks pass now." in session.privileged().text
    assert acted == ["echo $RANDOM >> /app/log", "echo 2 >> /app/log"]
    assert session.act("ls /tests").observation.text.startswith("ls: cannot access")
    assert session.act("submit").score == 1.0
    session.close()
    boxes = world.images.provider.store.root / "boxes"  # pyright: ignore[reportAttributeAccessIssue] - of namespaces
    assert not [path for path in boxes.iterdir() if path.name.startswith("snapshot") and any(path.iterdir())]
