"""Records the golden transcripts: small rooms of our own making, played by the real engine.

    python tests/alfworld/golden/record.py        (needs leap-agents[alfworld]; writes put.json and move.json here)

The room has one of each oddity: places that share a location, things listed in two places, a thing that no place takes,
a place without a location, a thing inside another, one that is cool from the start. Each task type has two walks, one
from the planner and one at random, with commands that make no sense in between. Recorded games hold everything they
need, so they stay as they are when the generator changes.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from leap_worlds.alfworld.game import parse_game
from leap_worlds.alfworld.generator.write import domain, grammar
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.planner import plan
from leap_worlds.alfworld.textworld import TextWorldEngine

# id, type, location, openable
PLACES = (
    ("Cabinet_bar__plus_01", "Cabinet", "loc_bar_2_bar_1", True),
    ("Cabinet_bar__minus_02", "Cabinet", "loc_bar_2_bar_1", True),
    ("CounterTop_bar__plus_03", "CounterTop", "loc_bar_2_bar_1", False),
    ("DiningTable_bar__plus_04", "DiningTable", "loc_bar_3_bar_1", False),
    ("Fridge_bar__plus_05", "Fridge", "loc_bar_4_bar_1", True),
    ("Microwave_bar__plus_06", "Microwave", "loc_bar_5_bar_1", True),
    ("Sink_bar__plus_07_bar_SinkBasin", "SinkBasin", "loc_bar_6_bar_1", False),
    ("GarbageCan_bar__plus_08", "GarbageCan", "", False),
)
# id, places, attributes
THINGS = (
    ("Apple_bar__plus_01", ("CounterTop_bar__plus_03", "DiningTable_bar__plus_04"), "pick heat cool clean slice"),
    ("Apple_bar__plus_02", ("Fridge_bar__plus_05",), "pick heat cool clean slice isCool"),
    ("Mug_bar__plus_03", ("Cabinet_bar__plus_01",), "pick heat cool clean vessel"),
    ("Mug_bar__minus_04", ("CounterTop_bar__plus_03",), "pick heat cool clean vessel"),
    ("Spoon_bar__plus_05", ("DiningTable_bar__plus_04",), "pick clean"),
    ("Spoon_bar__plus_06", (), "pick clean in:Mug_bar__plus_03"),
    ("Knife_bar__plus_07", ("CounterTop_bar__plus_03",), "pick clean"),
    ("Plunger_bar__plus_08", ("DiningTable_bar__plus_04",), "pick"),
    ("DeskLamp_bar__plus_09", ("DiningTable_bar__plus_04",), "toggle"),
    ("Chair_bar__plus_10", (), ""),
)
WORDS = {
    "pick": "pickupable",
    "heat": "heatable",
    "cool": "coolable",
    "clean": "cleanable",
    "slice": "sliceable",
    "toggle": "toggleable",
    "vessel": "isReceptacleObject",
    "isCool": "isCool",
}
FITS = {
    "Cabinet": "Mug Spoon",
    "CounterTop": "Apple Mug Spoon Knife DeskLamp",
    "DiningTable": "Apple Mug Spoon Knife DeskLamp",
    "Fridge": "Apple Mug",
    "Microwave": "Apple Mug",
    "SinkBasin": "Apple Mug Spoon Knife",
    "GarbageCan": "Apple Spoon",
}


def _deliver(thing: str, place: str, extra: str = "") -> str:
    return (
        f"(and (exists (?r - receptacle) (exists (?o - object) (and (inReceptacle ?o ?r) (objectType ?o {thing}Type)"
        f" (receptacleType ?r {place}Type) {extra}))))"
    )


GOALS = {
    "place": ("put some spoon on cabinet", _deliver("Spoon", "Cabinet")),
    "clean": ("put a clean mug in diningtable", _deliver("Mug", "DiningTable", "(cleanable ?o) (isClean ?o)")),
    "heat": ("heat some apple and put it in diningtable", _deliver("Apple", "DiningTable", "(heatable ?o) (isHot ?o)")),
    "cool": ("put a cool apple in countertop", _deliver("Apple", "CounterTop", "(coolable ?o) (isCool ?o)")),
    "two": (
        "find two mug and put them in cabinet",
        _deliver(
            "Mug",
            "Cabinet",
            "(exists (?o2 - object) (and (not (= ?o ?o2)) (objectType ?o2 MugType) (receptacleType ?r CabinetType)"
            " (inReceptacle ?o2 ?r)))",
        ),
    ),
    "look": (
        "examine the mug with the desklamp",
        "(and (exists (?ot - object ?r - receptacle ?a - agent ?l - location) (and (objectType ?ot DeskLampType)"
        " (toggleable ?ot) (isToggled ?ot) (receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?ot ?r)))"
        " (exists (?o - object ?a - agent) (and (objectType ?o MugType) (holds ?a ?o))))",
    ),
}


def problem(goal: str) -> str:
    """The PDDL problem of the little room."""
    facts = ["atLocation agent1 loc_bar_9_bar_9"]
    at = {}
    for place, kind, location, openable in PLACES:
        facts.append(f"receptacleType {place} {kind}Type")
        if openable:
            facts.append(f"openable {place}")
        if location:
            at[place] = location
            facts.append(f"receptacleAtLocation {place} {location}")
    facts += [f"canContain {place}Type {thing}Type" for place, things in FITS.items() for thing in things.split()]
    for thing, places, words in THINGS:
        facts.append(f"objectType {thing} {thing.split('_')[0]}Type")
        facts += [f"inReceptacle {thing} {place}" for place in places]
        facts += [f"objectAtLocation {thing} {at[place]}" for place in places[:1]]
        for word in words.split():
            inside = word.removeprefix("in:")
            facts.append(f"{WORDS[word]} {thing}" if inside == word else f"inReceptacleObject {thing} {inside}")
    kinds = {
        "rtype": sorted({f"{kind}Type" for _, kind, _, _ in PLACES}),
        "otype": sorted({thing.split("_")[0] + "Type" for thing, _, _ in THINGS} | {"KnifeType", "ButterKnifeType"}),
        "receptacle": [place for place, *_ in PLACES],
        "object": [thing for thing, *_ in THINGS],
        "location": sorted({*at.values(), "loc_bar_9_bar_9"}),
    }
    objects = "\n".join(f"{name} - {kind}" for kind, names in kinds.items() for name in names)
    init = "\n".join(f"({fact})" for fact in facts)
    head = "(define (problem tiny) (:domain alfred)"
    return f"{head}\n(:objects\nagent1 - agent\n{objects})\n(:init\n{init})\n(:goal {goal}))"


def commands(native: NativeEngine, rng: random.Random, planned: bool) -> list[str]:
    """A walk: the plan after a few detours, or mostly at random."""
    walk: list[str] = []
    reply = native.start()

    def give(command: str) -> None:
        nonlocal reply
        walk.append(command)
        reply = native.step(command)

    for _ in range(4 if planned else 40):
        if rng.random() < 0.15:
            give(
                rng.choice(
                    ["", "dance", "examine mug 1", "open fridge 1", "take mug 1 from cabinet 2", " look ", "LOOK"]
                )
            )
        verbs = sorted({c.split()[0] for c in reply.admissible} - ({"take"} if planned else set()))
        verb = rng.choice(verbs)
        give(rng.choice([c for c in reply.admissible if c.split()[0] == verb and "plunger" not in c] or ["look"]))
    for command in plan(native) or () if planned else ():
        give(command)
    give("inventory")
    return walk


def transcript(path: Path, walk: list[str]) -> list[Any]:
    """What the real engine answers: [command, observation, won, number of the admissible list], and those lists."""
    engine = TextWorldEngine(path)
    lists: list[tuple[str, ...]] = []
    rows = []
    for command in (None, *walk):
        reply = engine.start() if command is None else engine.step(command)
        if reply.admissible not in lists:
            lists.append(reply.admissible)
        rows.append([command, reply.observation, reply.won, lists.index(reply.admissible)])
    engine.close()
    return [rows, lists]


def main() -> None:
    """Writes put.json and move.json."""
    here = Path(__file__).parent
    for dialect in ("put", "move"):
        games = []
        for kind, (sentence, goal) in GOALS.items():
            data = {
                "pddl_domain": domain(dialect),
                "grammar": grammar(sentence, dialect),
                "pddl_problem": problem(goal),
                "solvable": True,
            }
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "game.tw-pddl"
                path.write_text(json.dumps(data))
                walks = []
                for planned in (True, False):
                    rng = random.Random(f"{kind} {dialect} {planned}")
                    walk = commands(NativeEngine(parse_game(data)), rng, planned)
                    steps, admissible = transcript(path, walk)
                    walks.append({"steps": steps, "admissible": admissible})
            games.append({"kind": kind, "sentence": sentence, "problem": data["pddl_problem"], "walks": walks})
        golden = {"domain": domain(dialect), "grammar": grammar("UNKNOWN GOAL", dialect), "games": games}
        (here / f"{dialect}.json").write_text(json.dumps(golden, indent=0, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    sys.exit(main())
