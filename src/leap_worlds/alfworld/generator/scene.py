"""Draws rooms and games: which receptacles a room has, what lies where, and what is asked. No text is made here."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from leap_worlds.alfworld.generator.config import GeneratorConfig, GeneratorError
from leap_worlds.alfworld.generator.tables import LAMP, NOWHERE, ROOM_KINDS, SCENES, TASKS, room_kind, tables
from leap_worlds.made import stream

# What the tasks cannot do without, kept in a smaller room; a lamp must stand on something.
_ESSENTIAL = ("SinkBasin", "Microwave", "Fridge")
_LAMP_STANDS = ("Desk", "SideTable", "Dresser", "Shelf", "DiningTable")
_ATTEMPTS = 24
"""Small rooms of a split may all lack what one task needs (a lamp's place, say); then another task is drawn."""
_BASINS = {"SinkBasin": "Sink", "BathtubBasin": "Bathtub"}


class Receptacle(NamedTuple):
    """A receptacle of a room; several may share a location. One that can be opened is closed at the start."""

    id: str
    kind: str
    location: int
    openable: bool


@dataclass(frozen=True)
class Room:
    """A room without its things.

    Attributes:
        scene, kind: Scene number and kind of room.
        receptacles: Its receptacles.
        locations: Ids of the places to stand at; the last one is where the agent starts, with no receptacle.
        types: Types of things this room has in any game.
        kept: Share of the full room's things that lie in the receptacles it has (1 for a full room).
    """

    scene: int
    kind: str
    receptacles: tuple[Receptacle, ...]
    locations: tuple[str, ...]
    types: frozenset[str]
    kept: float = 1.0

    @property
    def receptacle_types(self) -> frozenset[str]:
        """Types of receptacles the room has."""
        return frozenset(r.kind for r in self.receptacles)


@dataclass
class Thing:
    """A thing of a game: the receptacles it is listed in (none, one or two), whether it counts as cooled from the
    start, and the id of the thing it is in, if any."""

    id: str
    kind: str
    places: list[Receptacle] = field(default_factory=list)
    cooled: bool = False
    inside: str | None = None


class Scene(NamedTuple):
    """A game: a room with everything in it, and the task: its type, the types of the thing to handle and of the
    receptacle to fill (or of the lamp), and the goal sentence without its full stop."""

    room: Room
    task_type: str
    target: str
    destination: str
    sentence: str
    things: tuple[Thing, ...]


class IdMaker:
    """Makes ids in the form of the official ones: a type and a position that no other id of the game has."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._used: set[tuple[int, int, int]] = set()

    def place(self, kind: str) -> str:
        """An id for a receptacle or a thing. Basins carry their type at the end, as ALFWorld's namer wants it."""
        random = self._rng.random
        while (at := (int(random() * 800) - 400, int(random() * 250), int(random() * 800) - 400)) in self._used:
            pass
        self._used.add(at)
        name = _BASINS.get(kind, kind)
        return name + "".join(map(_coordinate, at)) + (f"_bar_{kind}" if kind in _BASINS else "")

    def location(self, index: int) -> str:
        """An id for a place to stand at."""
        x, y = int(self._rng.random() * 21) - 10, int(self._rng.random() * 21) - 10
        return f"loc_bar_{_signed(x)}_bar_{_signed(y)}_bar_{index % 4}_bar_{index}"


def _coordinate(hundredths: int) -> str:
    whole, rest = divmod(abs(hundredths), 100)
    return f"_bar__{'minus' if hundredths < 0 else 'plus'}_{whole:02d}_dot_{rest:02d}"


def _signed(number: int) -> str:
    return f"_minus_{-number}" if number < 0 else str(number)


def _draw(rng: random.Random, weights: Mapping[str, float]) -> str:
    """One key of a weight table."""
    at = rng.random() * sum(weights.values())
    for key, weight in weights.items():
        at -= weight
        if at < 0:
            return key
    return list(weights)[-1]  # the sum was rounded


def _quantile(counts: Mapping[str, int], at: float) -> int:
    """The number at a quantile of a histogram."""
    at, number = at * sum(counts.values()), 0
    for number in sorted(map(int, counts)):
        at -= counts[str(number)]
        if at < 0:
            break
    return number


@lru_cache(maxsize=512)
def _fixed_room(seed: int, scene: int, size: tuple[int, int] | None) -> Room:
    """The room behind a scene number, the same for all games of a generator seed."""
    kind = room_kind(scene)
    at = {what: ranks[SCENES[kind].index(scene)] for what, ranks in _ranks(seed, kind).items()}
    return _draw_room(scene, at, stream("room", seed, scene), size)


@lru_cache(maxsize=16)
def _ranks(seed: int, kind: str) -> dict[str, list[float]]:
    """For each type a quantile for each scene of the kind: evenly spread, then shuffled (a Latin hypercube), so that 30
    rooms already show the measured proportions."""
    room, table = tables().rooms[kind], {}
    for what in (*room["receptacles"], *room["things"]):
        rng, order = stream("ranks", seed, kind, what), list(range(len(SCENES[kind])))
        rng.shuffle(order)
        table[what] = [(place + rng.random()) / len(order) for place in order]
    return table


def _draw_room(
    scene: int, at: Mapping[str, float], rng: random.Random, size: tuple[int, int] | None
) -> Room:
    kind = room_kind(scene)
    measured = tables().rooms[kind]
    kinds = [r for r, row in measured["receptacles"].items() for _ in range(_quantile(row["counts"], at[r]))]
    types = frozenset(t for t, row in measured["things"].items() if at[t] < row["present"])
    if LAMP in types and not any(k in _LAMP_STANDS for k in kinds):
        types -= {LAMP}
    kept = 1.0
    if size is not None:
        alike, content = Counter(kinds), tables().content(kind)
        each = {k: content.get(k, 0.0) / n for k, n in alike.items()}
        full = sum(each[k] for k in kinds)
        kinds = _smaller(rng, kinds, rng.randint(*size), each, LAMP in types)
        kept = sum(each[k] for k in kinds) / full
    ids = IdMaker(rng)
    groups = _locations(rng, kinds, measured["shared"])
    receptacles = [
        Receptacle(ids.place(k), k, where, rng.random() < measured["receptacles"][k]["openable"])
        for k, where in zip(kinds, groups, strict=True)
    ]
    locations = tuple(ids.location(i) for i in range(max(groups) + 2))
    return Room(scene, kind, tuple(receptacles), locations, types, kept)


def _smaller(
    rng: random.Random, kinds: Sequence[str], number: int, content: Mapping[str, float], lamp: bool
) -> list[str]:
    """A sample of a room's receptacles: the essential ones, then others by how much they hold on average."""
    if number >= len(kinds):
        return list(kinds)
    kept = sorted({kinds.index(k) for k in _ESSENTIAL if k in kinds})
    if lamp:
        kept.append(rng.choice([i for i, k in enumerate(kinds) if k in _LAMP_STANDS]))
    # Efraimidis and Spirakis' keys: a weighted sample without replacement.
    keys = {i: rng.random() ** (1 / (0.05 + content[k])) for i, k in enumerate(kinds) if i not in kept}
    kept += sorted(keys, key=keys.__getitem__, reverse=True)[: max(0, number - len(kept))]
    return [kinds[i] for i in sorted(kept)]


def _locations(rng: random.Random, kinds: Sequence[str], shared: Iterable[tuple[Sequence[str], float]]) -> list[int]:
    """An index of a location for each receptacle; groups that share one are as frequent as measured."""
    free = list(range(len(kinds)))
    rng.shuffle(free)
    where = [-1] * len(kinds)
    count = 0
    for group, rate in shared:
        if Counter(group) - Counter(kinds):
            continue
        for _ in range(int(rate) + (rng.random() < rate % 1)):
            members: list[int] = []
            for kind in group:
                members += [i for i in free if kinds[i] == kind and i not in members][:1]
            if len(members) < len(group):
                break
            free = [i for i in free if i not in members]
            for i in members:
                where[i] = count
            count += 1
    for i in range(len(kinds)):
        if where[i] < 0:
            where[i], count = count, count + 1
    return where


def draw_scene(config: GeneratorConfig, split: str, rng: random.Random, index: int) -> Scene:
    """Draws a game. It may still be unsolvable or solved already; the caller asks the planner and draws again."""
    for attempt in range(_ATTEMPTS):
        task_type, kind = _draw_task(config, split, rng, index + attempt)
        if found := _find_room(config, split, rng, task_type, kind):
            room, goals = found
            break
    else:
        raise GeneratorError(
            f"no room of split {split!r} can host any of the tasks; allow more receptacles, scenes or other tasks"
        )
    target = _draw(rng, {thing: sum(places.values()) for thing, places in goals.items()})
    destination = _draw(rng, goals[target])
    sentence = rng.choice(TASKS[task_type].sentences).format(o=target.lower(), r=destination.lower())
    things = _draw_things(config, room, rng, task_type, target, destination)
    return Scene(room, task_type, target, destination, sentence, things)


def _find_room(
    config: GeneratorConfig, split: str, rng: random.Random, task_type: str, kind: str
) -> tuple[Room, dict[str, dict[str, float]]] | None:
    """A room of a kind that can host a task, and the task's possible goals there."""
    scenes, measured = config.scenes(split, kind), tables().rooms[kind]
    size, fresh = config.receptacles, split in config.layout_per_game
    # Not each room can host each task (a bedroom without a lamp): look at several before giving up.
    for scene in rng.sample(scenes, len(scenes)) * (20 if fresh else 1):
        if fresh:
            at = {what: rng.random() for what in (*measured["receptacles"], *measured["things"])}
            room = _draw_room(scene, at, rng, size)
        else:
            room = _fixed_room(config.seed, scene, size)
        if goals := _possible_goals(room.kind, room.receptacle_types, room.types, task_type):
            return room, goals
    return None


def _draw_task(config: GeneratorConfig, split: str, rng: random.Random, index: int) -> tuple[str, str]:
    pairs = {
        (task, kind): float(games)
        for task in config.task_types
        for kind in ROOM_KINDS
        if kind in config.rooms and config.scenes(split, kind)
        if (games := tables().rooms[kind]["tasks"].get(task, {}).get("games"))
    }
    if not pairs:
        raise GeneratorError(f"split {split!r}: no {' or '.join(config.rooms)} hosts any of the task types")
    if config.balanced:
        tasks = [task for task in config.task_types if any(pair[0] == task for pair in pairs)]
        task = tasks[index % len(tasks)]
        kinds = [kind for t, kind in pairs if t == task]
        return task, kinds[index // len(tasks) % len(kinds)]
    task, _, kind = _draw(rng, {f"{t}/{k}": games for (t, k), games in pairs.items()}).partition("/")
    return task, kind


@lru_cache(maxsize=1024)
def _possible_goals(
    kind: str, here: frozenset[str], types: frozenset[str], task_type: str
) -> dict[str, dict[str, float]]:
    """For each type of thing that a room can ask for its destinations, both weighted as measured, a little smoothed."""
    measured, rule = tables(), TASKS[task_type]
    things, asked = measured.rooms[kind]["things"], measured.rooms[kind]["tasks"][task_type]
    if rule.appliance is not None and rule.appliance not in here:
        return {}
    if task_type == "look_at_obj_in_light":
        ends = {LAMP: 1.0} if LAMP in types and here & set(_LAMP_STANDS) else {}
    else:
        ends = {r: asked["destinations"].get(r, 0) + 0.5 for r in sorted(here) if r != rule.appliance}
    goals: dict[str, dict[str, float]] = {}
    for thing in sorted(types):
        row = things[thing]
        if not row["portable"] or thing in measured.traps or not measured.is_a(thing, rule.needs):
            continue
        weight = asked["targets"].get(thing, 0) + 0.5
        fit = {
            r: weight * w
            for r, w in ends.items()
            if (r == LAMP or thing in measured.can_contain.get(r, ()))
            and here & _for_target(row["places"], task_type, r, 1).keys()  # there must be somewhere to find it
        }
        if fit:
            # The destinations share the thing's weight, or things that fit anywhere would be asked for more often.
            total = sum(fit.values())
            goals[thing] = {r: weight * w / total for r, w in fit.items()}
    return goals


def _draw_things(
    config: GeneratorConfig, room: Room, rng: random.Random, task_type: str, target: str, destination: str
) -> tuple[Thing, ...]:
    kinds = _draw_kinds(config, room, rng, task_type, target)
    by_type: dict[str, list[Receptacle]] = {}
    for receptacle in room.receptacles:
        by_type.setdefault(receptacle.kind, []).append(receptacle)
    measured = tables().rooms[room.kind]
    ids = IdMaker(rng)
    things = [Thing(ids.place(kind), kind) for kind in kinds]
    wanted = TASKS[task_type].count
    for thing in things:
        weights = {p: w for p, w in measured["things"][thing.kind]["places"].items() if p in by_type or p == NOWHERE}
        if thing.kind == target:
            weights = _for_target(weights, task_type, destination, wanted)
            wanted -= 1
        elif thing.kind == LAMP:
            weights = {p: w for p, w in weights.items() if p in _LAMP_STANDS} or weights
        if place := _draw(rng, weights) if weights else NOWHERE:
            thing.places.append(rng.choice(by_type[place]))
    _list_twice(rng, things, by_type, measured["doubles"], (target, destination))
    _nest(rng, things, measured["nested"])
    if task_type != "pick_cool_then_place_in_recep":
        for thing in things:
            if thing.places and thing.places[0].kind == "Fridge":
                thing.cooled = rng.random() < measured["cooled"]
    return tuple(things)


def _draw_kinds(config: GeneratorConfig, room: Room, rng: random.Random, task_type: str, target: str) -> list[str]:
    """Types of all things, one entry for each; the needed ones come first."""
    measured, here = tables(), room.receptacle_types
    wanted = _quantile(measured.rooms[room.kind]["tasks"][task_type]["wanted"], rng.random())
    needed = [target] * max(wanted, TASKS[task_type].count)
    others: list[str] = []
    fixtures: list[str] = []
    for kind, row in measured.rooms[room.kind]["things"].items():
        if kind not in room.types:
            continue
        number = _quantile(row["counts"], rng.random())
        if not row["portable"]:
            fixtures += [kind] * (max(1, number) if kind == LAMP else number)
            continue
        trap = kind in measured.traps
        held = any(kind in measured.can_contain.get(r, ()) for r in here)
        # Where a smaller room has nothing to hold a thing, leave it out: it would be one more trap.
        if kind != target and ((trap and config.traps) or (not trap and held)):
            others += [kind] * number
    number = rng.randint(*config.objects) if config.objects else round(room.kept * (len(needed) + len(others)))
    if number - len(needed) < len(others):
        rng.shuffle(others)
        others = others[: max(0, number - len(needed))]
    return needed + fixtures + others


def _for_target(weights: Mapping[str, float], task_type: str, destination: str, wanted: int) -> dict[str, float]:
    """Where a thing of the wanted type may lie; as in the official games neither in the appliance, nor, untreated, in
    the destination. The needed ones must be in reach.
    """
    rule = TASKS[task_type]
    shut = {rule.appliance, NOWHERE if wanted > 0 else None, None if rule.appliance else destination}
    return {place: weight for place, weight in weights.items() if place not in shut}


def _list_twice(
    rng: random.Random,
    things: Iterable[Thing],
    by_type: Mapping[str, Sequence[Receptacle]],
    rates: Iterable[tuple[str, str, float]],
    goal: tuple[str, str],
) -> None:
    table: dict[str, list[tuple[str, float]]] = {}
    for first, second, rate in rates:
        table.setdefault(first, []).append((second, rate))
    for thing in things:
        if not thing.places:
            continue
        at = rng.random()
        for second, rate in table.get(thing.places[0].kind, ()):
            at -= rate
            if at < 0:
                free = [r for r in by_type.get(second, ()) if r is not thing.places[0]]
                if free and (thing.kind, second) != goal:
                    thing.places.append(rng.choice(free))
                break


def _nest(rng: random.Random, things: Sequence[Thing], rate: float) -> None:
    """Puts a thing into another that lies in the same receptacle; only a text of `examine` shows it."""
    if rng.random() >= rate:
        return
    vessels = [t for t in things if t.places and tables().is_a(t.kind, "isReceptacleObject")]
    if not vessels:
        return
    vessel = rng.choice(vessels)
    beside = [t for t in things if t is not vessel and len(t.places) == 1 and t.places == vessel.places[:1]]
    beside = [t for t in beside if not tables().is_a(t.kind, "isReceptacleObject")]
    if beside:
        rng.choice(beside).inside = vessel.id
