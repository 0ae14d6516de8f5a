"""Labels of value models, in a corridor in which it is known exactly what each action is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap.core import Episode, StopReason
from leap.policies.base import FunctionPolicy, Policy
from leap.sync import run_sync
from leap.testing.corridor import EAST, STAY, WEST, Corridor, CorridorConfig
from leap.testing.play import walked
from leap.value.config import ValueConfig
from leap.value.labels import Labeller, Labels, returns

GOAL, HORIZON = 3, 6


def world(**options: Any) -> Corridor:
    return Corridor(CorridorConfig(goal=GOAL, **options))


def walker(*actions: str) -> Policy:
    """Takes these actions in turn, the last one on and on."""
    return FunctionPolicy(lambda history: actions[min(len(history.actions), len(actions) - 1)], name="student")


def labelled(
    environment: Corridor, episodes: Sequence[Episode], student: Policy, hot: Policy | None = None, **config: Any
) -> list[Labels]:
    settings = ValueConfig(**{"steps": HORIZON, "answers": 1, "listed": 0, **config})
    return run_sync(Labeller(environment, settings, 0, student, hot or student).label(episodes))


def values(labels: Labels) -> dict[tuple[int, str], float]:
    return {(one.t, one.action): one.value for one in labels.valued}


# ---- returns ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([EAST, STAY]), min_size=1, max_size=HORIZON), st.floats(0.5, 1.0))
def test_returns_are_discounted_from_the_end(actions: list[str], discount: float) -> None:
    """Each is `discount` times the next, the last is the outcome itself, and all of a failure are 0, however long it was."""
    episode = walked(world(cliff=None), world().task("train"), actions, horizon=HORIZON)
    found = [one.value for one in returns(episode, discount)]
    assert len(found) == len(episode.steps) and found[-1] == float(episode.success)
    assert all(0 <= one <= 1 for one in found)
    assert found == pytest.approx([discount * one for one in found[1:]] + found[-1:])
    assert episode.success or not any(found)


def test_a_late_step_of_a_long_failure_is_no_better_than_an_early_one_of_a_short_one() -> None:
    long, short = (walked(world(), world().task("train"), [STAY] * n, horizon=HORIZON) for n in (6, 2))
    assert {one.value for one in (*returns(long, 0.9), *returns(short, 0.9))} == {0.0}


def test_an_episode_that_was_broken_off_says_nothing() -> None:
    broken = walked(world(), world().task("train"), [EAST, STAY], horizon=HORIZON, stop=StopReason.MODEL_ERROR)
    for kind in ("returns", "replay", "planner"):
        (found,) = labelled(world(), [broken], walker(EAST), labels=kind)
        assert found.valued == () and found.episode == broken.key


# ---- replay ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [False, True])
def test_an_action_is_worth_what_the_student_makes_of_it(copies: bool) -> None:
    """At place 0 with 6 actions left a student that goes east succeeds whatever is done once; at the last step nothing does."""
    environment = world(copies=copies)
    episode = walked(environment, environment.task("train"), [STAY] * HORIZON, horizon=HORIZON)
    (found,) = labelled(environment, [episode], walker(EAST), walker(EAST))
    told = values(found)
    # Its own action is worth what its own episode came to: nothing. Another is followed by a student that goes east.
    assert {told[t, STAY] for t in range(HORIZON)} == {0.0}
    assert [told[t, EAST] for t in range(HORIZON)] == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert [one.action for one in found.valued][:2] == [STAY, EAST]  # its own first
    fresh = 0 if copies else sum(range(HORIZON))
    assert found.executed == fresh + 3 * 4 + 2 + 1


def test_more_rolls_are_more_outcomes_of_one_action() -> None:
    environment = world()
    episode = walked(environment, environment.task("train"), [STAY] * HORIZON, horizon=HORIZON)
    (found,) = labelled(environment, [episode], walker(EAST), rolls=3)
    own = {one.t: one.returns for one in found.valued if one.action == STAY}
    other = {one.t: one.returns for one in found.valued if one.action == EAST}
    # The first outcome of its own action is the episode's; the others are tried, by a student that then goes east.
    assert own[0] == (0.0, 1.0, 1.0) and other[0] == (1.0, 1.0, 1.0) and own[5] == (0.0, 0.0, 0.0)


def test_listed_actions_are_tried_beside_those_that_the_student_says() -> None:
    environment = world()
    episode = walked(environment, environment.task("train"), [STAY], horizon=HORIZON)
    (two,), (three,) = (labelled(environment, [episode], walker(STAY), answers=2, listed=n) for n in (1, 2))
    assert len(two.valued) == 2 and {one.action for one in three.valued} == {EAST, STAY, WEST}


def test_a_discount_makes_the_shorter_way_the_better_one() -> None:
    environment = world()
    episode = walked(environment, environment.task("train"), [EAST] * GOAL, horizon=HORIZON)
    (found,) = labelled(environment, [episode], walker(EAST), walker(STAY), discount=0.5)
    told = values(found)
    assert told[0, EAST] == 0.25 and told[0, STAY] == 0.125 and told[2, EAST] == 1.0


def test_labels_are_the_same_each_time_and_have_the_keys_of_their_settings() -> None:
    environment = world()
    episodes = [walked(environment, task, [STAY] * HORIZON, horizon=HORIZON) for task in environment.tasks("train")]
    first, again = (labelled(environment, episodes, walker(EAST), steps=2, listed=1) for _ in range(2))
    other = labelled(environment, episodes, walker(EAST), steps=2, listed=1, rolls=2)
    assert first == again and {one.key for one in first}.isdisjoint(one.key for one in other)
    assert len({tuple(one.t for one in labels.valued) for labels in first}) > 1  # steps are drawn for each episode
    kept = ValueConfig(steps=2, listed=1, answers=1, tasks=7, held_out=9, training={"lr": 0.1}).labels_key
    assert {one.settings for one in first} == {kept}


# ---- planner ---------------------------------------------------------------------------------------------------------


def test_the_planner_knows_how_far_it_is() -> None:
    environment = world()
    episode = walked(environment, environment.task("train"), [WEST, STAY, STAY, STAY, STAY, STAY], horizon=HORIZON)
    (found,) = labelled(environment, [episode], walker(EAST), labels="planner", answers=0, listed=3, discount=0.5)
    told = values(found)
    # From 0: east leaves 2 of 5 actions, staying 3, west 4. At -1 the cliff is to the west; later there is no time.
    assert (told[0, EAST], told[0, STAY], told[0, WEST]) == (0.25, 0.125, 0.0625)
    assert (told[1, EAST], told[1, STAY], told[1, WEST]) == (0.125, 0.0625, 0.0)
    assert {told[t, EAST] for t in (3, 4, 5)} == {0.0}
