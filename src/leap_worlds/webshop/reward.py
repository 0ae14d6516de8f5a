"""What a purchase is worth, term by term.

    total = type * (attributes + options + price) / (attributes asked + options asked + 1)

Source: Yao et al. 2022, section 3.1; `get_reward` of WebShop 64fa2a5, web_agent_site/engine/goal.py. The comparison of
strings is thefuzz's `token_set_ratio`, here from rapidfuzz, which thefuzz itself now calls. The colours are `COLOR_SET`
of web_agent_site/engine/normalize.py (MIT, Copyright (c) 2023 Princeton Natural Language Processing); their order is
part of the rule: the first that is found stands for the whole option.

Two modes. `upstream` is the original, with what it does unmeant. `fixed` mends two things: a made-up goal's option is
compared as a value with the value chosen under its name (the original compares pairs of name and value with values,
never brings such an option's colour to its plain name, and counts a value that was chosen under another name); and a
colour must begin a word (the original finds "red" in "bordered").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rapidfuzz import fuzz, utils

from leap_worlds.webshop.catalogue import Product
from leap_worlds.webshop.goals import Goal

ALIKE = 85
"""Above this ratio, in per cent, two strings are taken for the same."""
_COLOR_NAMES = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo "
    "caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal "
    "dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory "
    "ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom "
    "mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire "
    "seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white "
    "wine yellow"
)
COLORS = tuple(_COLOR_NAMES.split())
_COLOR_WORDS = [(color, re.compile(rf"\b{color}")) for color in COLORS]


PARTS = ("type", "attribute", "option", "price", "title_score", "query_match", "category_match")
"""What a purchase's worth is told by, in the order of the tables."""


class RewardMode(StrEnum):
    """Which reward: the original's, bug for bug, or options compared as was meant."""

    UPSTREAM = "upstream"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class Purchase:
    """A purchase and its worth.

    Attributes:
        total: The reward, in [0, 1].
        type: Factor in {0, 0.1, 0.5, 1}: is it the kind of thing that was asked for?
        attribute, option: Shares of the attributes and options asked for that it has; no option where none was asked for.
        price: 1 if it costs no more than the limit, else 0.
        attributes_asked, options_asked: What the shares are of: with these, `total` follows from the parts.
        title_score: Share of the nouns of the goal's title that its title has.
        query_match, category_match: Whether both were collected by one search, and share two levels of categories.
    """

    total: float
    type: float
    attribute: float
    option: float | None
    price: float
    attributes_asked: int
    options_asked: int
    title_score: float
    query_match: bool
    category_match: bool

    @property
    def parts(self) -> dict[str, float]:
        """The parts by name, for an episode's record."""
        return {name: float(value) for name in PARTS if (value := getattr(self, name)) is not None}


def judge(
    product: Product,
    goal: Goal,
    *,
    price: float,
    chosen: Mapping[str, str],
    nouns: Sequence[str],
    goal_nouns: Sequence[str],
    mode: RewardMode = RewardMode.UPSTREAM,
) -> Purchase:
    """Judges a purchase at the product's price as drawn, in US dollars, with the options chosen by name.

    The nouns are those of the product's and of the goal's title, in lower case, with repeats.
    """
    kind, title_score, query_match, category_match = judge_type(product, goal, nouns, goal_nouns)
    within = price <= goal.price_upper
    attributes = sum(has_attribute(product, wanted) for wanted in goal.attributes)
    options = options_met(goal.options, chosen, mode)
    asked = len(goal.attributes) + len(goal.options) + 1
    return Purchase(
        total=(attributes + options + within) / asked * kind,
        type=kind,
        attribute=attributes / len(goal.attributes) if goal.attributes else 1.0,
        option=options / len(goal.options) if goal.options else None,
        price=float(within),
        attributes_asked=len(goal.attributes),
        options_asked=len(goal.options),
        title_score=title_score,
        query_match=query_match,
        category_match=category_match,
    )


def judge_type(
    product: Product, goal: Goal, nouns: Sequence[str], goal_nouns: Sequence[str]
) -> tuple[float, float, bool, bool]:
    """Returns the type factor, and what it is made from: title score, query match, category match."""
    query_match = product.query == goal.query
    category_match = len(_levels(product.product_category) & _levels(goal.product_category)) >= 2
    title_score = len(set(nouns) & set(goal_nouns)) / len(goal_nouns) if goal_nouns else 0.2
    if title_score == 0.0:
        kind = 0.0
    elif title_score < 0.1:
        kind = 0.1
    else:
        kind = 1.0 if query_match or category_match or title_score > 0.2 else 0.5
    return kind, title_score, query_match, category_match


def has_attribute(product: Product, wanted: str) -> bool:
    """Returns whether a product is known to have an attribute, or its texts name it."""
    return any(alike(known, wanted) for known in product.attributes) or (
        wanted in product.title.lower()
        or wanted in " ".join(product.bullets).lower()
        or wanted in product.description.lower()
    )


def options_met(wanted: Sequence[str] | Mapping[str, str], chosen: Mapping[str, str], mode: RewardMode) -> int:
    """Returns how many of the options asked for were chosen."""
    plain: Callable[[str], str] = first_color if mode is RewardMode.UPSTREAM else first_color_word
    if isinstance(wanted, Mapping):
        if mode is RewardMode.FIXED:
            return sum(name in chosen and alike(plain(chosen[name]), plain(value)) for name, value in wanted.items())
        asked = [_plain_pair(pair) for pair in wanted.items()]
    else:
        asked = [plain(value) for value in wanted]
    have = [plain(value) for value in chosen.values()]
    return sum(any(alike(value, option) for value in have) for option in asked)


def first_color(text: str) -> str:
    """The first colour of the list that the text contains, also within a word ("red" in "bordered"); else the text."""
    return next((color for color in COLORS if color in text), text)


def first_color_word(text: str) -> str:
    """The first colour of the list that begins a word of the text; else the text."""
    return next((color for color, pattern in _COLOR_WORDS if pattern.search(text)), text)


def alike(a: str, b: str) -> bool:
    """Returns whether two strings have about the same words (thefuzz: token_set_ratio > 85)."""
    return round(fuzz.token_set_ratio(_processed(a), _processed(b))) > ALIKE


def _plain_pair(pair: tuple[str, str]) -> str:
    """What the original makes of a made-up goal's option: it looks for a colour among the pair's two strings, not in
    them, and compares the pair as Python writes it."""
    return next((color for color in COLORS if color in pair), str(pair))


def _processed(text: str) -> str:
    return utils.default_process(text.encode("ascii", "ignore").decode())


def _levels(product_category: str) -> set[str]:
    return {level.strip() for level in product_category.split("›")}
