"""The shop: one read-only object for a catalogue, and a light one for each customer's visit.

Source: `SimServer`, `SimBrowser` and `WebAgentTextEnv.step` of WebShop 64fa2a5,
web_agent_site/envs/web_agent_text_env.py. What a visit shows is the original's, byte for byte, with its quirks; among
them:

- a search works on every page, also after the purchase; "Next >" is offered beyond the last page;
- going back from a product to the results forgets the options that were chosen;
- an action is read by the pattern `name[argument]` on its first line, so that values with line breaks cannot be clicked;
- of two options with the same value only the one further down can be chosen;
- which page "< Prev" leads to is read off the URL, where the words searched for stand as well: who searches for
  "search_results" goes back to a page before the first.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from leap_worlds.webshop.catalogue import Product
from leap_worlds.webshop.goals import Goal
from leap_worlds.webshop.pages import (
    BACK_TO_SEARCH,
    BUY,
    NEXT,
    PREVIOUS,
    SUB_PAGES,
    Kind,
    Page,
    done_page,
    index_page,
    item_page,
    results_page,
    sub_page,
)
from leap_worlds.webshop.reward import Purchase
from leap_worlds.webshop.store import ProductStore

BASE_URL = "http://127.0.0.1:3000"
SEARCH_RESULTS = 50
PER_PAGE = 10
_ACTION = re.compile(r"(.+)\[(.+)\]")
_URL_NAMES = ("search_results", "item_page", "item_sub_page", "done")
_SUB_PAGES = {name.lower(): name for name in SUB_PAGES}


class Searcher(Protocol):
    """Ranks products for a query."""

    def search(self, query: str, k: int = SEARCH_RESULTS) -> list[str]:
        """Returns the numbers (asins) of the best k products, best first."""
        ...


Judge = Callable[[Product, Goal, dict[str, str]], Purchase]


def parse_action(action: str) -> tuple[str, str]:
    """Returns an action's name and its argument in lower case; an empty argument where the text is no action."""
    match = _ACTION.match(action)
    return (match[1], match[2].lower()) if match else (action, "")


class Shop:
    """A catalogue, its search, and its till, which judges a purchase. Reads only; any number of visits share one."""

    def __init__(self, store: ProductStore, searcher: Searcher, judge: Judge) -> None:
        self.store = store
        self.judge = judge
        self.searcher = searcher
        self._found = lru_cache(maxsize=1024)(self._find)
        self.product_at = lru_cache(maxsize=1024)(store.__getitem__)

    def product(self, asin: str) -> Product:
        """Returns the product of that number, which must be on sale."""
        place = self.store.find(asin)
        if place is None:
            raise KeyError(asin)
        return self.product_at(place)

    def find(self, keywords: Sequence[str], rng: random.Random) -> Sequence[int]:
        """Returns the places of the products that a search finds, best first.

        Beside searches there are the original's three shorthands for its authors: `<r>` draws 50 products, `<c> NAME`
        and `<q> WORDS` list a department and a collecting query. Its `<a>`, and `<c>` without a name, end the original
        with an error; they find nothing here.
        """
        if keywords[0] == "<r>":
            return rng.sample(range(len(self.store)), min(SEARCH_RESULTS, len(self.store)))
        return self._found(tuple(keywords))

    def _find(self, keywords: tuple[str, ...]) -> tuple[int, ...]:
        if keywords[0] == "<a>":
            return ()
        if keywords[0] == "<c>":
            return tuple(self.store.labelled("categories", keywords[1].strip())) if len(keywords) > 1 else ()
        if keywords[0] == "<q>":
            return tuple(self.store.labelled("queries", " ".join(keywords[1:]).strip()))
        asins = self.searcher.search(" ".join(keywords), SEARCH_RESULTS)
        return tuple(place for asin in asins if (place := self.store.find(asin)) is not None)

    def visit(self, goal: Goal, *, rng: random.Random | None = None) -> Visit:
        """Returns a new visit, at the start page."""
        return Visit(self, goal, rng or random.Random(goal.index))


class Visit:
    """One customer's way through the shop.

    Attributes:
        goal: The task's goal.
        page, url: What is shown now, and its address.
        keywords, number: The last search's words and page; None before the first and back at the start.
        asin: The product being looked at; None elsewhere.
        visited: Products looked at since the start page.
        options: Chosen values by option, for this product.
        actions: How often each kind of thing was done since the start page, in the original's words.
        purchase: The last purchase, or None.
    """

    def __init__(self, shop: Shop, goal: Goal, rng: random.Random) -> None:
        self.shop = shop
        self.goal = goal
        self.purchase: Purchase | None = None
        self._rng = rng
        self.restart()

    def restart(self) -> None:
        """Shows the start page and forgets what was looked at, as a reset of the original and "Back to Search" do."""
        self.keywords: list[str] | None = None
        self.number: int | None = None
        self.asin: str | None = None
        self.visited: set[str] = set()
        self.options: dict[str, str] = {}
        self.actions: Counter[str] = Counter()
        self.results: Sequence[int] = ()
        self._show(index_page(self.goal.instruction), f"{BASE_URL}/{self.goal.index}")

    @property
    def listed(self) -> list[Product]:
        """The products on the last page of results; none before the first search and on a page before the first."""
        if self.number is None or self.number < 1:
            return []
        end = self.number * PER_PAGE
        return [self.shop.product_at(place) for place in self.results[end - PER_PAGE : end]]

    @property
    def done(self) -> bool:
        """Whether something was bought."""
        return self.purchase is not None

    def text(self) -> str:
        """Returns the page in the observation mode `text`."""
        return self.page.text()

    def text_rich(self) -> str:
        """Returns the page in the observation mode `text_rich`."""
        return self.page.text_rich(self.url, self.visited)

    def act(self, action: str) -> Purchase | None:
        """Takes `search[words]` or `click[text]`; nonsense changes nothing. Returns the purchase if it made one."""
        name, argument = parse_action(action)
        if name == "search" and argument:
            self._search(argument.split(" "), 1)
        elif name == "click" and argument != "search" and argument in self.page.clickables:
            return self._click(argument)
        return None

    def _click(self, text: str) -> Purchase | None:
        """What a click does goes by the text first, whatever bears it: an option called "Reviews" opens the reviews."""
        place = next((name for name in _URL_NAMES if name in self.url), "")
        at_product = self.asin is not None
        if text == BUY.lower() and at_product:
            return self._buy()
        if text == BACK_TO_SEARCH.lower():
            self.restart()
        elif text == NEXT.lower() and place == "search_results":
            self._turn(1)
        elif text == PREVIOUS.lower() and place == "search_results":
            self._turn(-1)
        elif text == PREVIOUS.lower() and place == "item_page":
            self._turn(0)
        elif text in _SUB_PAGES and at_product:
            self._detail(_SUB_PAGES[text])
        else:
            self._item(text)
        return None

    def _search(self, keywords: list[str], number: int) -> None:
        self.keywords, self.number = keywords, number
        self.asin, self.options = None, {}
        self.actions["search"] += 1
        self.results = self.shop.find(keywords, self._rng)
        shown = [self.shop.product_at(place) for place in self.results[(number - 1) * PER_PAGE : number * PER_PAGE]]
        self._show(
            results_page(self.goal.instruction, shown, number, len(self.results)),
            f"{BASE_URL}/search_results/{self.goal.index}/{'+'.join(keywords)}/{number}",
        )

    def _turn(self, by: int) -> None:
        if self.keywords is not None and self.number is not None:
            self._search(self.keywords, self.number + by)

    def _item(self, text: str) -> None:
        kind, name = self.page.clickables[text]
        if kind is Kind.LINK:
            self.asin = name
            self.visited.add(name)
            self.actions["asin"] += 1
        elif kind is Kind.OPTION:
            self.options[name] = text
            self.actions["options"] += 1
        if self.asin is None:
            return  # a product whose number is a button's name
        page = item_page(self.goal.instruction, self._product)
        self._show(page, f"{self._address('item_page')}/{json.dumps(self.options)}")

    def _detail(self, name: str) -> None:
        self.actions[name] += 1
        url = f"{self._address('item_sub_page')}/{name}/{self.options}"
        self._show(sub_page(self.goal.instruction, self._product, name), url)

    def _buy(self) -> Purchase:
        self.actions["purchase"] += 1
        self.purchase = self.shop.judge(self._product, self.goal, self.options)
        url = f"{BASE_URL}/done/{self.goal.index}/{self.asin}/{self.options}"
        self._show(done_page(self._product.asin, self.options, self.purchase.total), url)
        return self.purchase

    def _address(self, page: str) -> str:
        words = "+".join(self.keywords or ())
        return f"{BASE_URL}/{page}/{self.goal.index}/{self.asin}/{words}/{self.number}"

    @property
    def _product(self) -> Product:
        assert self.asin is not None
        return self.shop.product(self.asin)

    def _show(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
