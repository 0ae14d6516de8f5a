"""The programmatic teacher: the unprivileged shopper with its judgement changed, as far as the privilege level allows.

The shopper has four choices to make: which words to search for, which product to open (or to turn the page), which value of
an option to choose (or none), and whether to leave a product it has opened. Each alternative has a weight w, how sensible it
is for who knows the instruction and the pages seen alone (`leap_worlds.webshop.shopper`). Let the privilege level be p in 0..100.
An alternative is **plausible** for the student if

    w >= (1 - p / 100) * max w

and the hidden state may choose among plausible alternatives only: the words that find the product, the product that can bring
most, the value that the goal asks for. A search's weight is the mean over what is asked for of 1 where it has the person's words
and 1/2 where it has the shop's name in place of others, so from p = 50 on it may be in the shop's names alone. At p = 0 the
hidden state does not matter at all: this is the shopper, going on from wherever the student stands. At p = 100 the teacher
follows the plan that brings the most within the actions left, whatever the student could know.

Time matters at every level: with few actions left a partial match is bought, because an episode without a purchase scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from leap.core import Decision, History, PrivilegedState
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
from leap_worlds.webshop.shopper import Judgement, actions_left, best, next_decision, weigh

_STAY = 1.0
_LEAVE_DEAR = 1.5
_LEAVE_WORSE = 0.75
_SEARCH_ANEW = 6
"""Actions that going back to the search bar, a new search, a choice and a purchase take."""


def teach(
    history: History, privileged: PrivilegedState, privilege: int, *, patience: int | None = None
) -> Decision | None:
    """Returns what to think and do at the student's state; the module's docstring states the rule.

    Args:
        history: The student's own history.
        privileged: Its state, as `leap_worlds.webshop.privileged.describe` makes it.
        privilege: 0..100.
        patience: After so many actions something should have been bought; any number if None.

    Returns:
        None after the purchase.
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
    facts: dict[str, Any] = privileged.facts
    share = 1 - privilege / 100

    def words(memory: Memory, literal: tuple[str, ...]) -> Sequence[str]:
        return search_words(instruction, facts["meant"], privilege)

    def offer(weighed: Sequence[tuple[Offer, float]], leave: float) -> Offer | None:
        least = share * max([leave, *(weight for _, weight in weighed)])
        plausible = [(one, weight) for one, weight in weighed if weight >= least]
        if not plausible:
            return None
        brings, _, one = max(
            ((facts["offers"].get(one.title, 0.0), weight, one) for one, weight in plausible), key=lambda pair: pair[:2]
        )
        elsewhere = brings < facts["best"] and (left is None or left >= _SEARCH_ANEW)
        return None if leave > 0 and leave >= least and elsewhere else one

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
        return first if first in (NEXT, PREVIOUS) else BACK

    return Judgement(words=words, offer=offer, value=value, leave=leave, onward=onward, hurry=left)


def search_words(instruction: str, meant: Sequence[str], privilege: int) -> list[str]:
    """What is meant, in the shop's names; where not all of them are plausible, the instruction's words and the first that are.

    A name that the instruction has in other words is half as sensible as one that it says, so from p = 50 on all are plausible.

    Args:
        instruction: The task.
        meant: The shop's names of what it asks for.
        privilege: p.
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


def _in_time(memory: Memory, facts: dict[str, Any], left: int) -> str | None:
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
