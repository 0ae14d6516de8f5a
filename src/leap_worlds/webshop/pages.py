"""The shop's pages as lists of what is visible on them, and the three ways to read such a list.

The original renders each page to HTML and parses that again for the observation and once more for what can be clicked. What
remains of a page are its text nodes and whether each stands in a button, an option's label, a product's link or neither;
here a page is made of these at once. Source: the templates of WebShop 64fa2a5, and `convert_html_to_text` and
`get_available_actions` of web_agent_site/envs/web_agent_text_env.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import NamedTuple

from leap_worlds.webshop.catalogue import Product

BACK_TO_SEARCH, PREVIOUS, NEXT, BUY = "Back to Search", "< Prev", "Next >", "Buy Now"
DESCRIPTION, FEATURES, REVIEWS, ATTRIBUTES = SUB_PAGES = ("Description", "Features", "Reviews", "Attributes")
_ASCII_SPACE = " \t\n\r\f"


class Kind(IntEnum):
    """What a text stands in."""

    TEXT = 0
    BUTTON = 1
    OPTION = 2
    LINK = 3


class Clickable(NamedTuple):
    """What a click reaches.

    Attributes:
        kind: BUTTON, OPTION or LINK.
        name: The button's text, the option's name or the product's asin.
    """

    kind: Kind
    name: str


class Page(NamedTuple):
    """A page.

    Attributes:
        nodes: What is visible, in order.
        clickables: By the text that an action names, in the original's order: buttons, product links, options. Where two
            share a text, the later is the one that a click reaches.
        search_bar: Whether there is one.
    """

    nodes: list[tuple[Kind, str]]
    clickables: dict[str, Clickable]
    search_bar: bool = False

    def text(self) -> str:
        """Returns the observation mode `text`: everything visible, with separators."""
        return " [SEP] ".join([text.strip() for _, text in self.nodes])

    def text_rich(self, url: str, visited: Collection[str]) -> str:
        """The observation mode `text_rich`: a line each, with buttons marked, and options and products that were clicked.

        Args:
            url: The page's. An option counts as clicked where it stands there in double quotes, which a search for it
                does as well, and which it never does if it has letters beyond ASCII.
            visited: Numbers of the products that were looked at.
        """
        lines: list[str] = []
        clicked: list[str] = []
        for kind, text in self.nodes:
            if kind is Kind.TEXT:
                lines.append(text)
            elif kind is Kind.BUTTON:
                lines.append(f"[button] {text} [button_]")
            elif kind is Kind.OPTION:
                if f'"{text}"' in url:
                    lines.append(f"  [clicked button] {text} [clicked button_]")
                    clicked.append(f"You have clicked {text}.")
                else:
                    lines.append(f"  [button] {text} [button_]")
            elif text in visited:
                lines.append(f"\n[clicked button] {text} [clicked button_]")
            else:
                lines.append(f"\n[button] {text} [button_]")
        return "\n".join([*reversed(clicked), *lines, ""])


def index_page(instruction: str) -> Page:
    """Returns the start page: a search bar."""
    page = _page(["WebShop", "Instruction: ", instruction])
    _button(page, "Search")
    return page._replace(search_bar=True)


def results_page(instruction: str, products: Sequence[Product], number: int, total: int) -> Page:
    """Ten products of a search.

    Args:
        instruction: The task.
        products: Those of this page.
        number: Of the page, from 1 (0 can be reached: see `Visit`).
        total: Products found.
    """
    page = _page(["Instruction:", instruction])
    _button(page, BACK_TO_SEARCH)
    _text(page, f"Page {number} (Total results: {total})")
    if number > 1:
        _button(page, PREVIOUS)
    _button(page, NEXT)
    for product in products:
        _add(page, Kind.LINK, product.asin)
        page.clickables[product.asin.lower()] = Clickable(Kind.LINK, product.asin)
        _text(page, product.title)
        _text(page, product.price)
    return page


def item_page(instruction: str, product: Product, *, show_attributes: bool = False) -> Page:
    """Returns a product, its options and its four buttons."""
    page = _page(["Instruction:", instruction])
    _button(page, BACK_TO_SEARCH)
    _button(page, PREVIOUS)
    for name, values in product.options.items():
        _text(page, name)
        for value in values:
            _add(page, Kind.OPTION, value)
    for line in (product.title, f"Price: {product.price}", "Rating: N.A."):
        _text(page, line)
    for name in SUB_PAGES[: 4 if show_attributes else 3]:
        _button(page, name)
    _button(page, BUY)
    for name, values in product.options.items():
        for value in values:
            page.clickables[value] = Clickable(Kind.OPTION, name)
    return page


def sub_page(instruction: str, product: Product, name: str) -> Page:
    """One of a product's four pages of detail."""
    page = _page(["Instruction:", instruction])
    _button(page, BACK_TO_SEARCH)
    _button(page, PREVIOUS)
    if name == DESCRIPTION:
        _text(page, product.description)
    elif name == FEATURES:
        for line in product.bullets:
            _text(page, f" {line}")
    elif name == ATTRIBUTES:
        for line in (*(f" {name}" for name in product.attributes), product.category, product.query):
            _text(page, line)
        _text(page, product.product_category)
    return page  # Reviews has none: the original never reads any


def done_page(asin: str, options: dict[str, str], reward: float) -> Page:
    """Returns the page after a purchase."""
    chosen = json.dumps(options, sort_keys=True)
    for character in "<>&'":  # Jinja's `tojson`, which is safe inside HTML
        chosen = chosen.replace(character, f"\\u{ord(character):04x}")
    unknown = "None"
    return _page(
        [
            *("Thank you for shopping with us!", "Your code: ", unknown, " (Paste it in your MTurk interface.)"),
            *("Purchased", "asin", asin, "options", chosen, "attrs", unknown, "category", unknown, "query", unknown),
            *("product category", unknown, "Target", "asin", "options", "attrs", "price upper", "instuction text"),
            *("category", "product category", "query", "Goal ", unknown, "Reward"),
            *("Your score (min 0.0, max 1.0)", str(reward), "Reward Details ", unknown),
        ]
    )


def _page(texts: Sequence[str]) -> Page:
    page = Page([], {})
    for text in texts:
        _text(page, text)
    return page


def _text(page: Page, text: str) -> None:
    _add(page, Kind.TEXT, text)


def _button(page: Page, text: str) -> None:
    page.nodes.append((Kind.BUTTON, text))
    page.clickables[text.lower()] = Clickable(Kind.BUTTON, text)


def _add(page: Page, kind: Kind, text: str) -> None:
    """BeautifulSoup's rule for text nodes: of ASCII space alone a blank remains, or nothing if it had a line break."""
    if not text.strip(_ASCII_SPACE):
        if not text or "\n" in text:
            return
        text = " "
    page.nodes.append((kind, text))
