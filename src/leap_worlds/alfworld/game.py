"""Reads a `game.tw-pddl` file: what is in the room, what can be done with it, and what is wanted.

The file is JSON with a PDDL domain, a text grammar and a PDDL problem (written by ALFWorld's `alfworld-generate`). All
games share one domain, so nothing here parses PDDL in general: the facts of `(:init ...)` and the shape of
`(:goal ...)` are read with regular expressions, which takes a few milliseconds instead of a second.

Two dialects exist: ALFWorld's json_2.1.1 release says `put mug 1 in/on desk 1` and `You arrive at loc 7.`, the later
ones say `move mug 1 to desk 1` and `You arrive at desk 1.` The grammar inside each file tells which one it is.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from leap.core import JsonObject
from leap.errors import PrerequisiteError

Dialect = Literal["put", "move"]
GoalKind = Literal["place", "clean", "heat", "cool", "two", "look"]

_FACT = re.compile(r"\(\s*([^\s()]+)((?:\s+[^\s()]+)*)\s*\)")
_SECTIONS = re.compile(r"\(\s*:init\b(.*)\(\s*:goal\b(.*?)(?:\(\s*:metric\b.*)?$", re.DOTALL)
_TASK = re.compile(r'"task"\s*:\s*\[\s*\{\s*"rhs"\s*:\s*("(?:[^"\\]|\\.)*")')
_HELP = re.compile(r'"help\.feedback"\s*:\s*\[\s*\{\s*"rhs"\s*:\s*("(?:[^"\\]|\\.)*")')
_PUT_TEMPLATE = re.compile(r'action\s+PutObject\s*\{\s*template\s*::\s*"([^"]*)"')
_COMMENT = re.compile(r";[^\n]*")
_TASK_PREFIX = "Your task is to: "
_DIALECTS: dict[str, Dialect] = {"put {o} in/on {r}": "put", "move {o} to {r}": "move"}
_TREATMENTS: dict[str, GoalKind] = {"isclean": "clean", "ishot": "heat", "iscool": "cool"}
_ABILITIES = ("openable", "pickupable", "cleanable", "heatable", "coolable", "toggleable", "sliceable")
_GOAL_TEXT = """exists and not = objecttype receptacletype inreceptacle holds atlocation istoggled receptacleatlocation
toggleable cleanable heatable coolable"""
_GOAL_WORDS = {*_GOAL_TEXT.split(), *_TREATMENTS}
APPLIANCES: Mapping[str, str] = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}


class GameError(PrerequisiteError, ValueError):
    """A game file that is missing, damaged or not an ALFWorld game. The message names the file and what to do."""


class Goal(NamedTuple):
    """What is wanted, as the PDDL goal says it (not the task sentence, which may be anybody's words).

    Attributes:
        kind: place, clean, heat, cool, two or look.
        objects: All things of the wanted type that can fulfil the goal, in the order of their ids.
        targets: The receptacles to put them in; for look, the lamps to use.
        object_type, target_type: The wanted type ("mug"), and the receptacle's or lamp's.
    """

    kind: GoalKind
    objects: tuple[str, ...]
    targets: tuple[str, ...]
    object_type: str
    target_type: str


@dataclass(frozen=True, slots=True)
class State:
    """Everything about a game that can change. Immutable: a snapshot is the state itself.

    Attributes:
        location, holding: Where the agent is ("loc 7"), and what is in hand.
        contents: What is in or on each receptacle, in the order of the objects' ids. An object can be listed in two
            receptacles (230 of 474 official games have one): taking it from one leaves it in the other.
        opened: Receptacles that are open.
        clean, hot, cool, toggled, sliced: Things that are so.
        lying: PDDL's `objectAtLocation`, pairs (object, location). Only slicing and `look` read it.
        removed: Pairs (object, receptacle) from which the object was taken and not put back. Only `look` reads it.
    """

    location: str
    holding: str | None
    contents: Mapping[str, tuple[str, ...]]
    opened: frozenset[str]
    clean: frozenset[str]
    hot: frozenset[str]
    cool: frozenset[str]
    toggled: frozenset[str]
    sliced: frozenset[str]
    lying: frozenset[tuple[str, str]]
    removed: frozenset[tuple[str, str]] = frozenset()

    def where(self, thing: str) -> tuple[str, ...]:
        """The receptacles a thing is in or on; empty for one in hand (and for fixtures that stand on their own)."""
        return tuple(r for r, inside in self.contents.items() if thing in inside)


@dataclass(frozen=True, eq=False)
class Game:
    """A parsed game. Things, receptacles and locations go by the names the texts use ("mug 1", "loc 7").

    Attributes:
        path: The file, or a word for where the data came from.
        dialect: "put" (json_2.1.1) or "move" (2.1.2 and later).
        task: The task sentence as the file has it, after "Your task is to: ".
        help_text: What `help` answers; None where the dialect has no such command.
        objects, receptacles: Things and places in the order of their ids, in which texts list them.
        location: Where each reachable receptacle is; some official receptacles have no location.
        types: Type of each thing and receptacle ("mug", "sinkbasin").
        can_contain: Pairs (receptacle type, object type).
        openable, pickupable, cleanable, heatable, coolable, toggleable, sliceable: What can be done with what.
        vessels, inside: Things that can hold things (`isReceptacleObject`), and what lies in each, which never changes.
        cleaning_types: Receptacle types that clean.
        goal, initial: What is wanted, and the state at the start.
        names: PDDL id (lower case) to name.
    """

    path: str
    dialect: Dialect
    task: str
    help_text: str | None
    objects: tuple[str, ...]
    receptacles: tuple[str, ...]
    location: Mapping[str, str]
    types: Mapping[str, str]
    can_contain: frozenset[tuple[str, str]]
    openable: frozenset[str]
    pickupable: frozenset[str]
    cleanable: frozenset[str]
    heatable: frozenset[str]
    coolable: frozenset[str]
    toggleable: frozenset[str]
    sliceable: frozenset[str]
    vessels: frozenset[str]
    inside: Mapping[str, tuple[str, ...]]
    cleaning_types: frozenset[str]
    goal: Goal
    initial: State
    names: Mapping[str, str] = field(repr=False)

    def accepts(self, receptacle: str, thing: str) -> bool:
        """Whether the receptacle may ever contain the thing (PDDL's `canContain` on their types)."""
        return (self.types.get(receptacle, ""), self.types.get(thing, "")) in self.can_contain

    def put_command(self, thing: str, receptacle: str) -> str:
        """The command that puts a thing down, in the game's own dialect."""
        return f"put {thing} in/on {receptacle}" if self.dialect == "put" else f"move {thing} to {receptacle}"

    def won(self, state: State) -> bool:
        """Whether the goal holds."""
        kind, objects, targets, _, _ = self.goal
        if kind == "look":
            return state.holding in objects and any(
                lamp in state.toggled and any(self.location.get(r) == state.location for r in state.where(lamp))
                for lamp in targets
            )
        if kind == "two":
            return any(sum(o in objects for o in state.contents.get(r, ())) >= 2 for r in targets)
        treated = state.clean if kind == "clean" else state.hot if kind == "heat" else state.cool
        return any(
            o in objects and (kind == "place" or o in treated) for r in targets for o in state.contents.get(r, ())
        )


def load_game(path: str | Path) -> Game:
    """Parses a `game.tw-pddl` file, given it or its folder. Recent games are kept, keyed by the file's size and time.

    Raises:
        GameError: The file is missing, damaged or not an ALFWorld game.
    """
    file = Path(path)
    if file.is_dir():
        file /= "game.tw-pddl"
    try:
        stat = file.stat()
    except OSError as error:
        raise GameError(
            f"{file}: no such game file; check $ALFWORLD_DATA, or get the data with `leap data alfworld`."
        ) from error
    return _load(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)  # about 0.2 MB a game
def _load(file: Path, mtime_ns: int, size: int) -> Game:
    return parse_game(read_game_file(file), str(file))


def read_game_file(path: Path) -> JsonObject:
    """The JSON object of a game file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GameError(f"{path}: cannot be read ({error.strerror or error}); check its rights.") from error
    except (ValueError, RecursionError) as error:
        raise GameError(f"{path}: damaged game file ({error}); unpack or generate it again.") from error
    if not isinstance(data, dict):
        raise GameError(f"{path}: not an ALFWorld game (no JSON object); expected a game.tw-pddl file.")
    return data


def parse_game(data: JsonObject, path: str = "<memory>") -> Game:
    """Makes a `Game` of a game file's JSON object; a `GameError` where it is not one of a known dialect."""
    parts = [data.get(key) for key in ("pddl_domain", "grammar", "pddl_problem")]
    if not all(isinstance(part, str) for part in parts):
        raise GameError(f"{path}: not an ALFWorld game (pddl_domain, grammar or pddl_problem is missing).")
    domain, grammar, problem = (str(part) for part in parts)
    problem = _COMMENT.sub("", problem).lower()
    sections = _SECTIONS.search(problem)
    if sections is None:
        raise GameError(f"{path}: damaged game (no :init and :goal in its problem); unpack or generate it again.")

    facts: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for predicate, arguments in _FACT.findall(sections.group(1)):
        facts[predicate].append(tuple(arguments.split()))
    if not facts["receptacletype"] or len(facts["atlocation"]) != 1 or facts["holds"]:
        raise GameError(f"{path}: not an ALFWorld game (expected: a room with receptacles, one agent with free hands).")
    try:
        return _build(path, domain, grammar, sections.group(2), facts)
    except (IndexError, KeyError, ValueError) as error:
        if isinstance(error, GameError):
            raise
        what = f"{type(error).__name__}: {error}"
        raise GameError(f"{path}: damaged game ({what}); unpack or generate it again.") from error


def human_names(ids: Iterable[str]) -> dict[str, str]:
    """Names by the rule of ALFWorld's AlfredDemangler (without domain randomization).

    The class is what stands before the first `_bar_`, with "basin" appended where the id mentions one; numbers are
    handed out downwards along the sorted ids, so the last id of a class is number 1.
    """
    ordered = sorted(set(ids))
    classes = {i: i.split("_bar_", 1)[0] + ("basin" if "basin" in i else "") for i in ordered if "_bar_" in i}
    left = Counter(classes.values())
    names = {}
    for identifier in ordered:
        if kind := classes.get(identifier):
            names[identifier] = f"{kind} {left[kind]}"
            left[kind] -= 1
        else:
            names[identifier] = f"{identifier} "  # so upstream: a name without a number keeps the space
    return names


def _build(path: str, domain: str, grammar: str, goal: str, facts: Mapping[str, list[tuple[str, ...]]]) -> Game:
    names = human_names(argument for rows in facts.values() for row in rows for argument in row)
    order = {name: rank for rank, name in enumerate(names.values())}  # names come sorted by id
    named = defaultdict(list, {p: [tuple(names[a] for a in row) for row in rows] for p, rows in facts.items()})

    def one(predicate: str) -> frozenset[str]:
        return frozenset(row[0] for row in named[predicate])

    def in_order(some: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(some, key=order.__getitem__))

    types: dict[str, str] = {}
    for predicate in ("receptacletype", "objecttype"):
        for identifier, kind in facts.get(predicate, ()):
            if types.setdefault(names[identifier], kind.removesuffix("type")) != kind.removesuffix("type"):
                raise GameError(f"{path}: {names[identifier]} has two types; that is no official ALFWorld game.")
    location: dict[str, str] = {}
    for receptacle, place in named["receptacleatlocation"]:
        if location.setdefault(receptacle, place) != place:
            raise GameError(f"{path}: {receptacle} stands at two locations; that is no official ALFWorld game.")

    held_in = named["inreceptacle"]
    receptacles = in_order(one("receptacletype") | set(location) | {r for _, r in held_in})
    objects = in_order(one("objecttype") | {o for o, _ in held_in} | one("pickupable"))
    vessels: defaultdict[str, set[str]] = defaultdict(set)
    for inner, outer in named["inreceptacleobject"]:
        vessels[outer].add(inner)

    code = _COMMENT.sub("", domain).lower()
    cleaner = code[code.find("cleanobject") :].partition("(:action")[0]
    return Game(
        path=path,
        dialect=_dialect(path, grammar),
        task=_task(path, grammar),
        help_text=_help(grammar),
        objects=objects,
        receptacles=receptacles,
        location={r: location[r] for r in receptacles if r in location},
        types=types,
        can_contain=frozenset((r.removesuffix("type"), o.removesuffix("type")) for r, o in facts.get("cancontain", ())),
        **{ability: one(ability) for ability in _ABILITIES},
        vessels=one("isreceptacleobject"),
        inside={outer: in_order(inner) for outer, inner in vessels.items()},
        cleaning_types=frozenset({"sinkbasin", "sink"} if "?r sinktype" in cleaner else {"sinkbasin"}),
        goal=_goal(path, goal, types, {ability: one(ability) for ability in _ABILITIES}, order),
        initial=read_state(named, objects, receptacles),
        names=names,
    )


def read_state(facts: Mapping[str, list[tuple[str, ...]]], objects: Iterable[str], receptacles: Iterable[str]) -> State:
    """The state that facts describe, given a game's things and places; a predicate that holds of nothing is []."""
    rank = {thing: place for place, thing in enumerate(objects)}
    contents: dict[str, set[str]] = {receptacle: set() for receptacle in receptacles}
    for thing, receptacle in facts["inreceptacle"]:
        contents[receptacle].add(thing)

    def one(predicate: str) -> frozenset[str]:
        return frozenset(row[0] for row in facts[predicate])

    return State(
        location=facts["atlocation"][0][1],
        holding=next((row[1] for row in facts["holds"]), None),
        contents={r: tuple(sorted(inside, key=rank.__getitem__)) for r, inside in contents.items()},
        opened=one("opened"),
        clean=one("isclean"),
        hot=one("ishot"),
        cool=one("iscool"),
        toggled=one("istoggled"),
        sliced=one("issliced"),
        lying=frozenset((thing, at) for thing, at in facts["objectatlocation"]),
        removed=frozenset((thing, receptacle) for thing, receptacle in facts["not_inreceptacle"]),
    )


def _grammar_string(literal: str) -> str:
    # The grammar is JSON inside a block of text, and its own parser turns an escaped backslash-n into a new line again.
    return str(json.loads(literal)).replace("\\n", "\n")


def _dialect(path: str, grammar: str) -> Dialect:
    match = _PUT_TEMPLATE.search(grammar)
    dialect = _DIALECTS.get(match.group(1)) if match else None
    if dialect is None or ("{lend.name}" in grammar) != (dialect == "put"):
        raise GameError(
            f"{path}: its grammar is neither that of ALFWorld 2.1.1 (put ... in/on ...) nor that of 2.1.2 and later "
            "(move ... to ...); play it with the textworld engine."
        )
    return dialect


def _task(path: str, grammar: str) -> str:
    match = _TASK.search(grammar)
    sentence = _grammar_string(match.group(1)) if match else ""
    if not sentence.startswith(_TASK_PREFIX):
        raise GameError(f"{path}: its grammar has no task sentence ('{_TASK_PREFIX}...'); generate the game again.")
    return sentence.removeprefix(_TASK_PREFIX)


def _help(grammar: str) -> str | None:
    match = _HELP.search(grammar) if "action help" in grammar else None
    # TextWorld's grammar parser skips the white space that a text begins with.
    return _grammar_string(match.group(1)).lstrip() if match else None


def _goal(
    path: str, text: str, types: Mapping[str, str], able: Mapping[str, frozenset[str]], order: Mapping[str, int]
) -> Goal:
    """Reads the goal by its atoms; the six official shapes differ in them (alfworld's `gen/goal_library.py`)."""
    atoms = _FACT.findall(text)
    used = set(re.findall(r"\(\s*([^\s()?:]+)", text))
    kinds: list[GoalKind] = [_TREATMENTS[p] for p in sorted(used) if p in _TREATMENTS]
    other = GameError(f"{path}: its goal is none of the six text tasks (sliced or movable ones are not playable).")
    if used - _GOAL_WORDS or len(kinds) > 1:
        raise other
    by_variable = {v: t.removesuffix("type") for p, a in atoms if p == "objecttype" for v, t in [a.split()]}
    places = {a.split()[1].removesuffix("type") for p, a in atoms if p == "receptacletype"}

    def things(kind: str, *abilities: str) -> tuple[str, ...]:
        fit = (o for o, t in types.items() if t == kind and all(o in able[a] for a in abilities if a in used))
        return tuple(sorted(fit, key=order.__getitem__))

    if "istoggled" in used:
        lamp = next(by_variable[a.strip()] for p, a in atoms if p == "istoggled")
        thing = next(by_variable[a.split()[1]] for p, a in atoms if p == "holds")
        return Goal("look", things(thing), things(lamp, "toggleable"), thing, lamp)
    (thing,), (place,) = set(by_variable.values()), places
    targets = things(place)
    kind: GoalKind = "two" if len(by_variable) == 2 else kinds[0] if kinds else "place"
    if (kind == "two") != ("=" in used) or (kind == "two" and kinds):
        raise other
    return Goal(kind, things(thing, "cleanable", "heatable", "coolable"), targets, thing, place)
