"""The shop's pages as lists of what is visible on them, and the three ways to read such a list.

The original renders each page to HTML and parses that again for the observation and once more for what can be clicked.
What remains of a page are its text nodes and whether each stands in a button, an option's label, a product's link or
neither; here a page is made of these at once. Source: the templates of WebShop 64fa2a5, and `convert_html_to_text` and
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


TEXT, BUTTON, OPTION, LINK = Kind


class Clickable(NamedTuple):
    """What a click reaches: the kind, and the button's text, the option's name or the product's asin."""

    kind: Kind
    name: str


class Page(NamedTuple):
    """A page.

    Attributes:
        nodes: What is visible, in order.
        clickables: By the text that an action names, in the original's order: buttons, product links, options. Where
            two share a text, the later is the one that a click reaches.
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
            if kind is TEXT:
                lines.append(text)
            elif kind is BUTTON:
                lines.append(f"[button] {text} [button_]")
            elif kind is LINK:
                button = "clicked button" if text in visited else "button"
                lines.append(f"\n[{button}] {text} [{button}_]")
            elif f'"{text}"' in url:
                lines.append(f"  [clicked button] {text} [clicked button_]")
                clicked.append(f"You have clicked {text}.")
            else:
                lines.append(f"  [button] {text} [button_]")
        return "\n".join([*reversed(clicked), *lines, ""])


def index_page(instruction: str) -> Page:
    """Returns the start page: a search bar."""
    return _page(_texts("WebShop", "Instruction: ", instruction) + _buttons("Search"))._replace(search_bar=True)


def results_page(instruction: str, products: Sequence[Product], number: int, total: int) -> Page:
    """Ten products of a search: page `number`, from 1 (0 can be reached: see `Visit`), of `total` products found."""
    nodes = _texts("Instruction:", instruction) + _buttons(BACK_TO_SEARCH)
    nodes += _texts(f"Page {number} (Total results: {total})")
    nodes += _buttons(PREVIOUS, NEXT) if number > 1 else _buttons(NEXT)
    for product in products:
        nodes += [(LINK, product.asin), *_texts(product.title, product.price)]
    return _page(nodes)


def item_page(instruction: str, product: Product) -> Page:
    """Returns a product, its options and its four buttons."""
    nodes = _texts("Instruction:", instruction) + _buttons(BACK_TO_SEARCH, PREVIOUS)
    for name, values in product.options.items():
        nodes += [(TEXT, name), *((OPTION, value) for value in values)]
    nodes += _texts(product.title, f"Price: {product.price}", "Rating: N.A.")
    nodes += _buttons(DESCRIPTION, FEATURES, REVIEWS, BUY)
    page = _page(nodes)
    named = ((value, name) for name, values in product.options.items() for value in values)
    page.clickables.update((value, Clickable(OPTION, name)) for value, name in named)
    return page


def sub_page(instruction: str, product: Product, name: str) -> Page:
    """One of a product's pages of detail. No button leads to the attributes, but an option of that name does."""
    texts: tuple[str, ...] = ()  # Reviews has none: the original never reads any
    if name == DESCRIPTION:
        texts = (product.description,)
    elif name == FEATURES:
        texts = tuple(f" {line}" for line in product.bullets)
    elif name == ATTRIBUTES:
        attributes = (f" {name}" for name in product.attributes)
        texts = (*attributes, product.category, product.query, product.product_category)
    return _page(_texts("Instruction:", instruction) + _buttons(BACK_TO_SEARCH, PREVIOUS) + _texts(*texts))


def done_page(asin: str, options: dict[str, str], reward: float) -> Page:
    """Returns the page after a purchase."""
    chosen = json.dumps(options, sort_keys=True)
    for character in "<>&'":  # Jinja's `tojson`, which is safe inside HTML
        chosen = chosen.replace(character, f"\\u{ord(character):04x}")
    unknown = "None"
    return _page(
        _texts(
            *("Thank you for shopping with us!", "Your code: ", unknown, " (Paste it in your MTurk interface.)"),
            *("Purchased", "asin", asin, "options", chosen, "attrs", unknown, "category", unknown, "query", unknown),
            *("product category", unknown, "Target", "asin", "options", "attrs", "price upper", "instuction text"),
            *("category", "product category", "query", "Goal ", unknown, "Reward"),
            *("Your score (min 0.0, max 1.0)", str(reward), "Reward Details ", unknown),
        )
    )


def _texts(*texts: str) -> list[tuple[Kind, str]]:
    return [(TEXT, text) for text in texts]


def _buttons(*names: str) -> list[tuple[Kind, str]]:
    return [(BUTTON, name) for name in names]


def _page(nodes: list[tuple[Kind, str]]) -> Page:
    """A page of what is visible, as BeautifulSoup sees it: of ASCII space alone a blank remains, or nothing if it has a
    line break. Options are not among the clickables yet, as they come after all buttons."""
    shown: list[tuple[Kind, str]] = []
    clickables: dict[str, Clickable] = {}
    for node in nodes:
        kind, text = node
        if kind is BUTTON or kind is LINK:
            clickables[text.lower()] = Clickable(kind, text)
        if text.strip(_ASCII_SPACE):
            shown.append(node)
        elif text and "\n" not in text:
            shown.append((kind, " "))
    return Page(shown, clickables)
