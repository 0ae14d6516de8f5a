"""Who shops from the instruction and the pages seen alone: the source of demonstrations, a baseline, and the teacher's frame.

The shopper takes people at their word. It searches for the instruction's words as they stand, opens the product whose title
shares most of them, chooses the values that share one with what is asked, and buys. It does not know which words are the
shop's: whoever asks for a couch is not shown a sofa. It reads neither descriptions nor features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from leap.core import Decision, History
from leap_worlds.webshop.memory import BACK, BUY, NEXT, PREVIOUS, Memory, Offer, Place

T = TypeVar("T")

LEAVE_RESULTS = 0.5
"""How sensible it is to leave a page of results, in words of a title that match, for each of the instruction's words that the
shop's titles are known to use: more than opening a product where the best title shares less than half of them."""
UNMATCHED = 0.5
"""How sensible a value is that shares no word with what is asked."""
NO_VALUE = 0.75
"""How sensible it is to leave an option open: more than a value that nothing speaks for, less than one with a word in common."""
PAGES = 3
"""Pages of results that are looked at."""
DEAR = 0.25
"""What is left of a product's weight where it costs more than allowed."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What decides where the shopper has a choice. The shopper's own takes the most sensible, ties to the page's order.

    Attributes:
        words: Given what is asked, the words to search for.
        offer: Given the offers with their weights, and the weight of turning the page: an offer, or None to turn it.
        value: Given the values of an option with their weights, and the weight of leaving it open: a value, or None.
        onward: How to leave a page of results.
        leave: Whether to leave the opened product, given whether it is too dear and whether more could be expected.
        hurry: How many more actions there are; None if unknown.
    """

    words: Callable[[Memory, tuple[str, ...]], Sequence[str]] = field(default=lambda memory, words: words)
    offer: Callable[[Sequence[tuple[Offer, float]], float], Offer | None] = field(
        default=lambda weighed, leave: best(weighed, leave)
    )
    value: Callable[[str, Sequence[tuple[str, float]], float], str | None] = field(
        default=lambda name, weighed, skip: best(weighed, skip)
    )
    onward: Callable[[], str] = field(default=lambda: NEXT)
    leave: Callable[[bool, bool], bool] = field(default=lambda dear, worse: dear)
    hurry: int | None = None


def best(weighed: Sequence[tuple[T, float]], otherwise: float) -> T | None:
    """Returns the first of the greatest weight; None where something else weighs more."""
    choice, weight = max(weighed, key=lambda pair: pair[1], default=(None, 0.0))
    return choice if weight >= otherwise else None


class Shopper:
    """The unprivileged expert.

    Args:
        patience: After so many actions something should have been bought; any number if None.
    """

    def __init__(self, patience: int | None = None) -> None:
        self._patience = patience

    def decide(self, history: History) -> Decision:
        """Returns the next reason and action."""
        return next_decision(Memory.of(history), Judgement(hurry=actions_left(history, self._patience)))


def actions_left(history: History, patience: int | None) -> int | None:
    """Returns how many more actions there should be, at least one."""
    return None if patience is None else max(1, patience - len(history.actions))


def next_decision(memory: Memory, judgement: Judgement) -> Decision:
    """Decides by the one rule of shopper and teacher, who differ only in the judgement."""
    match memory.place:
        case Place.START:
            words = list(judgement.words(memory, _to_search(memory)))
            return Decision(reason="I search for what is asked for.", action=f"search[{' '.join(words) or 'gift'}]")
        case Place.RESULTS:
            return _choose_offer(memory, judgement)
        case Place.PRODUCT:
            return _choose_values(memory, judgement)
        case Place.DETAIL:
            return Decision(reason="I have read enough and go back.", action=PREVIOUS)
    return Decision(reason="There is nothing left to do.", action=BACK)


def _to_search(memory: Memory) -> tuple[str, ...]:
    """What is asked for; then the words of it that titles have shown; then one word after another: what was not tried yet."""
    known = tuple(word for word in memory.words if word in memory.known)
    tries = (memory.words, known, *((word,) for word in memory.words))
    return next((words for words in tries if words and words not in memory.searches), memory.words)


def weigh(memory: Memory, offers: Sequence[Offer]) -> list[tuple[Offer, float]]:
    """Returns each offer with the number of wanted words in its title; little is left of that where it is too dear."""
    return [
        (offer, len(memory.matches(offer.title)) * (DEAR if memory.too_dear(offer.price) else 1.0)) for offer in offers
    ]


def _expected(memory: Memory) -> int:
    """Returns how many of the instruction's words a title could share, for all that is known of the shop's words."""
    return sum(word in memory.known for word in memory.words)


def _choose_offer(memory: Memory, judgement: Judgement) -> Decision:
    fresh = [offer for offer in memory.offers if offer.action not in memory.opened]
    offers = fresh or list(memory.offers)
    if not offers:
        return Decision(reason="Nothing was found; I search again.", action=BACK)
    in_a_hurry = judgement.hurry is not None and judgement.hurry <= 3
    may_turn = memory.turned + 1 < PAGES and not in_a_hurry
    weighed = weigh(memory, offers)
    chosen = judgement.offer(weighed, LEAVE_RESULTS * max(1, _expected(memory)) if may_turn else 0.0)
    if chosen is None and may_turn:
        return Decision(reason="Nothing here fits; I look further.", action=judgement.onward())
    chosen = chosen or best(weighed, 0.0) or offers[0]
    matched = memory.matches(chosen.title)
    reason = f"I want {' '.join(matched)}; this fits." if matched else "Nothing fits well; I look at this one."
    return Decision(reason=reason, action=chosen.action)


def _choose_values(memory: Memory, judgement: Judgement) -> Decision:
    left = judgement.hurry
    if left is None or left >= 3:
        mine = weigh(memory, [Offer("", memory.title, memory.price)])[0][1]
        others = [weight for offer, weight in weigh(memory, memory.offers) if offer.action not in memory.opened]
        dear = memory.too_dear(memory.price) and any(weight > mine for weight in others)
        worse = any(weight > mine for weight in others) or mine < LEAVE_RESULTS * _expected(memory)
        if judgement.leave(dear, bool(memory.title) and worse):
            reason = "It costs too much; I go back." if dear else "Another one fits better; I go back."
            return Decision(reason=reason, action=PREVIOUS)
    for name, values in memory.groups.items():
        if left is not None and left <= 1:
            return Decision(reason="Better this one than none; I buy it.", action=BUY)
        weighed = [(value, max(float(len(memory.matches(value))), UNMATCHED)) for value in values]
        value = judgement.value(name, weighed, NO_VALUE)
        if value is not None and memory.chosen.get(name) != value:
            return Decision(reason=f"I want {value}; I choose it.", action=f"click[{value}]")
    return Decision(reason="Nothing is left to choose; I buy it.", action=BUY)
