"""Who shops: the unprivileged expert, and the same shopper with its judgement changed as far as a privilege level allows.

The shopper takes people at their word. It searches for the instruction's words as they stand, opens the product whose
title shares most of them, chooses the values that share one with what is asked, and buys. It does not know which words
are the shop's: whoever asks for a couch is not shown a sofa. It reads neither descriptions nor features.

It has four choices to make: which words to search for, which product to open (or to turn the page), which value of an
option to choose (or none), and whether to leave a product it has opened. Each alternative has a weight w, how sensible
it is for who knows the instruction and the pages seen alone. Let the privilege level be p in 0..100. An alternative is
**plausible** for the student if

    w >= (1 - p / 100) * max w

and the hidden state may choose among plausible alternatives only: the words that find the product, the product that can
bring most, the value that the goal asks for. A search's weight is the mean over what is asked for of 1 where it has the
person's words and 1/2 where it has the shop's name in place of others, so from p = 50 on it may be in the shop's names
alone. From p > 0 on a product's weight is at least what its place in the shop's order gives. At p = 0 the hidden state does
not matter at all: this is the shopper, going on from wherever the student stands. At p = 100 the teacher follows the plan
that brings the most within the actions left, whatever the student could know.

Time matters at every level: with few actions left a partial match is bought, because an episode without a purchase scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from leap.core import Decision, History, JsonObject, PrivilegedState
from leap_worlds.webshop.memory import (
    BACK,
    BUY,
    NEXT,
    PREVIOUS,
    Memory,
    Offer,
    Place,
    all_words,
    content_words,
    is_offer,
    split_limit,
)

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
_STAY = 1.0
_LEAVE_DEAR = 1.5
_LEAVE_WORSE = 0.75
_TRUSTED = 40
"""Places on a page of results down which a place alone makes ever less of an offer."""
_SEARCH_ANEW = 6
"""Actions that going back to the search bar, a new search, a choice and a purchase take."""


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

    words: Callable[[Memory, tuple[str, ...]], Sequence[str]] = lambda memory, words: words
    offer: Callable[[Sequence[tuple[Offer, float]], float], Offer | None] = lambda weighed, leave: best(weighed, leave)
    value: Callable[[str, Sequence[tuple[str, float]], float], str | None] = lambda _, values, skip: best(values, skip)
    onward: Callable[[], str] = lambda: NEXT
    leave: Callable[[bool, bool], bool] = lambda dear, worse: dear
    hurry: int | None = None


def best(weighed: Sequence[tuple[T, float]], otherwise: float) -> T | None:
    """Returns the first of the greatest weight; None where something else weighs more."""
    choice, weight = max(weighed, key=lambda pair: pair[1], default=(None, 0.0))
    return choice if weight >= otherwise else None


@dataclass(frozen=True)
class Shopper:
    """The unprivileged expert. After so many actions (`patience`) something should have been bought."""

    patience: int | None = None

    def decide(self, history: History) -> Decision:
        """Returns the next reason and action."""
        return next_decision(Memory.of(history), Judgement(hurry=actions_left(history, self.patience)))


@dataclass(frozen=True)
class Checker:
    """An unprivileged expert for goals that name each option with its value, as made-up ones do.

    It opens the shop's results in turn until a product has every value named, or until it has looked at `most` products. After
    so many actions (`patience`) something should have been bought.
    """

    patience: int | None = None
    most: int = 6

    def decide(self, history: History) -> Decision:
        """Returns the next reason and action."""
        memory, left = Memory.of(history), actions_left(history, self.patience)
        needed = len(memory.named) + 1
        if memory.place is Place.RESULTS and memory.offers:
            fresh = [offer for offer in memory.offers if offer.action not in memory.opened]
            fair = [offer for offer in fresh if not memory.too_dear(offer.price)]
            offers = memory.offers if left is not None and left <= 4 else fair or fresh or memory.offers
            return Decision(reason="I look what it comes in.", action=offers[0].action)
        if memory.place is not Place.PRODUCT:
            return next_decision(memory, Judgement(hurry=left))
        if memory.lacks and (left is None or left > needed + 2) and len(memory.opened) < self.most:
            return Decision(reason="It does not come in what I want; I go back.", action=PREVIOUS)
        for name, values in memory.groups.items():
            named = memory.named.get(name)
            value = named if named in values else max(values, key=lambda one: len(memory.matches(one)))
            if name not in memory.chosen and (value == named or memory.matches(value)) and (left is None or left > 1):
                return Decision(reason=f"I want {value}; I choose it.", action=f"click[{value}]")
        return Decision(reason="Nothing is left to choose; I buy it.", action=BUY)


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


def _choose_offer(memory: Memory, judgement: Judgement) -> Decision:
    fresh = [offer for offer in memory.offers if offer.action not in memory.opened]
    offers = fresh or list(memory.offers)
    if not offers:
        return Decision(reason="Nothing was found; I search again.", action=BACK)
    another_page = memory.turned + 1 < PAGES
    least = 4 if another_page else _SEARCH_ANEW
    may_turn = (another_page or judgement.onward() == BACK) and (judgement.hurry is None or judgement.hurry >= least)
    weighed = weigh(memory, offers)
    chosen = judgement.offer(weighed, LEAVE_RESULTS * max(1, memory.expected) if may_turn else 0.0)
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
        worse = memory.lacks or any(weight > mine for weight in others) or mine < LEAVE_RESULTS * memory.expected
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


def teach(
    history: History, privileged: PrivilegedState, privilege: int, *, patience: int | None = None
) -> Decision | None:
    """Returns what to think and do at the student's state, None after the purchase; the module's docstring states the rule.

    Args:
        history: The student's own history.
        privileged: Its state, as `leap_worlds.webshop.oracle.describe` makes it.
        privilege: 0..100.
        patience: After so many actions something should have been bought; any number if None.
    """
    memory = Memory.of(history)
    if memory.place is Place.END or privileged.hopeless:
        return None
    left = actions_left(history, patience)
    if privilege == 0:
        return next_decision(memory, Judgement(hurry=left))
    if privilege >= 100:
        return _follow(memory, privileged, left)
    return next_decision(memory, _judgement(history.task.instruction, memory, privileged, privilege, left))


def _judgement(
    instruction: str, memory: Memory, privileged: PrivilegedState, privilege: int, left: int | None
) -> Judgement:
    facts = privileged.facts
    share = 1 - privilege / 100
    named = search_words(instruction, facts["meant"], privilege)
    planned = (privileged.plan or ("",))[0].removeprefix("search[").removesuffix("]").split()
    sayable = {*all_words(instruction), *" ".join(facts["meant"]).split()}
    sensible = [named, planned] if planned and sayable.issuperset(planned) else [named]

    def words(memory: Memory, literal: tuple[str, ...]) -> Sequence[str]:
        return next((one for one in sensible if content_words(" ".join(one)) not in memory.searches), literal)

    def offer(weighed: Sequence[tuple[Offer, float]], leave: float) -> Offer | None:
        if onward() == BACK and _to_search(memory) in memory.searches:
            leave = 0.0  # there is nothing left to search for
        most = max([leave, *(weight for _, weight in weighed)])
        # Titles say little and mislead; the shop searches descriptions, too, so its order counts as well.
        weighed = [(one, max(weight, most * (1 - at / _TRUSTED))) for at, (one, weight) in enumerate(weighed)]
        leave = leave and max(leave, most * (1 - len(weighed) / _TRUSTED))
        plausible = [(one, weight) for one, weight in weighed if weight >= share * most]
        if not plausible:
            return None
        brings, _, one = max(
            ((facts["offers"].get(one.title, 0.0), weight, one) for one, weight in plausible), key=lambda pair: pair[:2]
        )
        elsewhere = brings < facts["best"] and (left is None or left >= _SEARCH_ANEW)
        return None if leave > 0 and leave >= share * most and elsewhere else one

    def value(name: str, weighed: Sequence[tuple[str, float]], skip: float) -> str | None:
        needed = facts["values"].get(name)
        least = share * max([skip, *(weight for _, weight in weighed)])
        if any(value == needed and weight >= least for value, weight in weighed):
            return needed
        return best(weighed, skip)

    def leave(dear: bool, worse: bool) -> bool:
        weight = _LEAVE_DEAR if dear else _LEAVE_WORSE if worse else 0.0
        least = share * max(_STAY, weight)
        if least > weight or least > _STAY:
            return weight > _STAY
        others = [(one, w) for one, w in weigh(memory, memory.offers) if one.action not in memory.opened]
        found = max((facts["offers"].get(one.title, 0.0) for one, _ in others), default=0.0)
        enough_time = left is None or left >= _SEARCH_ANEW
        return max(found, facts["best"] if worse and enough_time else 0.0) > (facts["here"] or 0.0)

    def onward() -> str:
        first = (privileged.plan or (BACK,))[0]
        return first if first in (NEXT, PREVIOUS) and memory.turned + 1 < PAGES else BACK

    return Judgement(words=words, offer=offer, value=value, leave=leave, onward=onward, hurry=left)


def search_words(instruction: str, meant: Sequence[str], privilege: int) -> list[str]:
    """What is meant, in the shop's names; where not all of them are plausible, the instruction's words and the first that are.

    A name that the instruction has in other words is half as sensible as one that it says, so from p = 50 on all are plausible.
    """
    text, _ = split_limit(instruction)
    said, asked = set(all_words(text)), content_words(text)
    hidden = [name for name in meant if not said.issuperset(name.split())]
    plausible = int(len(meant) * privilege / 50)
    if plausible >= len(hidden):
        return " ".join(meant).split()
    return [*asked, *" ".join(hidden[:plausible]).split()]


def _follow(memory: Memory, privileged: PrivilegedState, left: int | None) -> Decision:
    """Returns the plan's first action, or what brings most where the plan takes more actions than are left."""
    assert privileged.plan
    facts, plan = privileged.facts, privileged.plan
    action = plan[0]
    if left is not None and len(plan) > left:
        action = _in_time(memory, facts, left) or action
    return Decision(reason=_reason_for(action, memory), action=action)


def _in_time(memory: Memory, facts: JsonObject, left: int) -> str | None:
    if memory.place is Place.PRODUCT:
        needed = [value for name, value in facts["values"].items() if memory.chosen.get(name) != value]
        return f"click[{needed[0]}]" if needed and left >= 2 else BUY
    if memory.place is Place.DETAIL:
        return PREVIOUS
    if memory.place is Place.RESULTS and memory.offers:
        return max(memory.offers, key=lambda one: facts["offers"].get(one.title, 0.0)).action
    return None


def _reason_for(action: str, memory: Memory) -> str:
    """Returns a reason that names nothing the student has not seen."""
    own = next_decision(memory, replace(Judgement(), value=lambda name, weighed, skip: _chosen(action, weighed)))
    if own.action == action:
        return own.reason
    if action == BUY:
        return "This is good enough; I buy it."
    if action == NEXT:
        return "Nothing here fits; I look further."
    if is_offer(action):
        title = next((offer.title for offer in memory.offers if offer.action == action), "")
        matched = memory.matches(title)
        return f"I want {' '.join(matched)}; this fits." if matched else "Nothing fits well; I look at this one."
    if action.startswith("search["):
        return "I search for what is asked for."
    return "This is not what is asked for; I go back."


def _chosen(action: str, weighed: Sequence[tuple[str, float]]) -> str | None:
    return next((value for value, _ in weighed if action == f"click[{value}]"), None)
