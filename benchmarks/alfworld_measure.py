"""Measures official games: what rooms hold, where things lie, what is asked. Its output is the generator's `tables.json`.

    python benchmarks/alfworld_measure.py $ALFWORLD_DATA/json_2.1.1/valid_train > tables.json

Only training games may be measured; the shipped table comes from 200 of them. Numbers are kept, never a room or a game.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leap_worlds.alfworld.generator.tables import NOWHERE, ROOM_KINDS, room_kind

_ATTRIBUTES = ("cleanable", "heatable", "coolable", "sliceable", "isReceptacleObject")
_FACT = re.compile(r"\(([^()]+)\)")


@dataclass(frozen=True)
class GameFacts:
    """What a game's problem says at the start, as far as it is measured.

    Attributes:
        scene: Scene number.
        task_type: One of the six.
        target: Type of the thing to handle.
        destination: Type of the receptacle to fill, or of the lamp.
        facts: For each predicate its argument tuples.
    """

    scene: int
    task_type: str
    target: str
    destination: str
    facts: dict[str, list[tuple[str, ...]]]

    @classmethod
    def parse(cls, problem: str, traj: dict[str, Any]) -> GameFacts:
        """Reads the problem's `:init` and the task's parameters."""
        facts: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for fact in _FACT.findall(problem[problem.index("(:init") : problem.index("(:goal")]):
            name, *arguments = fact.split()
            facts[name].append(tuple(arguments))
        params = traj["pddl_params"]
        return cls(
            scene=int(traj["scene"]["scene_num"]),
            task_type=traj["task_type"],
            target=params["object_target"],
            destination=params["parent_target"] or params["toggle_target"],
            facts=dict(facts),
        )

    def types(self, predicate: str) -> dict[str, str]:
        """Types without their ending, by id, of `objectType` or `receptacleType`."""
        return {x: t.removesuffix("Type") for x, t in self.facts[predicate]}

    def where(self) -> dict[str, list[str]]:
        """Receptacles of each thing that lies somewhere."""
        places: dict[str, list[str]] = defaultdict(list)
        for thing, place in self.facts.get("inReceptacle", []):
            places[thing].append(place)
        return places

    def marked(self, predicate: str) -> set[str]:
        """Ids for which a one-place predicate holds."""
        return {x[0] for x in self.facts.get(predicate, [])}

    def groups(self) -> list[list[str]]:
        """Receptacle types at each location that has a receptacle, sorted."""
        kinds, at = self.types("receptacleType"), defaultdict(list)
        for place, location in self.facts["receptacleAtLocation"]:
            at[location].append(kinds[place])
        return [sorted(group) for group in at.values()]


def read_games(folder: Path) -> list[GameFacts]:
    """All games below a folder, in the order of their paths."""
    games = []
    for path in sorted(folder.rglob("game.tw-pddl")):
        problem = json.loads(path.read_text(encoding="utf-8"))["pddl_problem"]
        games.append(GameFacts.parse(problem, json.loads((path.parent / "traj_data.json").read_text(encoding="utf-8"))))
    return games


def fit_tables(games: Sequence[GameFacts]) -> dict[str, Any]:
    """The generator's tables, from games."""
    contain: dict[str, set[str]] = defaultdict(set)
    attributes: dict[str, set[str]] = defaultdict(set)
    for game in games:
        kinds = game.types("objectType")
        for place, thing in game.facts["canContain"]:
            contain[place.removesuffix("Type")].add(thing.removesuffix("Type"))
        for attribute in _ATTRIBUTES:
            for thing in game.marked(attribute):
                attributes[kinds[thing]].add(attribute)
    return {
        "games": len(games),
        "task_types": dict(sorted(Counter(g.task_type for g in games).items())),
        "can_contain": {place: sorted(things) for place, things in sorted(contain.items())},
        "attributes": {thing: sorted(a) for thing, a in sorted(attributes.items())},
        "rooms": {kind: _fit_room([g for g in games if room_kind(g.scene) == kind], contain) for kind in ROOM_KINDS},
    }


def _fit_room(games: Sequence[GameFacts], contain: dict[str, set[str]]) -> dict[str, Any]:
    return {
        "tasks": {
            task: {
                "games": len(of_task),
                "targets": _count(g.target for g in of_task),
                "destinations": _count(g.destination for g in of_task),
                # The official games have more of what they ask for than other games of the room.
                "wanted": _count(sum(k == g.target for k in g.types("objectType").values()) for g in of_task),
            }
            for task in sorted({g.task_type for g in games})
            if (of_task := [g for g in games if g.task_type == task])
        },
        "receptacles": _fit_receptacles(games),
        "shared": _fit_shared(games),
        "things": _fit_things(games, contain),
        "doubles": _fit_doubles(games),
        "nested": _fit_nested(games),
        "cooled": _fit_cooled(games),
    }


def _count(values: Iterable[Any]) -> dict[str, int]:
    return {str(value): n for value, n in sorted(Counter(values).items())}


def _fit_receptacles(games: Sequence[GameFacts]) -> dict[str, Any]:
    """For each type: how many a room has (histogram over games), and the share of them that can be opened."""
    counts = [Counter(g.types("receptacleType").values()) for g in games]
    openable: Counter[str] = Counter()
    for game in games:
        kinds = game.types("receptacleType")
        openable.update(kinds[place] for place in game.marked("openable"))
    total = sum(counts, Counter())
    return {
        kind: {"counts": _count(c[kind] for c in counts), "openable": round(openable[kind] / total[kind], 3)}
        for kind in sorted(total)
    }


def _fit_shared(games: Sequence[GameFacts]) -> list[Any]:
    """Groups of receptacles at one location: [types, groups per game that could have one]."""
    found: Counter[tuple[str, ...]] = Counter(tuple(group) for g in games for group in g.groups() if len(group) > 1)
    table = []
    for group, n in sorted(found.items()):
        need = Counter(group)
        able = sum(not need - Counter(g.types("receptacleType").values()) for g in games)
        table.append([list(group), round(n / able, 4)])
    return table


def _fit_things(games: Sequence[GameFacts], contain: dict[str, set[str]]) -> dict[str, Any]:
    """For each type of thing that can be taken, or lies in a receptacle: how many, and where.

    A type belongs to a room or it does not: `present` is the share of games whose scene ever shows the type, `counts`
    the histogram within those. `places` are choice weights (Luce): a thing goes to a type of place with probability
    weight / sum of the weights of the types this room has. They are fitted by Hunter's minorize-maximize steps (2004,
    doi:10.1214/aos/1079120141), because plain shares would punish a place for being absent from most rooms.
    """
    seen: dict[str, set[int]] = defaultdict(set)
    rows: dict[str, list[tuple[str, frozenset[str]]]] = defaultdict(list)
    taken: set[str] = set()
    for game in games:
        kinds, places, where = game.types("objectType"), game.types("receptacleType"), game.where()
        choices = frozenset(places.values()) | {NOWHERE}
        portable = game.marked("pickupable")
        toggleable = game.marked("toggleable")
        for thing, kind in kinds.items():
            if thing not in portable and thing not in toggleable and thing not in where:
                continue
            if thing in portable:
                taken.add(kind)
            seen[kind].add(game.scene)
            lies = sorted(_main_places(where.get(thing, []), places))
            rows[kind].append((lies[0] if lies else NOWHERE, choices))
    table: dict[str, Any] = {}
    for kind in sorted(rows):
        home = [g for g in games if g.scene in seen[kind]]
        counts = [_number_of(g, kind, kind in taken) for g in home]
        table[kind] = {
            "portable": kind in taken,
            "present": round(len(home) / len(games), 4),
            "counts": _count(counts),
            "places": _luce(rows[kind], {place for place, things in contain.items() if kind in things}),
        }
    return table


def _number_of(game: GameFacts, kind: str, portable: bool) -> int:
    marked, where = game.marked("pickupable"), game.where()
    lamps = game.marked("toggleable")
    return sum(
        k == kind and (thing in marked if portable else thing in where or thing in lamps)
        for thing, k in game.types("objectType").items()
    )


def _main_places(places: Iterable[str], kinds: dict[str, str]) -> list[str]:
    """Of a thing in two places, the place that explains the other comes first: a burner is on a countertop as well."""
    found = {kinds[place] for place in places}
    return sorted(found - {"CounterTop", "Dresser", "DiningTable", "Cabinet"}) or sorted(found)


def _luce(rows: Sequence[tuple[str, frozenset[str]]], possible: set[str]) -> dict[str, float]:
    wins = Counter(place for place, _ in rows)
    weight = dict.fromkeys(wins, 1.0)
    exposures = Counter(choices for _, choices in rows)
    for _ in range(100):
        fitted = {}
        for place in wins:
            exposure = sum(n / sum(weight.get(c, 0.0) for c in cs) for cs, n in exposures.items() if place in cs)
            fitted[place] = wins[place] / exposure
        total = sum(fitted.values())
        weight = {place: w / total for place, w in fitted.items()}
    # Unseen but possible places get a little: about what half an observation among all would weigh.
    floor = 0.5 / (len(rows) + 1) / max(1, len(possible))
    for place in possible:
        weight.setdefault(place, floor)
    return {place: round(w, 5) for place, w in sorted(weight.items()) if w >= 5e-6}


def _fit_doubles(games: Sequence[GameFacts]) -> list[Any]:
    """Things listed in two receptacles: [type in which it is, type in which it is as well, share of those things]."""
    pairs: Counter[tuple[str, str]] = Counter()
    lying: Counter[str] = Counter()
    for game in games:
        kinds, where, portable = game.types("receptacleType"), game.where(), game.marked("pickupable")
        for thing in portable & where.keys():
            main = _main_places(where[thing], kinds)[0]
            lying[main] += 1
            others = [kinds[place] for place in where[thing]]
            others.remove(main)
            if others:
                pairs[main, sorted(others)[0]] += 1
    return [[a, b, round(n / lying[a], 4)] for (a, b), n in sorted(pairs.items())]


def _fit_nested(games: Sequence[GameFacts]) -> float:
    """Things inside another thing (a spoon in a mug), per game."""
    return round(sum(len(g.facts.get("inReceptacleObject", [])) for g in games) / len(games), 4)


def _fit_cooled(games: Sequence[GameFacts]) -> float:
    """Share of the things in a fridge that count as cooled from the start; never so in games that ask for cooling."""
    cooled = lying = 0
    for game in games:
        if game.task_type == "pick_cool_then_place_in_recep":
            continue
        kinds, cool = game.types("receptacleType"), game.marked("isCool")
        inside = {thing for thing, place in game.facts["inReceptacle"] if kinds[place] == "Fridge"}
        lying, cooled = lying + len(inside), cooled + len(inside & cool)
    return round(cooled / lying, 4) if lying else 0.0


def dump(table: Any, depth: int = 4) -> str:
    """JSON with a line for each row: indented down to a depth, then compact."""
    if not isinstance(table, dict) or not table or depth == 0:
        return json.dumps(table, sort_keys=True)
    pad = " " * (5 - depth)
    rows = (f"{pad}{json.dumps(key)}: {dump(value, depth - 1)}" for key, value in sorted(table.items()))
    return "{\n" + ",\n".join(rows) + f"\n{pad[:-1]}}}"


if __name__ == "__main__":
    sys.stdout.write(dump(fit_tables(read_games(Path(sys.argv[1])))) + "\n")
