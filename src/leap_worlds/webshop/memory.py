"""What a shopper knows: the instruction's words, the page at hand and what was done to come here, read from a history alone."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby

from leap.core import History, Observation
from leap_worlds.webshop.candidates import ITEM, SEARCH

BUY, BACK, PREVIOUS, NEXT = "click[buy now]", "click[back to search]", "click[< prev]", "click[next >]"
_BUTTONS = frozenset({BUY, BACK, PREVIOUS, NEXT, SEARCH, "click[search]"} | {
    f"click[{name}]" for name in ("description", "features", "reviews", "attributes")
})  # fmt: skip
_ASIN = re.compile(r"click\[b[0-9a-z]{9}\]")
_LIMIT = re.compile(r",? and price lower than ([\d.]+) dollars")
_WORD = re.compile(r"[a-z0-9]+(?:[.'-][a-z0-9]+)*")
_NAMED = re.compile(r"(?: with|, and) ([a-z][^:,]*): (.+?)(?=, and |$)")
_PRICE = re.compile(r"\$([\d.]+)(?: to \$[\d.]+)?")
_MARKS = re.compile(r"\[(?:clicked )?button_?\]")
# Words that say how one asks, not what for.
_HOW_WORDS = (
    "a about all also am an and any are as at be bed both buy by can color come comes could do find flavor for from get gets "
    "give gives go goes has have help hi i i'd i'm id if im in into is it it's its like look looking made make me "
    "measuring mine more my must need needs of on one or our out please pick purchase right same search see shall she "
    "shopping should sister smelling so some something such take than that that's the them then there these they thing "
    "this those to try up want wanted wants was we what when where which who will wish with work would you your"
)
_HOW = frozenset(_HOW_WORDS.split())


class Place(StrEnum):
    """Kinds of pages: the search bar, products found, a product with options, text about it, nothing to click."""

    START = "start"
    RESULTS = "results"
    PRODUCT = "product"
    DETAIL = "detail"
    END = "end"


_SIGNS = ((SEARCH, Place.START), (BUY, Place.PRODUCT), (NEXT, Place.RESULTS), (PREVIOUS, Place.DETAIL))


@dataclass(frozen=True, slots=True)
class Offer:
    """A product on a results page: what opens it, its title in lower case (the number where the title cannot name it),
    and the least it can cost, in US dollars."""

    action: str
    title: str
    price: float | None


@dataclass(slots=True)
class Memory:
    """What is known at the present step.

    Attributes:
        place: Kind of page.
        words, limit: What the instruction asks for, word by word, and its price limit, in US dollars; None without one.
        query, searches: Words of the last search, empty before the first, and of all.
        offers: Products of this results page, or of the one that the present product was opened from.
        opened: Actions that opened products since the last search bar, the present product's last.
        title, price: Of the present product: in lower case, and the least it can cost.
        groups, chosen: Options of the present product, values by name, and the values chosen.
        turned: Results pages turned since the search.
        known: Words that titles have shown.
    """

    place: Place
    words: tuple[str, ...]
    limit: float | None
    query: tuple[str, ...] = ()
    offers: tuple[Offer, ...] = ()
    opened: list[str] = field(default_factory=list)
    title: str = ""
    price: float | None = None
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    turned: int = 0
    searches: list[tuple[str, ...]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    named: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, history: History) -> Memory:
        """Reads a whole history."""
        text, limit = split_limit(history.task.instruction)
        memory = cls(Place.START, content_words(text), limit)
        memory.named = {name.rpartition(" with ")[2]: value for name, value in _NAMED.findall(text.lower())}
        memory._see(history.observations[0])
        for action, shown in zip(history.actions, history.observations[1:], strict=True):
            memory._do(action, shown)
            memory._see(shown)
        return memory

    def matches(self, text: str) -> list[str]:
        """The wanted words that a text has: those searched for in their order, then the instruction's others."""
        there = set(_WORD.findall(text.lower()))
        wanted = (*self.query, *(word for word in self.words if word not in self.query))
        return [word for word, _ in groupby(word for word in wanted if word in there)]

    @property
    def expected(self) -> int:
        """How many of the instruction's words a title could share, for all that is known of the shop's words."""
        return sum(word in self.known for word in self.words)

    @property
    def lacks(self) -> bool:
        """Whether the present product has not every value that the instruction names with its option."""
        return any(value not in values for name, value in self.named.items() for values in [self.groups.get(name, ())])

    def too_dear(self, price: float | None) -> bool:
        """Returns whether a price is above the limit for all that is known."""
        return self.limit is not None and price is not None and price > self.limit

    def _do(self, action: str, shown: Observation) -> None:
        place = place_of(shown)
        if action.startswith("search[") and action.endswith("]") and place is Place.RESULTS:
            self.query, self.turned, self.offers = content_words(action[7:-1]), 0, ()
            self.searches.append(self.query)
        elif action in (NEXT, PREVIOUS) and self.place is Place.RESULTS:
            self.turned += 1 if action == NEXT else -1
        elif is_offer(action) and self.place is Place.RESULTS and place is Place.PRODUCT:
            self.opened.append(action)
            offer = next((offer for offer in self.offers if offer.action == action), Offer(action, "", None))
            self.title, self.price, self.chosen = offer.title, offer.price, {}
        elif self.place is Place.PRODUCT and place is Place.PRODUCT:
            for name, values in self.groups.items():
                if action[6:-1] in values and action.startswith("click["):
                    self.chosen[name] = action[6:-1]
        elif action == BACK and place is Place.START:
            self.opened, self.offers, self.turned = [], (), 0
        if place in (Place.START, Place.RESULTS):
            self.chosen = {}

    def _see(self, shown: Observation) -> None:
        self.place = place_of(shown)
        if self.place is Place.RESULTS:
            self.offers = tuple(_offers(shown))
            for offer in self.offers:
                self.known.update(_WORD.findall(offer.title))
        elif self.place is Place.PRODUCT:
            self.groups = _groups(shown)


def split_limit(instruction: str) -> tuple[str, float | None]:
    """Returns an instruction without its price limit, and the limit."""
    found = _LIMIT.search(instruction)
    return _LIMIT.sub("", instruction, count=1), float(found[1]) if found else None


def content_words(text: str) -> tuple[str, ...]:
    """The words that say what is wanted, in order. Those of a name stay together: "nut free and gluten free" has two of free."""
    return tuple(word for word in _WORD.findall(text.lower()) if word not in _HOW)


def all_words(text: str) -> list[str]:
    """Returns all words of a text, in lower case."""
    return _WORD.findall(text.lower())


def place_of(shown: Observation) -> Place:
    """Returns the kind of page an observation is of, by what can be done there."""
    listed = shown.admissible or ()
    for sign, place in _SIGNS:
        if sign in listed:
            return place
    return Place.END


def is_offer(action: str) -> bool:
    """Returns whether an action opens a product, by its form."""
    return action.startswith(ITEM) or _ASIN.fullmatch(action) is not None


def _offers(shown: Observation) -> list[Offer]:
    pieces = _pieces(shown.text)
    offers, at = [], 0
    for action in shown.admissible or ():
        if not is_offer(action):
            continue
        title = action[len(ITEM) : -1] if action.startswith(ITEM) else action[6:-1]
        price = None
        for place in range(at, len(pieces)):
            if pieces[place].startswith(title):
                # The price follows: on the same line, or on one of the next two (behind a number and a title).
                found = _PRICE.search(" ".join([pieces[place][len(title) :], *pieces[place + 1 : place + 3]]))
                price, at = (float(found[1]) if found else None), place + 1
                break
        offers.append(Offer(action, title, price))
    return offers


def _groups(shown: Observation) -> dict[str, tuple[str, ...]]:
    values = {action[6:-1] for action in shown.admissible or () if action not in _BUTTONS and action.startswith("click[")}
    groups: dict[str, list[str]] = {}
    name = ""
    for piece in _pieces(shown.text):
        label, found, rest = piece.partition(": ")
        if found and label and all(value in values for value in rest.split(", ")):
            groups[label] = rest.split(", ")  # one line for a group, in the brief form
        elif piece in values:
            groups.setdefault(name, []).append(piece)
        elif not piece.startswith("you have clicked"):
            name = piece
    listed = {value for group in groups.values() for value in group}
    if left := [value for value in values if value not in listed]:
        groups.setdefault("", []).extend(sorted(left))
    return {name: tuple(dict.fromkeys(group)) for name, group in groups.items()}


def _pieces(text: str) -> list[str]:
    """Returns the page's texts, one by one, in lower case and without marks of buttons."""
    lines = _MARKS.sub("", text.lower()).replace(" [sep] ", "\n").split("\n")
    return [line.strip() for line in lines if line.strip()]
