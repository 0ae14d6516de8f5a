"""The reward's terms: as recorded from the original, and where the fixed mode differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_shop import a_goal, a_product, a_store

from leap.errors import PrerequisiteError, RecipeError
from leap_worlds.webshop.catalogue import Product
from leap_worlds.webshop.goals import Goal
from leap_worlds.webshop.reward import (
    Purchase,
    RewardMode,
    alike,
    first_color,
    first_color_word,
    judge,
    judge_type,
    options_met,
)
from leap_worlds.webshop.tagger import LexicalTagger, load_tagger
from webshop_original import verbose_info

RECORDED = json.loads((Path(__file__).parent / "golden" / "rewards.json").read_text(encoding="utf-8"))
"""160 random purchases in words of our own, judged by the original `get_reward` with our tagger in spaCy's place; half of the
goals ask for options as people's do, half as made-up ones. (20,000 such were compared: none differed.)"""


def judged(row: dict[str, Any], mode: RewardMode = RewardMode.UPSTREAM) -> Purchase:
    bought, asked = row["product"], row["goal"]
    product = Product(
        asin=bought["asin"],
        title=bought["title"],
        description=bought["description"],
        bullets=tuple(bought["bullets"]),
        price="$1",
        pricing=(1.0,),
        options={},
        attributes=tuple(bought["attributes"]),
        category=bought["category"],
        query=bought["query"],
        product_category=bought["product_category"],
    )
    options = asked["goal_options"]
    goal = Goal(
        index=0,
        asin=asked["asin"],
        category=asked["category"],
        query=asked["query"],
        name=asked["name"],
        product_category=asked["product_category"],
        instruction="",
        attributes=tuple(asked["attributes"]),
        price_upper=asked["price_upper"],
        options=options if isinstance(options, dict) else tuple(options),
    )
    nouns, goal_nouns = LexicalTagger().tag([product.title, goal.name])
    return judge(
        product, goal, price=row["price"], chosen=row["chosen"], nouns=nouns, goal_nouns=goal_nouns, mode=mode
    )


def test_recorded_purchases_are_worth_what_they_were_term_by_term() -> None:
    assert len(RECORDED) == 160 and {type(row["goal"]["goal_options"]) for row in RECORDED} == {list, dict}
    for row in RECORDED:
        purchase = judged(row)
        assert (purchase.total, verbose_info(purchase)) == (row["total"], row["info"])


@pytest.mark.parametrize("mode", RewardMode)
def test_the_total_follows_from_the_parts(mode: RewardMode) -> None:
    for row in RECORDED:
        purchase = judged(row, mode)
        met = purchase.attribute * purchase.attributes_asked + (purchase.option or 0.0) * purchase.options_asked
        asked = purchase.attributes_asked + purchase.options_asked + 1
        assert purchase.total == pytest.approx(purchase.type * (met + purchase.price) / asked)
        assert ("option" in purchase.parts) == (purchase.options_asked > 0)


@pytest.mark.parametrize(
    ("nouns", "goal_nouns", "matches", "kind"),
    [  # nouns in common of ten in the goal's title
        ("abc", "abcdefghij", False, 1.0),  # .3
        ("ab", "abcdefghij", False, 0.5),  # .2 is not above .2
        ("ab", "abcdefghij", True, 1.0),
        ("a", "abcdefghijk", True, 0.1),  # below .1: whatever else matches
        ("z", "abcdefghij", True, 0.0),
        ("a", "", False, 0.5),  # no nouns: as if .2
        ("aaab", "aab", False, 1.0),  # repeats count in the goal's title alone: 2 of 3
    ],
)
def test_the_type_factor(tmp_path: Path, nouns: str, goal_nouns: str, matches: bool, kind: float) -> None:
    store = a_store(tmp_path, a_product(0), a_product(1, query="mugs" if matches else "cups", product_category="Cups"))
    assert judge_type(store[1], a_goal(store), list(nouns), list(goal_nouns))[0] == kind


def test_two_common_levels_of_category_are_a_match(tmp_path: Path) -> None:
    store = a_store(tmp_path, a_product(0), a_product(1, query="x", product_category="Cups › Kitchen › Home"))
    assert judge_type(store[1], a_goal(store), ["a"], ["a"])[1:] == (1.0, False, True)


@pytest.mark.parametrize(
    ("wanted", "chosen", "upstream", "fixed"),
    [
        (("red",), {"color": "dark red"}, 0, 0),  # "dark" is a colour of the list as well, and comes first
        (("dark red",), {"color": "dark rose"}, 1, 1),  # for the same reason
        (("red",), {"style": "bordered"}, 1, 0),
        (("x-large", "navy"), {"size": "x-large", "color": "navy blue"}, 1, 1),  # "blue" comes before "navy"
        ({"color": "navy"}, {"color": "navy"}, 1, 1),
        ({"color": "wine red"}, {"color": "red"}, 1, 1),
        ({"color": "crimson red"}, {"color": "red hot"}, 1, 1),
        ({"color": "red"}, {"finish": "red", "color": "blue"}, 1, 0),  # chosen, but for another option
        ({"size": "10 inch"}, {"size": "10 inch"}, 1, 1),
        ({"color": "maroon xyz"}, {"color": "maroon abc"}, 1, 1),
        ({"color": "delighted red"}, {"color": "light"}, 0, 0),
        ((), {"color": "red"}, 0, 0),
    ],
)
def test_options_in_both_modes(wanted: Any, chosen: dict[str, str], upstream: int, fixed: int) -> None:
    assert options_met(wanted, chosen, RewardMode.UPSTREAM) == upstream
    assert options_met(wanted, chosen, RewardMode.FIXED) == fixed


def test_colours_are_found_within_words_by_the_original_alone() -> None:
    assert (first_color("bordered"), first_color_word("bordered")) == ("red", "bordered")
    assert first_color("navy tan") == first_color_word("navy tan") == "navy"
    assert first_color("plain") == "plain"


@given(a=st.text(max_size=12), b=st.text(max_size=12))
def test_alike_is_symmetric_and_takes_any_text(a: str, b: str) -> None:
    assert alike(a, b) == alike(b, a)


def test_alike_drops_what_is_not_ascii_and_folds_case_and_signs() -> None:
    assert alike("Easy-to  CLEAN!", "easy to clean") and alike("café", "CAF") and not alike("é", "é")


def test_the_rule_takes_words_that_are_no_function_words() -> None:
    (nouns,) = LexicalTagger().tag(["The 4-Pack of Men's Running Shoes, with 2 laces for him"])
    assert nouns == ["pack", "men's", "running", "shoes", "laces"]


def test_a_tagger_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(PrerequisiteError, match="spacy download no_such_model"):
        load_tagger("spacy:no_such_model")
    for name in ("spacy:", "nltk", ""):
        with pytest.raises(RecipeError, match="is neither"):
            load_tagger(name)
