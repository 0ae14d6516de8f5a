"""What an all-knowing shopper would do (the most a product can bring, words that find it, the fewest actions to buy
it), and the privileged state made of it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from leap.core import PrivilegedState
from leap_worlds.webshop.candidates import CandidateMode, named_offers, plain_action
from leap_worlds.webshop.catalogue import Product
from leap_worlds.webshop.goals import NO_LIMIT, Goal
from leap_worlds.webshop.memory import all_words, content_words, split_limit
from leap_worlds.webshop.pages import BACK_TO_SEARCH, BUY, NEXT, PREVIOUS, SUB_PAGES, Kind, item_page
from leap_worlds.webshop.reward import options_met
from leap_worlds.webshop.shop import PER_PAGE, Visit, parse_action
from leap_worlds.webshop.world import ShopWorld

_NEXT, _BACK = f"click[{NEXT.lower()}]", f"click[{PREVIOUS.lower()}]"
_NO_DRAW = random.Random(0)  # only the shorthand `<r>` draws, which no plan searches for
_REMEMBERED = 1024
_PAGE_BUTTONS = frozenset(name.lower() for name in (BACK_TO_SEARCH, PREVIOUS, NEXT, BUY, *SUB_PAGES))


@dataclass(frozen=True, slots=True)
class Worth:
    """The most a product can bring for a goal, in [0, 1], and what to choose for that, by option."""

    reward: float
    values: dict[str, str]


def worth(world: ShopWorld, goal: Goal, product: Product) -> Worth:
    """Returns the most a product can bring, with the values that can be clicked."""
    chosen: dict[str, str] = {}
    reachable = list(_reachable(product))
    asked = goal.options
    for option, text in asked.items() if isinstance(asked, dict) else [(None, value) for value in asked]:
        one = (text,) if option is None else {option: text}
        if options_met(one, chosen, world.mode):
            continue  # a value chosen already counts for this one, too
        free = [(name, value) for name, value in reachable if name not in chosen]
        exact = [(name, value) for name, value in free if value == text]
        alike = [(name, value) for name, value in free if options_met(one, {name: value}, world.mode)]
        met = [pair for pair in exact if pair in alike] or sorted(alike, key=lambda pair: len(pair[1]))
        if met:
            chosen[met[0][0]] = met[0][1]
    return Worth(world.shop.judge(product, goal, chosen).total, chosen)


def _reachable(product: Product) -> Iterator[tuple[str, str]]:
    """Options that a click can choose: of two with the same value the last, none that is a button's name."""
    for text, (kind, name) in item_page("", product).clickables.items():
        if kind is Kind.OPTION and text not in _PAGE_BUTTONS and parse_action(f"click[{text}]") == ("click", text):
            yield name, text


def meant(goal: Goal, product: Product) -> list[str]:
    """Returns the shop's names of what an instruction asks for: the kind, then the attributes, then the values.

    They depend on what is meant alone, not on which of them the product's own texts hold, which nobody could know.
    """
    return [" ".join(all_words(name)) for name in (product.query, *goal.attributes, *goal.option_values)]


class Oracle:
    """Plans for one world. Remembers what it worked out for the latest goals."""

    def __init__(self, world: ShopWorld) -> None:
        self.world = world
        self._targets: dict[int, tuple[Product, Worth, str]] = {}

    def target(self, goal: Goal) -> tuple[Product, Worth, str]:
        """Returns what to buy for a goal, what it brings, and a search that finds it.

        That is the product the goal was written for, or a better one that the same searches find, where that one does
        not bring all (its options cannot be clicked, its attributes are not in its texts).
        """
        if goal.index not in self._targets:
            if len(self._targets) >= _REMEMBERED:
                self._targets.clear()
            self._targets[goal.index] = self._find(goal)
        return self._targets[goal.index]

    def _find(self, goal: Goal) -> tuple[Product, Worth, str]:
        shop = self.world.shop
        own = shop.product(goal.asin)
        found: list[tuple[float, int, Product, Worth, str]] = []
        most = worth(self.world, goal, own)
        for words in _queries(goal, own):
            places = shop.find(words.split(" "), _NO_DRAW)
            ranked = [shop.product_at(place) for place in places]
            rank = next((rank for rank, product in enumerate(ranked) if product.asin == own.asin), None)
            if rank is not None:
                found.append((-most.reward, rank // PER_PAGE, own, most, words))
            if most.reward < 1.0:
                for rank, product in enumerate(ranked):
                    here = worth(self.world, goal, product)
                    if here.reward > most.reward:
                        found.append((-here.reward, rank // PER_PAGE, product, here, words))
            if found and found[-1][1] == 0 and most.reward == 1.0:
                break
        if not found:
            return own, most, next(_queries(goal, own))
        _, _, product, value, words = min(found, key=lambda one: one[:2])
        return product, value, words

    def plan(self, visit: Visit) -> tuple[str, ...] | None:
        """Returns the fewest actions that bring the most from where a visit stands; None after the purchase.

        A results page or a product at hand that brings as much is not left for the target.
        """
        if visit.done:
            return None
        product, most, words = self.target(visit.goal)
        if visit.asin is not None:
            here = worth(self.world, visit.goal, visit.shop.product(visit.asin))
            if here.reward >= most.reward:
                return (*(() if _at_product(visit) else (_BACK,)), *_purchase(here, visit.options))
        steps = self._from_results(visit, product, most)
        if steps is not None:
            return steps
        start = () if visit.page.search_bar else (f"click[{BACK_TO_SEARCH.lower()}]",)
        shop = visit.shop
        ranked = [shop.product_at(place).asin for place in shop.find(words.split(" "), _NO_DRAW)]
        turns = (_NEXT,) * (ranked.index(product.asin) // PER_PAGE if product.asin in ranked else 0)
        return (*start, f"search[{words}]", *turns, f"click[{product.asin.lower()}]", *_purchase(most, {}))

    def _from_results(self, visit: Visit, product: Product, most: Worth) -> tuple[str, ...] | None:
        """Returns the way by the results of the last search; None if they do not hold what is wanted."""
        if visit.number is None or visit.number < 1:
            return None
        back: tuple[str, ...] = ()
        if visit.asin is not None:
            back = (_BACK,) * (1 if _at_product(visit) else 2)
        for offer in visit.listed:
            value = most if offer.asin == product.asin else worth(self.world, visit.goal, offer)
            if value.reward >= most.reward:
                return (*back, f"click[{offer.asin.lower()}]", *_purchase(value, {}))
        ranked = [visit.shop.product_at(place).asin for place in visit.results]
        if product.asin not in ranked:
            return None
        by = ranked.index(product.asin) // PER_PAGE + 1 - visit.number
        turns = (_NEXT if by > 0 else _BACK,) * abs(by)
        return (*back, *turns, f"click[{product.asin.lower()}]", *_purchase(most, {}))



def _at_product(visit: Visit) -> bool:
    return BUY.lower() in visit.page.clickables


def _purchase(value: Worth, chosen: dict[str, str]) -> tuple[str, ...]:
    needed = [f"click[{text}]" for name, text in value.values.items() if chosen.get(name) != text]
    return (*needed, f"click[{BUY.lower()}]")


def _queries(goal: Goal, product: Product) -> Iterator[str]:
    """Searches that may find a product, those nearest to the instruction first; the last have its title."""
    names, title = " ".join(meant(goal, product)).split(), all_words(product.title)
    asked = list(content_words(split_limit(goal.instruction)[0]))
    tried: Iterable[list[str]] = (asked, names, title, [*title, *names])
    for words in tried:
        if words:
            yield " ".join(words)


def describe(visit: Visit, oracle: Oracle, listed: tuple[str, ...], mode: CandidateMode) -> PrivilegedState:
    """Returns the privileged state at this moment of a visit; its plan begins with a listed action.

    The text has the paper's parts: instruction, required attributes and options, price limit, example product. Facts are

    - `asin`, `title`: the example product; `attributes`, `options`, `price_upper`: what the goal asks for;
    - `meant`: the shop's names of what the instruction asks for;
    - `offers`: the most that each product of the last results page can bring, by its title, or its number;
    - `best`, `here`: the most that can be bought, and that the present product can bring (None elsewhere);
    - `now`: what buying at once would bring; `values`: what the present product's options should be, by name;
    - `missing`: why the best is less than 1, for people.
    """
    world, goal = oracle.world, visit.goal
    product, most, _ = oracle.target(goal)
    example = world.shop.product(goal.asin)
    offers: dict[str, float] = {}
    names = named_offers(visit) if visit.asin is None else {}
    for offer in visit.listed:
        reward = worth(world, goal, offer).reward
        offers[offer.asin.lower()] = reward
        title = names.get(offer.asin, offer.title.lower())
        if title is not None:
            offers[title] = reward
    here = now = None
    values: dict[str, str] = {}
    if visit.asin is not None and not visit.done:
        present = world.shop.product(visit.asin)
        value = worth(world, goal, present)
        here, values = value.reward, value.values
        now = world.shop.judge(present, goal, visit.options).total
    plan = oracle.plan(visit)
    if plan and listed:
        plan = (next((action for action in listed if plain_action(action, visit, mode) == plan[0]), plan[0]), *plan[1:])
    limit = "none" if goal.price_upper >= NO_LIMIT else f"{goal.price_upper:.2f} dollars"
    lines = [
        f"Task: {goal.instruction}",
        f"Required attributes: {', '.join(goal.attributes) or 'none'}",
        f"Required options: {', '.join(goal.option_values) or 'none'}",
        f"Price limit: {limit}",
        f"Example product: {goal.name}",
    ]
    facts = {
        "asin": goal.asin,
        "title": goal.name,
        "attributes": list(goal.attributes),
        "options": list(goal.option_values),
        "price_upper": goal.price_upper,
        "meant": meant(goal, example),
        "offers": offers,
        "best": most.reward,
        "here": here,
        "now": now,
        "values": values,
        "missing": "" if most.reward == 1.0 else _missing(visit, product.asin, most.values),
    }
    return PrivilegedState(text="\n".join(lines), facts=facts, plan=plan, hopeless=plan is None)


def _missing(visit: Visit, asin: str, values: dict[str, str]) -> str:
    """Returns what the best purchase lacks."""
    bought = visit.shop.judge(visit.shop.product(asin), visit.goal, values)
    shares = {"kind": bought.type, "attributes": bought.attribute, "options": bought.option, "price": bought.price}
    lacks = ", ".join(name for name, share in shares.items() if share is not None and share < 1.0)
    return f"the best purchase brings {bought.total:.2f}; not met: {lacks}"
