"""The candidate actions that a prompt lists, in LEAP's words: a product is clicked by its title, `click[item - TITLE]`.

Source: `WebEnv.get_valid_actions` and `WebEnv.step` of the LEAP reference (sanjibanc/leap_llm,
src/leap_llm/envs/webshop.py). Two modes:

- `stable`: everything that can be clicked, once, in the page's order. The same list stands in the prompt and in the
  record, no option is hidden, and what a title cannot name is named by number: a product whose title another on the
  page has as well, or whose title is not on one line. What a click could not reach (a value the action pattern cannot
  hold) is not listed.
- `compat`: the reference's. As soon as a list has more than 20 entries, its first 6 and 10 others drawn at random go
  on; with many options most are never shown, and a title always means the last product of that title in the whole
  catalogue. (The reference draws anew whenever it is asked, so that its prompts and records differ; here once for each
  observation.)
"""

from __future__ import annotations

import random
from enum import StrEnum

from leap_worlds.webshop.catalogue import LONGEST_ASIN
from leap_worlds.webshop.pages import Kind
from leap_worlds.webshop.shop import Shop, Visit, parse_action

SEARCH = "search[<search query>]"
"""Stands for any search; itself no action of sense."""
FINISH = "finish"
ITEM = "click[item - "
"""Begins an action that opens a product by its title."""
_LONGEST_LIST, _KEPT, _DRAWN = 20, 6, 10


class CandidateMode(StrEnum):
    """Which candidate list."""

    STABLE = "stable"
    COMPAT = "compat"


def stable_candidates(visit: Visit) -> tuple[str, ...]:
    """Everything that would do something on the page."""
    if visit.page.search_bar:
        return (SEARCH,)
    titles = named_offers(visit)
    listed: list[str] = []
    for text, (kind, name) in visit.page.clickables.items():
        action = f"click[{text}]"
        if kind is Kind.LINK and titles[name] is not None:
            listed.append(f"{ITEM}{titles[name]}]")
        elif text != "search" and parse_action(action) == ("click", text):
            listed.append(action)
    return tuple(listed)


def compat_candidates(visit: Visit, rng: random.Random) -> tuple[str, ...]:
    """Returns the candidate actions that the reference implementation lists."""
    if visit.page.search_bar:
        return (SEARCH,)
    listed: list[str] = []
    for text in visit.page.clickables:
        if text != "search":
            title = _title_of(visit.shop, text)
            listed.append(f"click[{text}]" if title is None else f"{ITEM}{title}]")
        if len(listed) > _LONGEST_LIST:
            listed = listed[:_KEPT] + rng.sample(listed[_KEPT:], _DRAWN)
    return tuple(listed or [FINISH])


def plain_action(action: str, visit: Visit, mode: CandidateMode) -> str:
    """Returns the shop's own action for one that names a product by its title; any other as it is."""
    if not action.startswith(ITEM):
        return action
    title = action[len(ITEM) : -1]
    if mode is CandidateMode.STABLE:
        asin = next((asin for asin, listed in named_offers(visit).items() if listed == title), None)
        return action if asin is None else f"click[{asin.lower()}]"
    place = visit.shop.store.titled(title)
    return action if place is None else f"click[{visit.shop.product_at(place).asin.lower()}]"


def named_offers(visit: Visit) -> dict[str, str | None]:
    """Returns the title that names each product of the page; None where none does."""
    titles = {
        name: visit.shop.product(name).title.lower()
        for kind, name in visit.page.clickables.values()
        if kind is Kind.LINK
    }
    shared = list(titles.values())
    return {
        asin: title if title and shared.count(title) == 1 and title == " ".join(title.split()) else None
        for asin, title in titles.items()
    }


def _title_of(shop: Shop, text: str) -> str | None:
    """Returns the title of the product whose number a button's text is, as the reference looks it up for any text."""
    if len(text) > LONGEST_ASIN:
        return None
    place = shop.store.find(text.upper())
    return None if place is None else shop.product_at(place).title.lower()
