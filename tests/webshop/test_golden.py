"""State by state what the original engine showed: 60 recorded episodes, 1,059 steps, byte for byte."""

from __future__ import annotations

import random
from typing import Any

import pytest
from small_shop import LexicalTagger

from leap_worlds.webshop.candidates import CandidateMode, compat_candidates, plain_action, stable_candidates
from leap_worlds.webshop.goals import Goals, draw_prices
from leap_worlds.webshop.reward import judge
from leap_worlds.webshop.shop import Shop, Visit
from leap_worlds.webshop.store import ProductStore
from leap_worlds.webshop.world import open_search
from webshop_original import verbose_info

Golden = tuple[dict[str, Any], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def prices_and_goals(golden: Golden, store_200: ProductStore) -> tuple[Any, Goals]:
    rng = random.Random(golden[0]["seed"])
    prices = draw_prices(store_200, rng)
    return prices, Goals(store_200, prices, rng, human=True)


@pytest.fixture(scope="module")
def shop(store_200: ProductStore, prices_and_goals: tuple[Any, Goals]) -> Shop:
    tagger = LexicalTagger()  # the original ran with a stand-in for its spaCy model; no recorded purchase depends on it
    prices, _ = prices_and_goals

    def pay(product: Any, goal: Any, chosen: dict[str, str]) -> Any:
        nouns, goal_nouns = tagger.tag([product.title, goal.name])
        price = float(prices[store_200.find(product.asin)])
        return judge(product, goal, price=price, chosen=chosen, nouns=nouns, goal_nouns=goal_nouns)

    return Shop(store_200, open_search(store_200), pay)


def test_prices_and_goals_are_the_originals(golden: Golden, prices_and_goals: tuple[Any, Goals]) -> None:
    world, _ = golden
    prices, goals = prices_and_goals
    assert prices.tolist() == list(world["prices"].values())
    ours = [
        {
            "asin": goal.asin,
            "category": goal.category,
            "query": goal.query,
            "name": goal.name,
            "product_category": goal.product_category,
            "instruction_text": goal.instruction,
            "attributes": list(goal.attributes),
            "price_upper": goal.price_upper,
            "goal_options": list(goal.option_values),
        }
        for goal in goals
    ]
    drawn_by_weight = {"weight"}  # nothing here draws goals by weight
    assert ours == [{key: goal[key] for key in goal.keys() - drawn_by_weight} for goal in world["goals"]]


def test_every_recorded_step_is_shown_byte_for_byte(golden: Golden, shop: Shop, prices_and_goals: tuple[Any, Goals]) -> None:
    visits: dict[int, Visit] = {}  # the original keeps a session's goal and purchase when it is begun again
    steps = 0
    for episode in golden[1]:
        number = episode["goal"]
        if number in visits:
            visits[number].restart()
        visit = visits.setdefault(number, shop.visit(prices_and_goals[1][number]))
        for step in episode["steps"]:
            if step["action"] is not None:
                bought = visit.act(step["action"])
                assert ((bought.total, True) if bought else (0.0, False)) == (step["reward"], step["done"])
                steps += 1
            assert {"text_rich": visit.text_rich(), "text": visit.text(), "url": visit.url} == step["obs"]
            clickables = list(visit.page.clickables)
            assert {"has_search_bar": visit.page.search_bar, "clickables": clickables} == step["avail"]
        assert _session(visit) == episode["session"]
    assert steps == 1059


def _session(visit: Visit) -> dict[str, Any]:
    session = {
        "done": visit.done,
        "keywords": visit.keywords,
        "page": visit.number,
        "asin": visit.asin,
        "asins": sorted(visit.visited),
        "options": visit.options,
        "actions": dict(visit.actions),
    }
    if visit.purchase:
        session |= {"verbose_info": verbose_info(visit.purchase), "reward": visit.purchase.total}
    return session


def test_compat_candidates_are_the_reference_wrappers(golden: Golden, shop: Shop, prices_and_goals: tuple[Any, Goals]) -> None:
    sampled = 0
    for episode in golden[1]:
        visit = shop.visit(prices_and_goals[1][episode["goal"]])
        for number, step in enumerate(episode["steps"]):
            if step["action"] is not None:
                listed = compat_candidates(visit, random.Random(number))
                assert list(listed) == step["leap_valid_seeded_by_step"]
                sampled += len(visit.page.clickables) > 20
                visit.act(step["action"])
    assert sampled > 20  # lists that were long enough to be drawn from


def test_every_stable_candidate_does_what_the_plain_click_does(
    golden: Golden, shop: Shop, prices_and_goals: tuple[Any, Goals]
) -> None:
    for episode in golden[1][:20]:
        goal = prices_and_goals[1][episode["goal"]]
        visit, done = shop.visit(goal), []
        for step in episode["steps"][:12]:
            if step["action"] is not None:
                visit.act(step["action"])
                done.append(step["action"])
            texts = [text for text in visit.page.clickables if text != "search"]
            candidates = stable_candidates(visit)
            assert len(candidates) == (1 if visit.page.search_bar else len(texts))
            for candidate, text in zip(candidates, texts, strict=False):
                assert plain_action(candidate, visit, CandidateMode.STABLE) == f"click[{text}]"
