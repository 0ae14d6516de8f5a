"""Goals: draws of prices and limits, made-up goals, and that the privileged state, rollouts and evaluation agree on them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_shop import a_product, a_store, said

from leap.errors import PrerequisiteError
from leap_worlds.webshop.goals import NO_LIMIT, Goals, draw_limit, draw_prices, limit_text
from leap_worlds.webshop.splits import ETO_TEST, OFFICIAL_HUMAN_GOALS, SPLITS, TEST_SPLITS


def test_prices_are_drawn_as_one_by_one(tmp_path: Path) -> None:
    texts = ["$5", "$1$9", "", "$7.25$7.25", "$9$1", "$3"] * 200
    store = a_store(tmp_path, *(a_product(i, pricing=text) for i, text in enumerate(texts)))
    ours, theirs = random.Random(3), random.Random(3)
    ours.random()
    theirs.random()
    one_by_one = [p.pricing[0] if len(p.pricing) == 1 else theirs.uniform(*p.pricing) for p in store]
    assert draw_prices(store, ours).tolist() == one_by_one
    assert ours.getstate() == theirs.getstate()  # and the next draws are the same


@given(price=st.floats(0, 2000), seed=st.integers(0, 100))
def test_a_limit_is_above_the_price_and_never_the_least(price: float, seed: int) -> None:
    limit = draw_limit(price, random.Random(seed))
    steps = [10.0 * i for i in range(1, 100) if 10.0 * i > price][:4]
    if len(steps) < 2:
        assert limit == NO_LIMIT and limit_text(limit) == ""
    else:
        assert limit in steps[1:] and limit_text(limit) == f", and price lower than {limit:.2f} dollars"


def test_goals_of_people_need_attributes_and_lose_their_last_dots(tmp_path: Path) -> None:
    people = {"B000000000": [said("i want a mug...", ["steel"], ["red"]), said("any mug", [])], "B0elsewhere": [said("x")]}
    store = a_store(tmp_path, a_product(0, pricing="$2000"), people=people)
    rng = random.Random(0)
    (goal,) = Goals(store, draw_prices(store, rng), rng, human=True)
    assert (goal.instruction, goal.options, goal.price_upper) == ("i want a mug", ("red",), NO_LIMIT)


def test_made_up_goals_are_every_combination_of_options(tmp_path: Path) -> None:
    colors = {"Size": ["S", "L"], "Color": ["Red", "Red", "Blue"]}
    attributes = {
        "B000000000": {"attributes": ["a", "b"], "instruction": "Find me a, b mug", "instruction_attributes": ["a", "b"]},
        "B000000001": {"attributes": ["a"], "instruction": "Find me a mug", "instruction_attributes": ["a"]},
        "B000000002": {"attributes": ["a"]},
        "B000000003": {"attributes": ["a"], "instruction": "none", "instruction_attributes": []},
    }
    store = a_store(
        tmp_path,
        a_product(0, customization_options=colors, pricing="$2000"),
        *(a_product(i, pricing="$2000") for i in (1, 2, 3, 4)),
        attributes=attributes,
    )
    rng = random.Random(0)
    goals = Goals(store, draw_prices(store, rng), rng, human=False)
    texts = sorted(goal.instruction for goal in goals)
    assert len(goals) == 7 and texts[0] == "Find me a mug"
    assert texts[1:] == sorted(
        f"Find me a, b mug with color: {color}, and size: {size}" for color in ("red", "red", "blue") for size in ("s", "l")
    )
    assert [goal.index for goal in goals] == list(range(7)) == [goal.index for goal in goals]
    with pytest.raises(IndexError):
        goals[7]


def test_the_published_splits() -> None:
    whole = OFFICIAL_HUMAN_GOALS
    taken = {name: set(split.indices(whole)) for name, split in SPLITS.items()}
    assert (len(taken["leap"]), len(taken["eval"]), len(taken["train"])) == (500, 1000, 10_587)
    assert len(taken["eto"]) == len(ETO_TEST) == 200
    of_people = [("train", "eval", "leap"), ("train", "eval", "test"), ("eto_train", "eto_eval", "eto")]
    for train, choose, test in [*of_people, ("verl-agent_train", "verl-agent_eval", "verl-agent")]:
        assert not taken[train] & taken[test] and not taken[choose] & taken[test] and not taken[train] & taken[choose]
    for train, test in (("synthetic_train", "synthetic"), ("verl-agent_train", "verl-agent")):
        assert not taken[train] & taken[test] and len(taken[test]) == 500
    assert taken["all"] == set(range(whole)) == taken["test"] | taken["eval"] | taken["train"]
    assert {"all", "test", "leap", "eto", "synthetic", "verl-agent"} == TEST_SPLITS  # "all" holds the tests, so it is one
    assert [list(split.indices(3)) for split in (SPLITS["test"], SPLITS["train"], SPLITS["eto"])] == [[0, 1, 2], [], []]


@pytest.mark.parametrize("name", ["human.jsonl", "goals-human/order.npy", "goals-human/lines.npy"])
@pytest.mark.parametrize("cut", [True, False])
def test_goals_that_are_not_whole_say_so(tmp_path: Path, name: str, cut: bool) -> None:
    store = a_store(tmp_path, a_product(0), a_product(1), people={"B000000000": [said("i want a mug")] * 3})
    opened = Goals(store, draw_prices(store, random.Random(0)), random.Random(0), human=True)
    assert [goal.index for goal in opened] == [0, 1, 2]
    path = store.folder / name
    if cut:
        path.write_bytes(path.read_bytes()[:-4])
    else:
        path.unlink()
    with pytest.raises(PrerequisiteError, match=r"is damaged .*it is made anew"):
        Goals(store, draw_prices(store, random.Random(0)), random.Random(0), human=True)


def test_options_that_combine_beyond_all_measure_are_refused(tmp_path: Path) -> None:
    options = {f"option {i}": [str(value) for value in range(50)] for i in range(6)}
    known = {"B000000000": {"attributes": ["a"], "instruction": "a mug", "instruction_attributes": ["a"]}}
    store = a_store(tmp_path, a_product(0, customization_options=options), attributes=known)
    with pytest.raises(PrerequisiteError, match="more than 100,000,000 goals"):
        Goals(store, draw_prices(store, random.Random(0)), random.Random(0), human=False)
    assert not list(store.folder.glob("goals-*")) and not list(store.folder.glob(".goals*"))
