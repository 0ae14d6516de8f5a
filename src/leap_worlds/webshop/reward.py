"""What a purchase is worth, term by term.

    total = type * (attributes + options + price) / (attributes asked + options asked + 1)

Source: Yao et al. 2022, section 3.1; `get_reward` of WebShop 64fa2a5, web_agent_site/engine/goal.py. The comparison of
strings is thefuzz's `token_set_ratio`, here from rapidfuzz, which thefuzz itself now calls.

Two modes. `upstream` is the original, with what it does unmeant. `fixed` mends two things: a made-up goal's option is
compared as a value with the value chosen under its name (the original compares pairs of name and value with values, never
brings such an option's colour to its plain name, and counts a value that was chosen under another name); and a colour must
begin a word (the original finds "red" in "bordered").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rapidfuzz import fuzz, utils

from leap_worlds.webshop.catalogue import Product
from leap_worlds.webshop.colors import COLORS, first_color, first_color_word
from leap_worlds.webshop.goals import Goal

ALIKE = 85
"""Above this ratio, in per cent, two strings are taken for the same."""


class RewardMode(StrEnum):
    """Which reward."""

    UPSTREAM = "upstream"
    """The original's, bug for bug."""
    FIXED = "fixed"
    """Options compared as was meant."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """A purchase and its worth.

    Attributes:
        asin: The number of the product bought.
        total: The reward, in [0, 1].
        type: Factor in {0, 0.1, 0.5, 1}: is it the kind of thing that was asked for?
        attribute: Share of the attributes asked for that it has.
        option: Share of the options asked for that were chosen; None where none were asked for.
        price: 1 if it costs no more than the limit, else 0.
        attributes_asked, options_asked: What the shares are of: with these, `total` follows from the parts.
        title_score: Share of the nouns of the goal's title that its title has.
        query_match: Whether both were collected by the same search.
        category_match: Whether they share two levels of Amazon's categories.
    """

    asin: str
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
        parts = {"type": self.type, "attribute": self.attribute, "price": self.price}
        if self.option is not None:
            parts["option"] = self.option
        return parts | {
            "title_score": self.title_score,
            "query_match": float(self.query_match),
            "category_match": float(self.category_match),
        }

    def verbose_info(self) -> dict[str, Any]:
        """Returns the original's `verbose_info`, key by key."""
        asked = self.attributes_asked + self.options_asked + 1
        info: dict[str, Any] = {
            "r_type": self.type,
            "r_att": self.attribute,
            "w_att": self.attributes_asked / asked,
            "query_match": self.query_match,
            "category_match": self.category_match,
            "title_score": self.title_score,
        }
        if self.option is not None:
            info |= {"r_option": self.option, "w_option": self.options_asked / asked}
        return info | {"r_price": bool(self.price), "w_price": 1 / asked}


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
    """Judges a purchase.

    Args:
        product: The product bought.
        goal: What was asked for.
        price: What the product costs, in US dollars, as drawn.
        chosen: Options chosen, by name.
        nouns: Nouns of the product's title, in lower case.
        goal_nouns: Nouns of the goal's title, with repeats.
        mode: Which reward to compute.
    """
    kind, title_score, query_match, category_match = judge_type(product, goal, nouns, goal_nouns)
    within = price <= goal.price_upper
    attributes = sum(has_attribute(product, wanted) for wanted in goal.attributes)
    options = options_met(goal.options, chosen, mode)
    asked = len(goal.attributes) + len(goal.options) + 1
    return Purchase(
        asin=product.asin,
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
