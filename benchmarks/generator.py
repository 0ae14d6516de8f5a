"""Generated against official games: cost per game, and the proportions side by side.

    python benchmarks/generator.py $ALFWORLD_DATA/json_2.1.1/valid_train --real 24 | tee benchmarks/generator.log

The official games must be training games: proportions are what the generator's tables were fitted to.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from alfworld_measure import GameFacts, read_games
from leap_worlds.alfworld.game import load_game
from leap_worlds.alfworld.generator import SPLITS, GeneratorConfig, generate_game
from leap_worlds.alfworld.generator.games import GENERATOR_VERSION
from leap_worlds.alfworld.generator.tables import ROOM_KINDS, TASK_TYPES, room_kind, tables
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.planner import plan

SETTINGS = {
    "full rooms": GeneratorConfig(),
    "6-10 receptacles": GeneratorConfig(receptacles=(6, 10)),
    "6-10 receptacles, 6-14 things": GeneratorConfig(receptacles=(6, 10), objects=(6, 14)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("official", type=Path, help="folder of official training games")
    parser.add_argument("--games", type=int, default=1000, help="generated games to compare (default %(default)s)")
    parser.add_argument("--real", type=int, default=0, help="games to play on the real engine too (seconds each)")
    options = parser.parse_args()
    print(f"generator {GENERATOR_VERSION}, Python {platform.python_version()}, {platform.machine()}")
    cost()
    compare(options.official, options.games)
    if options.real:
        real_engine(options.real)


def cost(games: int = 200) -> None:
    """CPU time of one game, everything included: drawing, writing the texts, parsing them, planning."""
    print(
        f"\nms of CPU per game, {games} games each (mean, median, largest; the largest are Python's garbage collector),"
    )
    print("and scenes drawn per game")
    for name, config in SETTINGS.items():
        for split in SPLITS:
            generate_game(config, split, 0)
            times, draws = [], 0
            for index in range(games):
                start = time.process_time()
                draws += generate_game(config, split, index).draws
                times.append(1000 * (time.process_time() - start))
            mean, median = statistics.mean(times), statistics.median(times)
            print(f"  {name:32}{split:8}{mean:6.2f}{median:6.2f}{max(times):7.1f}   {draws / games:.3f}")


def real_engine(games: int, steps: int = 30) -> None:
    """Plays the plan and a random walk on both engines and compares every text, command list and win."""
    from leap_worlds.alfworld.textworld import TextWorldEngine

    won = replies = different = 0
    for index in range(games):
        size = None if index % 4 == 3 else (6, 10)
        dialect = ("put", "move")[index // 6 % 2]
        config = GeneratorConfig(balanced=True, receptacles=size, dialect=dialect)
        made, rng = generate_game(config, "train", index), random.Random(index)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "game.tw-pddl").write_text(json.dumps(made.data), encoding="utf-8")
            for commands in (list(made.walkthrough), []):
                native, real = NativeEngine(made.game), TextWorldEngine(folder)
                a, b = native.start(), real.start()
                for step in range(len(commands) or steps):
                    replies, different = replies + 1, different + (a != b)
                    command = commands[step] if commands else rng.choice(a.admissible)
                    a, b = native.step(command), real.step(command)
                replies, different = replies + 1, different + (a != b)
                won += bool(commands) and b.won
                real.close()
    print(f"\nreal engine: {won} of {games} plans win, {different} of {replies} replies differ from our engine's")


def compare(folder: Path, games: int) -> None:
    """The proportions, official beside generated, and what chance alone does to them."""
    official = read_games(folder)
    lengths = [len(plan(NativeEngine(load_game(path))) or ()) for path in sorted(folder.rglob("game.tw-pddl"))]
    made = [generate_game(GeneratorConfig(), "train", index) for index in range(games)]
    drawn = [GameFacts.parse(game.data["pddl_problem"], game.traj) for game in made]
    steps = [len(game.walkthrough) for game in made]
    solved, of = sum(n > 0 for n in steps), sum(n > 0 for n in lengths)
    print(f"\n{len(official)} official and {len(drawn)} generated training games (full rooms)")
    print(f"with a plan: official {of} of {len(lengths)}, generated {solved} of {len(steps)}\n")
    print(f"{'':52}{'official':>10}{'generated':>11}")
    for task in TASK_TYPES:
        row(f"share of {task}", *(sum(g.task_type == task for g in gs) / len(gs) for gs in (official, drawn)))
    for kind in ROOM_KINDS:
        rooms = [[g for g in gs if room_kind(g.scene) == kind] for gs in (official, drawn)]
        row(f"{kind}: share of games", len(rooms[0]) / len(official), len(rooms[1]) / len(drawn))
        for name, number in PER_ROOM.items():
            row(f"{kind}: {name}", *(mean(gs, number) for gs in rooms))
    for name, number in PER_GAME.items():
        row(name, *(mean(gs, number) for gs in (official, drawn)))
    row("shortest plan, steps", statistics.mean(lengths), statistics.mean(steps))
    for n in range(3, 12):
        row(f"share of plans of {n} steps", *(xs.count(n) / len(xs) for xs in (lengths, steps)))
    receptacles(official, drawn)
    placement(official, drawn)


def row(name: str, official: float, generated: float) -> None:
    print(f"{name:52}{official:10.2f}{generated:11.2f}")


def mean(games: Sequence[GameFacts], number: Callable[[GameFacts], float]) -> float:
    return statistics.mean(number(g) for g in games) if games else 0.0


def hidden(game: GameFacts) -> int:
    return len(game.marked("pickupable") - game.where().keys())


def shares_location(game: GameFacts) -> bool:
    return any(len(group) > 1 for group in game.groups())


def has_double(game: GameFacts) -> bool:
    portable = game.marked("pickupable")
    return any(len(at) > 1 for thing, at in game.where().items() if thing in portable)


def has_trap(game: GameFacts, reach: bool = False) -> bool:
    kinds, where = game.types("objectType"), game.where()
    return any(kinds[o] in tables().traps and (o in where or not reach) for o in game.marked("pickupable"))


def wanted(game: GameFacts) -> int:
    return sum(kind == game.target for kind in game.types("objectType").values())


def placed(game: GameFacts) -> int:
    kinds, types = game.types("objectType"), game.types("receptacleType")
    return sum(
        kinds[thing] == game.target and any(types[p] == game.destination for p in at)
        for thing, at in game.where().items()
    )


PER_ROOM: dict[str, Callable[[GameFacts], float]] = {
    "receptacles": lambda g: len(g.facts["receptacleType"]),
    "openable receptacles": lambda g: len(g.marked("openable")),
    "locations with a receptacle": lambda g: len(g.groups()),
    "portable things": lambda g: len(g.marked("pickupable")),
    "of them in no receptacle": hidden,
}
PER_GAME: dict[str, Callable[[GameFacts], float]] = {
    "games with receptacles at one location": shares_location,
    "games with a thing in two receptacles": has_double,
    "games with a thing no receptacle can hold": has_trap,
    "games with such a thing in reach": lambda g: has_trap(g, reach=True),
    "games with a thing in another thing": lambda g: bool(g.facts.get("inReceptacleObject")),
    "wanted things per game": wanted,
    "wanted things already at the destination": placed,
}


def receptacles(official: Sequence[GameFacts], generated: Sequence[GameFacts]) -> None:
    """Mean number of each type of receptacle, for the ten that a kind of room has most of."""
    print("\nreceptacles per room (official / generated)")
    for kind in ROOM_KINDS:
        means = []
        for games in (official, generated):
            rooms = [Counter(g.types("receptacleType").values()) for g in games if room_kind(g.scene) == kind]
            means.append({k: n / len(rooms) for k, n in sum(rooms, Counter()).items()})
        usual = sorted(means[0], key=means[0].__getitem__, reverse=True)[:10]
        print(f"  {kind}: " + ", ".join(f"{k} {means[0][k]:.1f}/{means[1].get(k, 0):.1f}" for k in usual))


def placement(official: Sequence[GameFacts], generated: Sequence[GameFacts]) -> None:
    """How far apart the distributions of things over types of places are, and how far chance alone sets them apart.

    Total variation distance (0 equal, 1 disjoint), averaged over pairs of room kind and type of thing by their number.
    The tables were fitted to these very official games, so the first number is below what other games would show.
    """
    print("\nwhere things are: total variation distance of the types of places, averaged over things")
    rng = random.Random(0)
    part = rng.sample(range(len(generated)), len(official))
    some, others = [generated[i] for i in part], [g for i, g in enumerate(generated) if i not in set(part)]
    half = set(rng.sample(range(len(official)), len(official) // 2))
    first, second = ([g for i, g in enumerate(official) if (i in half) == side] for side in (True, False))
    print(f"  {distance(official, generated):.3f}  official ({len(official)}) against generated ({len(generated)})")
    print(f"  {distance(some, others):.3f}  chance alone: {len(some)} generated against the other {len(others)}")
    print(f"  {distance(first, second):.3f}  chance and fewer games: one half of the official ones against the other")
    print("\n  examples (official / generated)")
    a, b = places(official), places(generated)
    for key in EXAMPLES:
        cells = (
            f"{place or 'nowhere'} {n / a[key].total():.0%}/{b[key][place] / b[key].total():.0%}"
            for place, n in a[key].most_common(7)
        )
        print(f"  {' '.join(key)}: {', '.join(cells)}")


EXAMPLES = (
    ("kitchen", "Mug"),
    ("kitchen", "Apple"),
    ("kitchen", "Knife"),
    ("livingroom", "RemoteControl"),
    ("bedroom", "CellPhone"),
    ("bathroom", "SoapBottle"),
)


def places(games: Sequence[GameFacts]) -> dict[tuple[str, str], Counter[str]]:
    table: dict[tuple[str, str], Counter[str]] = {}
    for game in games:
        kinds, types, where = game.types("objectType"), game.types("receptacleType"), game.where()
        for thing in game.marked("pickupable"):
            at = [types[p] for p in where.get(thing, ())] or [""]
            for place in at:
                table.setdefault((room_kind(game.scene), kinds[thing]), Counter())[place] += 1
    return table


def distance(first: Sequence[GameFacts], second: Sequence[GameFacts]) -> float:
    a, b = places(first), places(second)
    total = weight = 0.0
    for key in a.keys() & b.keys():
        gap = sum(abs(a[key][p] / a[key].total() - b[key][p] / b[key].total()) for p in {*a[key], *b[key]}) / 2
        total, weight = total + gap * a[key].total(), weight + a[key].total()
    return total / weight


if __name__ == "__main__":
    main()
