"""Who knows how to play ALFWorld: the unprivileged expert, and the same expert constrained by a privilege level.

The unprivileged expert plays from a `Memory` alone: it looks for things by common sense (a hand-written table of where
things are usually kept, never measured on games), in a regular order, and remembers what it saw.

The privileged teacher is that expert with one choice changed: *in which kind of place to look next*. Searching is the
only part of these tasks in which what is hidden matters. Let w(k) be the common-sense weight of looking for the wanted
thing in a kind of place k that still has unsearched places, and let the privilege level be p in 0..100. A kind is
**plausible** for the student if

    w(k) >= (1 - p / 100) * max w

and the teacher may let the hidden state choose among plausible kinds only: it searches a plausible kind that truly
holds the wanted thing, if there is one, and otherwise the kind the unprivileged expert would search. Within a kind it
goes by number, as the expert does, and as the paper's prompts ask for at low privilege: which cabinet it is, a student
cannot know; that it is a cabinet, it can learn to expect. At p = 0 only the best-weighted kinds are plausible and the
tie goes to the regular order, so the hidden state does not matter at all. At p = 100 the teacher follows the optimal
plan, whatever the student could know. This is the paper's balance (section 3: a constrained privileged expert, close
enough to the unprivileged one to be realizable), with p as its one parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from leap.core import Decision, History, PrivilegedState
from leap_worlds.alfworld.game import APPLIANCES
from leap_worlds.alfworld.memory import ENTITY, Goal, Memory, entity_number, entity_type, parse_goal

# Common sense in three tiers: the first places one would look for a kind of thing, then the second; every other place
# comes last. Words of our own; deliberately coarse, as a person's first guess would be.
_LIKELY, _POSSIBLE, _UNLIKELY = 1.0, 0.6, 0.2
_FOOD = "apple bread egg lettuce potato tomato"
_TABLEWARE = "bowl cup fork knife butterknife mug plate spoon spatula ladle pan pot kettle winebottle glassbottle"
_KITCHEN = "saltshaker peppershaker dishsponge soapbottle papertowelroll"
_BATH = "cloth handtowel towel soapbar soapbottle spraybottle toiletpaper toiletpaperroll candle tissuebox plunger"
_DESK = "alarmclock book box cd cellphone creditcard keychain laptop newspaper pen pencil remotecontrol watch"
_ROOM = "pillow statue vase teddybear tennisracket baseballbat basketball wateringcan houseplant"
_GROUPS: tuple[tuple[str, str, str], ...] = (
    (_FOOD, "countertop diningtable fridge", "sinkbasin garbagecan microwave sidetable"),
    (_TABLEWARE, "countertop diningtable", "cabinet drawer sinkbasin stoveburner shelf sidetable"),
    (_KITCHEN, "countertop", "cabinet drawer diningtable shelf sinkbasin"),
    (_BATH, "countertop toilet sinkbasin", "cabinet bathtubbasin shelf drawer handtowelholder towelholder"),
    (_DESK, "desk sidetable dresser coffeetable diningtable", "bed sofa shelf drawer armchair tvstand"),
    (_ROOM, "bed sofa coffeetable", "sidetable dresser shelf armchair desk diningtable"),
    ("desklamp floorlamp", "desk sidetable dresser", "shelf diningtable coffeetable"),
)
_WEIGHTS: dict[str, dict[str, float]] = {}
for _things, _first, _second in _GROUPS:
    for _thing in _things.split():
        _possible, _likely = dict.fromkeys(_second.split(), _POSSIBLE), dict.fromkeys(_first.split(), _LIKELY)
        _WEIGHTS[_thing] = _possible | _WEIGHTS.get(_thing, {}) | _likely


def search_weight(thing: str, place: str) -> float:
    """How sensible it is to look for a type of thing in a type of place, in (0, 1]."""
    return _WEIGHTS.get(thing, {}).get(place, _UNLIKELY)


def search_order(thing: str, places: Iterable[str]) -> list[str]:
    """Places to search for a type of thing, best first; equal ones by type and then number, so that it can be learned."""
    return sorted(places, key=lambda r: (-search_weight(thing, entity_type(r)), entity_type(r), entity_number(r)))


Choose = Callable[[str, list[str]], str]
"""Given the wanted type of thing and the unsearched places in order (never empty): the place to search next."""


class AlfworldExpert:
    """The unprivileged expert, one per episode."""

    def __init__(self) -> None:
        self._memory = Memory()

    def decide(self, history: History) -> Decision:
        """The next reason and action, from the history alone."""
        self._memory.update(history)
        return next_decision(self._memory, parse_goal(history.task.instruction), lambda thing, order: order[0])


def teach(history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
    """The teacher at the student's state, None in a dead end; the module's docstring states the rule.

    Args:
        history: The student's own history.
        privileged: Its state; `facts["contents"]` maps each place to the things truly in it.
        privilege: 0..100.
    """
    if privileged.hopeless:
        return None
    memory = Memory.of(history)
    goal = parse_goal(history.task.instruction)
    contents: dict[str, list[str]] = privileged.facts["contents"]
    if privilege >= 100 and privileged.plan:
        return Decision(reason=_reason_for(privileged.plan[0], memory, goal), action=privileged.plan[0])

    def choose(thing: str, order: list[str]) -> str:
        if privilege == 0:
            return order[0]
        least = (1 - privilege / 100) * search_weight(thing, entity_type(order[0]))
        plausible = [r for r in order if search_weight(thing, entity_type(r)) >= least]
        kinds = {entity_type(r) for r in plausible if thing in map(entity_type, contents.get(r, ()))}
        return next((r for r in plausible if entity_type(r) in kinds), order[0])

    return next_decision(memory, goal, choose)


def next_decision(memory: Memory, goal: Goal | None, choose: Choose) -> Decision:
    """The one decision rule of expert and teacher; they differ only in `choose`."""
    if goal is None:
        return _wander(memory)
    if memory.holding is None:
        return _fetch(memory, goal, choose)
    if entity_type(memory.holding) != goal.object:
        return _put_down(memory)
    if goal.kind == "look":
        return _use_lamp(memory, goal, choose)
    if goal.kind in APPLIANCES and not _treated(memory, goal, memory.holding):
        return _treat(memory, goal)
    return _deliver(memory, goal)


def _treated(memory: Memory, goal: Goal, thing: str) -> bool:
    return thing in memory.clean if goal.kind == "clean" else memory.temperature.get(thing) == goal.kind


def _go_and(memory: Memory, place: str, far: str, here: str, action: str, closed: str = "") -> Decision:
    """Returns an action at a place, or what comes before it: to go there, or to open it (if `closed` says why)."""
    if not memory.at(place):
        return Decision(reason=far, action=f"go to {place}")
    if closed and memory.shut(place):
        return Decision(reason=closed, action=f"open {place}")
    return Decision(reason=here, action=action)


def _fetch(memory: Memory, goal: Goal, choose: Choose) -> Decision:
    goal_place, wanted = _two_place(memory, goal) if goal.kind == "two" else None, a(goal.object)
    for thing, place in memory.where(goal.object):
        if place != goal_place:  # else it is where it belongs
            far, closed = f"{wanted} was seen: {thing} {on(place)} {place}.", f"{wanted} is inside: {place} is closed."
            return _go_and(memory, place, far, f"{wanted} is here: {thing}.", f"take {thing} from {place}", closed)
    return _search(memory, goal.object, choose, avoid=goal_place)


def _search(memory: Memory, thing: str, choose: Choose, avoid: str | None = None) -> Decision:
    for place in memory.receptacles:
        if place not in memory.contents and place in memory.closed and memory.at(place):
            return Decision(reason=f"{a(thing)} may be inside: {place} is closed.", action=f"open {place}")
    unsearched = [r for r in memory.receptacles if r not in memory.contents and r != avoid]
    # A place that can be neither reached nor looked at is not worth a thought.
    open_to_us = [r for r in unsearched if memory.at(r) or f"go to {r}" in memory.admissible]
    if not open_to_us:
        return _wander(memory)
    place = choose(thing, search_order(thing, open_to_us))
    kind = entity_type(place)
    how = "is often" if search_weight(thing, kind) > _UNLIKELY else "may be"
    reason = f"{a(thing)} {how} {on(place)} {a(kind).lower()}; {place} is not searched yet."
    return Decision(reason=reason, action=f"examine {place}" if memory.at(place) else f"go to {place}")


def a(kind: str) -> str:
    """The kind with its article: "A mug", "An apple"."""
    return f"{'An' if kind[0] in 'aeiou' else 'A'} {kind}"


_CONTAINERS = "bathtubbasin cabinet drawer fridge garbagecan laundryhamper microwave safe sinkbasin cart box"
_IN = frozenset(_CONTAINERS.split())


def on(place: str) -> str:
    """The word for lying in or on a place."""
    return "in" if entity_type(place) in _IN else "on"


def _two_place(memory: Memory, goal: Goal) -> str | None:
    """Where the first of two things already lies; both must end in the same place."""
    places = (r for r in memory.receptacles if entity_type(r) == goal.target)

    def rank(place: str) -> tuple[int, int]:
        return -sum(entity_type(o) == goal.object for o in memory.contents.get(place, ())), entity_number(place)

    return min(places, key=rank, default=None)


def _treat(memory: Memory, goal: Goal) -> Decision:
    place, thing = _nearest(memory, APPLIANCES[goal.kind]), memory.holding
    if place is None:
        return _wander(memory)
    needs = f"{thing} needs {goal.kind}ing; {place}"
    return _go_and(memory, place, f"{needs} can do it.", f"{needs} is here.", f"{goal.kind} {thing} with {place}")


def _deliver(memory: Memory, goal: Goal) -> Decision:
    place = _two_place(memory, goal) if goal.kind == "two" else _nearest(memory, goal.target)
    if place is None:
        return _wander(memory)
    why = f"{memory.holding} belongs {on(place)} {a(goal.target).lower()};"
    move = f"move {memory.holding} to {place}"
    put = move if move in memory.admissible else f"put {memory.holding} in/on {place}"
    return _go_and(memory, place, f"{why} go to {place}.", f"{why} {place} is here.", put, f"{why} {place} is closed.")


def _use_lamp(memory: Memory, goal: Goal, choose: Choose) -> Decision:
    seen = memory.where(goal.target)
    if not seen:
        return _search(memory, goal.target, choose)
    (lamp, place), needs = seen[0], f"{memory.holding} needs light;"
    far = f"{needs} {lamp} was seen {on(place)} {place}."
    return _go_and(memory, place, far, f"{needs} {lamp} is here.", f"use {lamp}", f"{needs} {place} is closed.")


def _nearest(memory: Memory, kind: str) -> str | None:
    """The place of a type to use: one at hand, else the first by number."""
    places = (r for r in memory.receptacles if entity_type(r) == kind)
    return min(places, key=lambda r: (not memory.at(r), entity_number(r)), default=None)


def _put_down(memory: Memory) -> Decision:
    """Frees the hand of something that is not wanted."""
    thing = memory.holding or ""
    wrong = f"{thing} is not wanted"
    here = sorted(a for a in memory.admissible if a.startswith((f"put {thing} ", f"move {thing} ")))
    if here:
        place = " ".join(here[0].split()[-2:])
        return Decision(reason=f"{wrong}; {place} is here.", action=here[0])
    for place in search_order(entity_type(thing), memory.receptacles):
        if memory.shut(place):
            return Decision(reason=f"{wrong}; {place} is closed.", action=f"open {place}")
        if f"go to {place}" in memory.admissible:
            return Decision(reason=f"{wrong}; go to {place}.", action=f"go to {place}")
    return _wander(memory)


def _wander(memory: Memory) -> Decision:
    """Nothing sensible is left: look again at one place after another, in a fixed order."""
    places = [a for a in sorted(memory.admissible) if a.startswith("go to ")]
    action = places[memory.seen_steps % len(places)] if places else "look"
    return Decision(reason="Nothing is left to search; look again.", action=action)


def _reason_for(action: str, memory: Memory, goal: Goal | None) -> str:
    """A reason for an action of the optimal plan that names nothing the student has not seen: the expert's own where it
    would do the same, else a plain statement of what the action is good for."""
    own = next_decision(memory, goal, lambda thing, order: next((r for r in order if action.endswith(r)), order[0]))
    if own.action == action:
        return own.reason
    verb, place = action.split()[0], " ".join(action.split()[-2:])
    if verb == "go":
        return f"{place} is where to go."
    return f"{place} is here, so I can {verb}." if ENTITY.fullmatch(place) else f"I can {verb}."
