"""What the studies' arms need of the loop: mixed rollouts, caps on labels, states in demonstrations, specialists."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from world import OPTIONS

from leap.core import Actor, Decision, History
from leap.envs.base import Environment
from leap.policies.base import Act, ExpertPolicy, MixedPolicy, Peek, Player, TeacherPolicy
from leap.progress import Progress
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory
from leap.runs.stages import Stages
from leap.teachers.hindsight import account
from leap.testing.play import played


def recipe(**more: Any) -> Recipe:
    values = {"name": "x", "horizon": 6, "environment": {"name": "alfworld", "options": OPTIONS}}
    return Recipe.model_validate(values | {"teacher": {"episodes": "all"}} | more)


def stages(folder: Path, **more: Any) -> Stages:
    return Stages(recipe(**more), RunDirectory(folder / "run"), Progress())


# ---- mixed rollouts --------------------------------------------------------------------------------------------------


class Waiting:
    """A student that waits in place; it notes what it is handed."""

    privileged = False
    waves = False
    concurrency = 4
    actor = Actor(name="student")

    def __init__(self) -> None:
        self.peeks: list[Peek | None] = []
        self.asked = 0

    @asynccontextmanager
    async def playing(self, seed: int, peek: Peek | None) -> AsyncIterator[Player]:
        self.peeks.append(peek)
        yield self

    async def decide(self, history: History) -> Act:
        self.asked += 1
        return Act(Decision(reason="", action="look"), completion="ACTION: look")


def test_beta_is_the_share_of_the_teachers_steps_and_the_student_sees_no_state(world: Environment) -> None:
    tasks = world.tasks("train")
    for beta in (0.0, 0.3, 1.0):
        student = Waiting()
        mixed = MixedPolicy(student, TeacherPolicy(world, 50), beta, Actor(name="both"))
        episodes = played(world, mixed, tasks, horizon=30)
        steps = [step for episode in episodes for step in episode.steps]
        by_teacher = sum(step.completion == "" for step in steps) / len(steps)
        assert by_teacher == pytest.approx(beta, abs=0.15)
        assert student.asked == sum(step.completion != "" for step in steps)
        assert student.peeks == [None] * len(tasks)
        again = played(world, MixedPolicy(Waiting(), TeacherPolicy(world, 50), beta, Actor(name="both")), tasks, horizon=30)
        assert [episode.steps for episode in again] == [episode.steps for episode in episodes]


def test_who_may_see_the_state_is_no_student(world: Environment) -> None:
    with pytest.raises(ValueError, match="privileged"):
        MixedPolicy(TeacherPolicy(world, 50), ExpertPolicy(world), 0.5, Actor(name="both"))


def test_a_step_that_is_tried_again_is_drawn_alike(world: Environment) -> None:
    task = world.tasks("train")[0]
    mixed = MixedPolicy(Waiting(), Waiting(), 0.5, Actor(name="both"))
    history = played(world, ExpertPolicy(world), [task])[0].history(1)

    async def drawn() -> set[str]:
        async with mixed.playing(3, None) as player:
            return {repr(await player.decide(history)) for _ in range(5)}

    assert len(asyncio.run(drawn())) == 1


def test_the_schedule_is_daggers() -> None:
    section = recipe(rollouts={"beta": 0.5, "decay": 0.5}).rollouts
    assert [section.beta_at(i) for i in (1, 2, 3)] == [0.5, 0.25, 0.125]
    assert recipe().rollouts.beta_at(1) == 0.0


def test_a_schedule_may_be_half_a_cosine() -> None:
    section = recipe(rollouts={"beta": 0.8, "cosine": 5}).rollouts
    halved = 0.4 / math.sqrt(2)
    expected = [0.8, 0.4 + halved, 0.4, 0.4 - halved, 0, 0]
    assert [section.beta_at(i) for i in range(1, 7)] == pytest.approx(expected) and section.beta_at(5) == 0
    with pytest.raises(ValidationError, match="by decay or along a cosine"):
        recipe(rollouts={"beta": 0.5, "decay": 0.5, "cosine": 3})


def test_a_teacher_that_acts_alone_needs_no_student(tmp_path: Path, world: Environment) -> None:
    made = stages(tmp_path, rollouts={"beta": 1.0}, teacher={"privilege": 100, "episodes": "all"})
    episodes = list(made.rollout(1))
    assert {episode.actor.name for episode in episodes} == {"teacher-100"} and len(episodes) == 8
    made.correct(1)
    assert {row.source for row in made.rows_of(1)} == {"correction"}


def test_preferences_need_the_students_own_answers() -> None:
    with pytest.raises(ValidationError, match="act alone"):
        recipe(rollouts={"beta": 0.5}, training={"method": "dpo"})


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_corrections_and_demonstrations_stop_at_so_many_labels(tmp_path: Path, world: Environment) -> None:
    demonstrations = {"labels": 10, "successes_only": False}
    made = stages(
        tmp_path, rollouts={"beta": 1.0}, teacher={"episodes": "all", "labels": 13}, demonstrations=demonstrations
    )
    made.rollout(0)
    assert 4 < len(made.rows_of(0)) <= 10
    episodes = {episode.key: episode for episode in made.rollout(1)}
    corrections = list(made.correct(1))
    assert 7 < len(corrections) <= 13, "as many whole episodes as fit"
    corrected = {correction.episode for correction in corrections}
    assert len(corrections) == sum(len(episodes[key].steps) for key in corrected)
    assert list(stages(tmp_path, rollouts={"beta": 1.0}, teacher={"episodes": "all", "labels": 13}).correct(1)) == corrections


# ---- demonstrations with the state -----------------------------------------------------------------------------------


def test_demonstrations_with_the_state_are_rows_of_their_own(tmp_path: Path, world: Environment) -> None:
    plain, shown = stages(tmp_path / "a"), stages(tmp_path / "b", demonstrations={"with_state": 50})
    for one in (plain, shown):
        one.rollout(0)
    own, both = plain.rows_of(0), shown.rows_of(0)
    assert both[: len(own)] == own, "the demonstrations themselves show no state"
    more = both[len(own) :]
    with_state = {episode.key for episode in shown_episodes(shown)}
    assert more and {row.episode for row in more} <= with_state
    assert all("Essential" in row.prompt[-1]["content"] or "essential" in row.prompt[-1]["content"] for row in more)
    assert not any("ssential" in message["content"] for row in own for message in row.prompt)


def shown_episodes(made: Stages) -> list[Any]:
    from leap.core import Episode
    from leap.files import Journal

    return list(Journal(made.run.iteration(0) / "with-state.jsonl", Episode))


def test_demonstrations_in_hindsight_are_those_that_solved_their_task_told_of_themselves(
    tmp_path: Path, world: Environment
) -> None:
    played = {"successes_only": False, "episodes": 20}
    plain = stages(tmp_path / "a", demonstrations=played)
    shown = stages(tmp_path / "b", demonstrations=played | {"in_hindsight": 50})
    for one in (plain, shown):
        one.rollout(0)
    own, both = plain.rows_of(0), shown.rows_of(0)
    solved = {one.key: one for one in shown.episodes(0) if one.success}
    assert both[: len(own)] == own, "the demonstrations themselves tell nothing"
    more = both[len(own) :]
    assert 0 < len(solved) < 20
    assert [(row.episode, row.t) for row in more] == [(k, t) for k, e in solved.items() for t in range(len(e.steps))]
    for row in more:
        assert f"An attempt at this task that solved it:\n{account(solved[row.episode])}" in row.prompt[-1]["content"]
    assert not any("An attempt at this task" in message["content"] for row in own for message in row.prompt)


@pytest.mark.parametrize("key", ["with_state", "in_hindsight"])
def test_prompts_know_five_levels(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        recipe(demonstrations={key: 33})
