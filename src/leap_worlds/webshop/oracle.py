"""What an all-knowing shopper would do: the most a product can bring, words that find it, and the fewest actions to buy it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from leap_worlds.webshop.catalogue import Product
from leap_worlds.webshop.goals import Goal
from leap_worlds.webshop.memory import all_words, content_words, split_limit
from leap_worlds.webshop.pages import BACK_TO_SEARCH, BUY, NEXT, PREVIOUS, Kind, item_page
from leap_worlds.webshop.reward import options_met
from leap_worlds.webshop.shop import PER_PAGE, Visit, parse_action
from leap_worlds.webshop.world import ShopWorld

_NO_DRAW = random.Random(0)  # only the shorthand `<r>` draws, which no plan searches for
_PAGE_BUTTONS = frozenset(
    name.lower() for name in (BACK_TO_SEARCH, PREVIOUS, NEXT, BUY, "Description", "Features", "Reviews", "Attributes")
)


@dataclass(frozen=True, slots=True)
class Worth:
    """The most a product can bring for a goal.

    Attributes:
        reward: In [0, 1].
        values: What to choose for that, by option.
    """

    reward: float
    values: dict[str, str]


def worth(world: ShopWorld, goal: Goal, product: Product) -> Worth:
    """Returns the most a product can bring, with the values that can be clicked."""
    chosen: dict[str, str] = {}
    reachable = [(name, value) for name, value in _reachable(product)]
    wanted = (
        [{name: value} for name, value in goal.options.items()]
        if isinstance(goal.options, dict)
        else [(value,) for value in goal.options]
    )
    for one in wanted:
        if options_met(one, chosen, world.mode):
            continue  # a value chosen already counts for this one, too
        text = next(iter(one.values())) if isinstance(one, dict) else one[0]
        free = [(name, value) for name, value in reachable if name not in chosen]
        exact = [(name, value) for name, value in free if value == text]
        alike = [(name, value) for name, value in free if options_met(one, {name: value}, world.mode)]
        met = [pair for pair in exact if pair in alike] or sorted(alike, key=lambda pair: len(pair[1]))
        if met:
            chosen[met[0][0]] = met[0][1]
    return Worth(world.judge(product, goal, chosen).total, chosen)


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
    """Plans for one world. Remembers what it worked out for a goal.

    Args:
        world: The catalogue with its goals and prices.
    """

    def __init__(self, world: ShopWorld) -> None:
        self._world = world
        self._targets: dict[int, tuple[Product, Worth, str]] = {}

    def target(self, goal: Goal) -> tuple[Product, Worth, str]:
        """Returns what to buy for a goal, what it brings, and a search that finds it.

        That is the product the goal was written for, or a better one that the same searches find, where that one does not
        bring all (its options cannot be clicked, its attributes are not in its texts).
        """
        if goal.index not in self._targets:
            self._targets[goal.index] = self._find(goal)
        return self._targets[goal.index]

    def _find(self, goal: Goal) -> tuple[Product, Worth, str]:
        shop = self._world.shop
        own = shop.product(goal.asin)
        found: list[tuple[float, int, Product, Worth, str]] = []
        most = worth(self._world, goal, own)
        for words in _queries(goal, own):
            places = shop.find(words.split(" "), _NO_DRAW)
            ranked = [shop.product_at(place) for place in places]
            rank = next((rank for rank, product in enumerate(ranked) if product.asin == own.asin), None)
            if rank is not None:
                found.append((-most.reward, rank // PER_PAGE, own, most, words))
            if most.reward < 1.0:
                for rank, product in enumerate(ranked):
                    here = worth(self._world, goal, product)
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
            here = worth(self._world, visit.goal, visit.shop.product(visit.asin))
            if here.reward >= most.reward:
                return (*self._back_to_product(visit), *_purchase(here, visit.options))
        steps = self._from_results(visit, product, most)
        if steps is not None:
            return steps
        start = () if visit.page.search_bar else (f"click[{BACK_TO_SEARCH.lower()}]",)
        pages = self._pages_to(words, product.asin)
        turns = (f"click[{NEXT.lower()}]",) * pages
        return (*start, f"search[{words}]", *turns, f"click[{product.asin.lower()}]", *_purchase(most, {}))

    def _pages_to(self, words: str, asin: str) -> int:
        shop = self._world.shop
        ranked = [shop.product_at(place).asin for place in shop.find(words.split(" "), _NO_DRAW)]
        return ranked.index(asin) // PER_PAGE if asin in ranked else 0

    def _from_results(self, visit: Visit, product: Product, most: Worth) -> tuple[str, ...] | None:
        """Returns the way by the results of the last search; None if they do not hold what is wanted."""
        if visit.page.search_bar or visit.number is None or visit.number < 1:
            return None
        back: tuple[str, ...] = ()
        if visit.asin is not None:
            back = (f"click[{PREVIOUS.lower()}]",) * (1 if self._at_product(visit) else 2)
        shop, first = visit.shop, (visit.number - 1) * PER_PAGE
        for place in visit.results[first : first + PER_PAGE]:
            offer = shop.product_at(place)
            value = most if offer.asin == product.asin else worth(self._world, visit.goal, offer)
            if value.reward >= most.reward:
                return (*back, f"click[{offer.asin.lower()}]", *_purchase(value, {}))
        ranked = [shop.product_at(place).asin for place in visit.results]
        if product.asin not in ranked:
            return None
        by = ranked.index(product.asin) // PER_PAGE + 1 - visit.number
        turns = (f"click[{(NEXT if by > 0 else PREVIOUS).lower()}]",) * abs(by)
        return (*back, *turns, f"click[{product.asin.lower()}]", *_purchase(most, {}))

    def _back_to_product(self, visit: Visit) -> tuple[str, ...]:
        return () if self._at_product(visit) else (f"click[{PREVIOUS.lower()}]",)

    @staticmethod
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
