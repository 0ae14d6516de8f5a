"""What a player of ALFWorld knows from the texts alone: the goal, the places, what was seen where.

Reads nothing but a `History`, so nothing built on it can use the privileged state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from leap.core import History

ENTITY = re.compile(r"\b([a-z]+) (\d+)\b")
_INTRO = re.compile(r"Looking quickly around you, you see (.*?)\.(?:\n|$)", re.S)
_CONTENT = re.compile(r"(?:On|In) (?:the )?([a-z]+ \d+|it), you see (.*?)\.")
_STATE = re.compile(r"The ([a-z]+ \d+) is (open|closed)\.")
_TAKE = re.compile(r"You pick up the ([a-z]+ \d+) from the ([a-z]+ \d+)\.")
_PUT = re.compile(r"You (?:put|move) the ([a-z]+ \d+) (?:in/on|to) the ([a-z]+ \d+)\.")
_TREAT = re.compile(r"You (heat|cool|clean) the ([a-z]+ \d+) using the ([a-z]+ \d+)\.")
_CLOSE = re.compile(r"You close the ([a-z]+ \d+)\.")

# The official goal sentences, two per task type (alfworld's goal library); the first group is the object's type, the
# second the receptacle's or the lamp's.
_GOALS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("clean", re.compile(r"(?:put a clean|clean some) (\w+) (?:in|and put it in) (\w+)")),
    ("heat", re.compile(r"(?:put a hot|heat some) (\w+) (?:in|and put it in) (\w+)")),
    ("cool", re.compile(r"(?:put a cool|cool some) (\w+) (?:in|and put it in) (\w+)")),
    ("two", re.compile(r"(?:put two|find two) (\w+) (?:in|and put them in) (\w+)")),
    ("look", re.compile(r"(?:look at|examine the) (\w+) (?:under|with) the (\w+)")),
    ("place", re.compile(r"put (?:a|some) (\w+) (?:in|on) (\w+)")),
)

@dataclass(frozen=True, slots=True)
class Goal:
    """A task sentence understood: its kind (place, clean, heat, cool, two or look), the type of the thing to handle
    ("mug"), and that of the receptacle to put it in, or of the lamp to use."""

    kind: str
    object: str
    target: str


@lru_cache(4096)  # asked at every step
def parse_goal(instruction: str) -> Goal | None:
    """Understands an official goal sentence; None for any other (ALFRED's human annotations, say)."""
    for kind, pattern in _GOALS:
        if match := pattern.search(instruction.lower()):
            return Goal(kind, match.group(1), match.group(2))
    return None


def entities(text: str) -> list[str]:
    """The things and places that a text names, in order."""
    return [found.group() for found in ENTITY.finditer(text)]


@lru_cache(4096)  # asked some forty times a step, of a hundred names
def entity_type(entity: str) -> str:
    """The type of "cabinet 3" is "cabinet"."""
    return entity.rpartition(" ")[0]


@lru_cache(4096)
def entity_number(entity: str) -> int:
    """The number of "cabinet 3" is 3."""
    return int(entity.rpartition(" ")[2])


@dataclass(slots=True)
class Memory:
    """What has been seen, action by action.

    Attributes:
        receptacles: All places named at the start, in the order of the text.
        contents: What lies where, for the places whose inside or top has been seen.
        closed: Places last seen closed.
        holding: What is in hand.
        clean, temperature: Things that were cleaned; what was last done to a thing, heat or cool.
        admissible: The actions that can be taken now.
    """

    receptacles: list[str] = field(default_factory=list)
    contents: dict[str, list[str]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    holding: str | None = None
    clean: set[str] = field(default_factory=set)
    temperature: dict[str, str] = field(default_factory=dict)
    admissible: frozenset[str] = frozenset()
    seen_steps: int = 0

    @classmethod
    def of(cls, history: History) -> Memory:
        """The memory of a whole history."""
        memory = cls()
        memory.update(history)
        return memory

    def update(self, history: History) -> None:
        """Takes in what is new in a history that extends the one seen before."""
        if self.seen_steps == 0:
            self._intro(history.observations[0].text)
            self.seen_steps = 1
        for shown in history.observations[self.seen_steps :]:
            self._turn(shown.text)
        self.seen_steps = len(history.observations)
        self.admissible = frozenset(history.now.admissible or ())

    def at(self, receptacle: str) -> bool:
        """Whether the player stands at the receptacle (several may share a place, so the last `go to` does not tell)."""
        return f"examine {receptacle}" in self.admissible

    def shut(self, receptacle: str) -> bool:
        """Whether the receptacle is within reach and closed, seen so or not (it may share its place with another)."""
        return f"open {receptacle}" in self.admissible

    def where(self, kind: str) -> list[tuple[str, str]]:
        """Things of a type that were seen and not taken since, as (thing, place), in the order of the places."""
        return [(o, r) for r in self.receptacles for o in self.contents.get(r, ()) if entity_type(o) == kind]

    def _intro(self, text: str) -> None:
        if match := _INTRO.search(text):
            self.receptacles = entities(match.group(1))

    def _turn(self, text: str) -> None:
        if match := _TAKE.match(text):
            thing, place = match.groups()
            self.holding = thing
            if thing in self.contents.get(place, ()):
                self.contents[place].remove(thing)
        elif match := _PUT.match(text):
            thing, place = match.groups()
            self.holding = None
            self.contents.setdefault(place, []).append(thing)
        elif match := _TREAT.match(text):
            how, thing, _ = match.groups()
            if how == "clean":
                self.clean.add(thing)
            else:
                self.temperature[thing] = how
        elif match := _CLOSE.match(text):
            self.closed.add(match.group(1))
        else:
            self._look_at(text)

    def _look_at(self, text: str) -> None:
        for place, state in _STATE.findall(text):
            (self.closed.add if state == "closed" else self.closed.discard)(place)
        if match := _CONTENT.search(text):
            place, inside = match.groups()
            if place == "it" and (found := ENTITY.search(text)):
                place = found.group()
            if place in self.receptacles:
                self.contents[place] = entities(inside)
