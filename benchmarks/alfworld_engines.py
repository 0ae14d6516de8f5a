"""Compares the native ALFWorld engine with the real one: what they say, how fast they are, how short the plans are.

    python benchmarks/alfworld_engines.py differential [--dialect put|move] [--unmodified] [--games N]
    python benchmarks/alfworld_engines.py speed
    python benchmarks/alfworld_engines.py planner [--games N]

Needs `pip install 'leap-agents[alfworld]'` and official games in the 2.1.1 dialect: $ALFWORLD_DATA, or --data. Games in
the later dialect are made from them as ALFWorld's own upgrade does: the installed domain and grammar, with the game's
task sentence. Each command prints what it ran, the versions and n; `alfworld_engines.log` holds the last full run.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from leap_worlds.alfworld.engine import Reply
from leap_worlds.alfworld.game import read_game_file
from leap_worlds.alfworld.native import NativeEngine
from leap_worlds.alfworld.planner import plan
from leap_worlds.alfworld.textworld import TextWorldEngine

WALKS = ("random", "planner", "mixed")
_TASK = re.compile(r"Your task is to: (.*?)\.?\"")


def official_games(root: Path) -> list[Path]:
    """Playable games by ALFWorld's own rule, sorted; movable, sliced and unsolvable ones are left out."""
    found = []
    for path in sorted(root.glob("json_2.1.1/*/*/*/game.tw-pddl")):
        if "movable" in str(path) or "Sliced" in str(path) or not (path.parent / "traj_data.json").exists():
            continue
        if read_game_file(path).get("solvable"):
            found.append(path)
    if not found:
        sys.exit(f"no playable games under {root}/json_2.1.1; set ALFWORLD_DATA or give --data.")
    return found


def upgraded(path: Path, folder: Path) -> Path:
    """The game in the later dialect: the installed alfworld's domain and grammar with the game's own task sentence."""
    import alfworld  # type: ignore[import-untyped]

    data_folder = Path(alfworld.__path__[0]) / "data"
    data = read_game_file(path)
    task = _TASK.search(data["grammar"])
    assert task is not None
    data["pddl_domain"] = (data_folder / "alfred.pddl").read_text()
    data["grammar"] = (data_folder / "alfred.twl2").read_text().replace("UNKNOWN GOAL", task.group(1))
    target = folder / "game.tw-pddl"
    target.write_text(json.dumps(data))
    return target


def accelerate_reference() -> None:
    """Makes the real engine bearable for long comparisons without touching what it derives.

    Remembers translations (of a game's four identical ones two are needed: the second kind only serves upstream's
    planner, which a comparison of texts does not ask), parses of text templates, and the command string of an operator;
    copies of contexts become shallow. Every text is still derived by TextWorld's grammar from TextWorld's state.
    """
    import fast_downward  # type: ignore[import-untyped]
    from textworld.envs.pddl import textgen  # type: ignore[import-untyped]

    translate, parse, derive = (
        fast_downward.pddl2sas,
        textgen._parse_and_convert,
        textgen.ContextSensitiveGrammar.derive,
    )
    rule = textgen.Rule
    cached_translation = lru_cache(maxsize=2)(lambda domain, problem: translate(domain, problem))
    cached_parse = lru_cache(maxsize=None)(lambda text, rule_name: parse(text, rule_name=rule_name))
    commands: dict[tuple[Any, ...], str] = {}

    def derive_once(self: Any, start: str, context: dict[str, Any]) -> str:
        if "#" in start:
            return derive(self, start, context)
        key = (id(context["entity_infos"]), start, *((p.name, v.name) for p, v in context["mapping"].items()))
        if key not in commands:
            commands[key] = derive(self, start, context)
        return commands[key]

    class Rules:
        parse_conjunctive_query = staticmethod(lru_cache(maxsize=None)(rule.parse_conjunctive_query))

    def shallow(context: dict[str, Any]) -> dict[str, Any]:
        return {**context, "variables": dict(context["variables"]), "mapping": dict(context["mapping"])}

    fast_downward.pddl2sas = lambda domain, problem, verbose=False, optimize=False: cached_translation(domain, problem)
    textgen._parse_and_convert = lambda text, rule_name, trace=False: copy.deepcopy(cached_parse(text, rule_name))
    textgen.ContextSensitiveGrammar.derive = derive_once  # type: ignore[assignment]
    textgen.Rule = Rules
    textgen.copy_context = shallow
    accelerate_reference.commands = commands  # type: ignore[attr-defined]


def commands_of_walk(kind: str, engine: NativeEngine, rng: random.Random, steps: int) -> Iterator[str]:
    """Commands for the engine's present state; reads the native engine, which has been stepped before the next one."""
    known = ["", "dance", "take", "go to nowhere 1", "examine  desk 1", "LOOK", "put mug 1 in/on", "help"]
    for i in range(steps):
        admissible = engine.restore(engine.state).admissible
        known += [c for c in admissible if rng.random() < 0.05]
        roll = rng.random()
        if kind == "planner" or (kind == "mixed" and roll < 0.4):
            todo = plan(engine)
            if todo:
                yield todo[0]
                continue
            if kind == "planner" and i > 3 and roll < 0.2:
                return
        if roll > 0.88:
            yield rng.choice([rng.choice(known), f"  {rng.choice(admissible)} ", rng.choice(admissible).upper()])
        elif roll > 0.6:
            yield rng.choice(admissible)
        else:  # `go to` outnumbers the rest; choose the verb first
            verb = rng.choice(sorted({c.split()[0] for c in admissible}))
            yield rng.choice([c for c in admissible if c.split()[0] == verb])


def differential(games: list[Path], dialects: list[str], unmodified: bool, seed: int, steps: int) -> int:
    """Plays the same commands on both engines and compares text, admissible commands, won, score and hidden state."""
    if not unmodified:
        accelerate_reference()
    counts: Counter[str] = Counter()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for number, original in enumerate(games):
            for dialect in dialects:
                path = upgraded(original, Path(folder)) if dialect == "move" else original
                real = TextWorldEngine(path)
                for kind in WALKS[number % 3 :][:1] if unmodified else WALKS:
                    if not unmodified:
                        accelerate_reference.commands.clear()  # type: ignore[attr-defined]
                    rng = random.Random(f"{seed} {number} {dialect} {kind}")
                    mismatch = _walk(real, NativeEngine(path), kind, rng, steps, counts)
                    counts[f"walks {dialect}"] += 1
                    if mismatch:
                        counts["mismatches"] += 1
                        print(f"MISMATCH {original.parent.name} {dialect} {kind}: {mismatch}", flush=True)
                real.close()
                counts[f"games {dialect}"] += 1
            if (number + 1) % 20 == 0:
                print(
                    f"  {number + 1}/{len(games)} games, {time.process_time() - began:.0f} s CPU, {dict(counts)}",
                    flush=True,
                )
    total = sum(counts[f"steps {kind}"] for kind in WALKS)
    print(f"differential: {total} steps, {counts['mismatches']} mismatches; {dict(counts)}")
    return counts["mismatches"]


def _walk(
    real: TextWorldEngine, native: NativeEngine, kind: str, rng: random.Random, steps: int, counts: Counter[str]
) -> str:
    theirs, ours = real.start(), native.start()
    last = "(start)"
    walk = commands_of_walk(kind, native, rng, steps)
    while True:
        for name, a, b in (*zip(Reply._fields, theirs, ours, strict=True), ("state", real.state, native.state)):
            if a != b:
                return f"after {last!r} {name}: real {a!r}, native {b!r}"
        last = next(walk, None)
        if last is None:
            break
        before = ours.won
        theirs, ours = real.step(last), native.step(last)
        counts[f"steps {kind}"] += 1
        counts["nothing happens"] += ours.observation == "Nothing happens."
        counts["wins"] += ours.won and not before
        counts["verb " + last.split()[0] if ours.observation != "Nothing happens." else "invalid"] += 1
    return ""


def speed(games: list[Path], repeats: int) -> None:
    """CPU time of both engines on the smallest, the median and the largest room; the real one as in AlfredTWEnv."""
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler  # type: ignore[import-untyped]
    from textworld import EnvInfos  # type: ignore[import-untyped]
    from textworld.envs.pddl import PddlEnv  # type: ignore[import-untyped]

    by_size = sorted(games, key=lambda path: len(NativeEngine(path).game.receptacles))
    print("room (receptacles) | load+reset ms: real, native, ratio | step ms: real, native, ratio | native steps/s")
    for path in (by_size[0], by_size[len(by_size) // 2], by_size[-1]):
        rng = random.Random(0)
        engine = NativeEngine(path)
        reply, walk = engine.start(), []
        for _ in range(30):
            todo = plan(engine) if rng.random() < 0.3 else None
            walk.append(todo[0] if todo else rng.choice(reply.admissible))
            reply = engine.step(walk[-1])

        def open_real(path: Path = path) -> Any:
            env = AlfredDemangler(shuffle=False)(PddlEnv(EnvInfos(won=True, admissible_commands=True)))
            env.load(str(path))
            env.reset()
            return env

        def open_native(path: Path = path) -> NativeEngine:
            from leap_worlds.alfworld.game import parse_game

            opened = NativeEngine(parse_game(read_game_file(path)))  # past the cache of parsed games
            opened.start()
            return opened

        arguments = sys.argv
        real_open, env = _timed(open_real, 3)
        real_step, _ = _timed(lambda env=env, walk=walk: [env.step(c) for c in walk], 1)
        sys.argv = arguments
        native_open, _ = _timed(open_native, 20)
        runs = []
        for _ in range(repeats):
            fresh = NativeEngine(path)
            fresh.start()
            runs.append(_timed(lambda fresh=fresh, walk=walk: [fresh.step(c) for c in walk], 1)[0])
        native_step = statistics.median(runs) / len(walk)
        real_step /= len(walk)
        print(
            f"{path.parent.parent.name.rsplit('-', 1)[1]} ({len(engine.game.receptacles)}) | "
            f"{real_open:.0f}, {native_open:.2f}, {real_open / native_open:.0f}x | "
            f"{real_step:.1f}, {native_step:.4f}, {real_step / native_step:.0f}x | {1000 / native_step:.0f}",
            flush=True,
        )


def _timed(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median CPU milliseconds, and what the last call gave."""
    times, result = [], None
    for _ in range(repeats):
        began = time.process_time()
        result = function()
        times.append((time.process_time() - began) * 1000)
    return statistics.median(times), result


def planner(games: list[Path], sample: int, seed: int, limit_s: float) -> int:
    """Plan lengths against fast-downward's, from the start and from states after 8 and 16 steps; and planning time."""
    times: list[float] = []
    dead = 0
    for path in games:
        engine, rng = NativeEngine(path), random.Random(f"{seed} {path.parent.name}")
        reply = engine.start()
        for turn in range(4):
            began = time.process_time()
            todo = plan(engine)
            times.append((time.process_time() - began) * 1000)
            before = engine.state
            if todo is None:
                dead += 1
            elif todo:
                wins = [engine.step(c).won for c in todo]
                assert wins.index(True) == len(wins) - 1, f"{path}: plan {todo} wins at {wins}"
            reply = engine.restore(before)
            for _ in range(8 * (turn < 3)):
                reply = engine.step(rng.choice(reply.admissible))
    print(
        f"planner: {len(times)} plans on {len(games)} games, each wins exactly at its last step, {dead} dead ends; "
        f"mean {statistics.mean(times):.3f} ms, median {statistics.median(times):.3f}, max {max(times):.2f} ms"
    )
    by_type: dict[str, list[Path]] = {}
    for path in games:
        by_type.setdefault(path.parent.parent.name.split("-")[0], []).append(path)
    rng = random.Random(seed)
    chosen = [p for paths in by_type.values() for p in rng.sample(paths, min(len(paths), sample // len(by_type)))]
    counts: Counter[str] = Counter()
    taken: list[tuple[float, float]] = []
    context = multiprocessing.get_context("spawn")
    for number, path in enumerate(chosen):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_fast_downward_lengths, args=(path, f"{seed} {number}", sender), daemon=True)
        child.start()
        sender.close()
        deadline = time.monotonic() + limit_s
        try:
            while receiver.poll(max(0.0, deadline - time.monotonic())):
                theirs, ours, *cpu = receiver.recv()
                taken.append((cpu[0], cpu[1]))
                counts["compared"] += 1
                counts["equal" if theirs == ours else "different"] += 1
                if theirs != ours:
                    print(f"DIFFERENT {path.parent.name}: fast-downward {theirs}, ours {ours}", flush=True)
            counts["states unfinished in the limit"] += 1
        except EOFError:
            counts["games done"] += 1
        child.kill()
        child.join()
    print(
        f"planner against fast-downward (step-optimal), {len(chosen)} games, {limit_s:.0f} s each: {dict(counts)}"
    )
    if taken:
        real, native = (statistics.median(one) for one in zip(*taken, strict=True))
        print(f"planning, median CPU ms: fast-downward {real:.1f}, native {native:.3f}")
    return counts["different"]


def _fast_downward_lengths(path: Path, seed: str, sender: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    rng, real, native = random.Random(seed), TextWorldEngine(path), NativeEngine(path)
    reply = real.start()
    native.start()
    for turn in range(3):
        for _ in range(8 * (turn > 0)):
            verb = rng.choice(sorted({c.split()[0] for c in reply.admissible}))
            command = rng.choice([c for c in reply.admissible if c.split()[0] == verb])
            reply = real.step(command)
            native.step(command)
        began = time.process_time()
        todo = plan(native)
        planned = time.process_time()
        theirs = real._env._pddl_state.replan(real._env._entity_infos)
        cpu = ((time.process_time() - planned) * 1000, (planned - began) * 1000)
        sender.send((len(theirs), 0 if todo is None else len(todo), *cpu))
    sender.close()


def main() -> int:
    """Runs one part; the exit status is 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["differential", "speed", "planner"])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ALFWORLD_DATA", "~/.cache/alfworld")))
    parser.add_argument("--dialect", choices=["put", "move", "both"], default="both")
    parser.add_argument("--unmodified", action="store_true", help="do not accelerate the real engine; one walk a game")
    parser.add_argument("--games", type=int, default=0, help="an evenly spaced sample; 0 means all")
    parser.add_argument("--steps", type=int, default=25, help="steps of a walk")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=60, help="planner: seconds per game for fast-downward")
    options = parser.parse_args()
    everything = official_games(options.data.expanduser())
    games = everything
    if options.games and options.part != "planner":
        games = [everything[i * len(everything) // options.games] for i in range(min(options.games, len(everything)))]
    arguments = " ".join(a for a in sys.argv[1:] if "/" not in a and a != "--data")
    print(f"$ python benchmarks/alfworld_engines.py {arguments}")
    packages = ", ".join(f"{name} {version(name)}" for name in ("alfworld", "textworld", "fast-downward-textworld"))
    print(
        f"# {packages}, Python {platform.python_version()}; n = {len(games)} of {len(everything)} official games",
        flush=True,
    )
    if options.part == "speed":
        speed(games, repeats=50)
        return 0
    if options.part == "planner":
        return min(1, planner(games, options.games or 60, options.seed, options.limit_s))
    how = "unmodified" if options.unmodified else "accelerated (remembered translations, parses, command strings)"
    print(f"# reference: the real engine, {how}; state compared too", flush=True)
    dialects = ["put", "move"] if options.dialect == "both" else [options.dialect]
    return min(1, differential(games, dialects, options.unmodified, options.seed, options.steps))


if __name__ == "__main__":
    sys.exit(main())
