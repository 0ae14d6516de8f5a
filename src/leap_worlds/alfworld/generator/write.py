"""Turns a drawn game into the official files: PDDL domain, problem, text grammar, `traj_data.json`.

Domain and grammar are compact equivalents of ALFWorld's `alfred.pddl` and `alfred.twl2` (MIT), stated as our own
tables: the same predicates, commands and texts, without costs and without the actions that text games never allow. The
test suite plays generated games in the real engine to show that texts and commands are the same.
"""

from __future__ import annotations

import json
from functools import cache

from leap.core import JsonObject
from leap_worlds.alfworld.generator.scene import Scene
from leap_worlds.alfworld.generator.tables import LAMP, TASKS, tables

_AT = "(atLocation ?a ?l) (receptacleAtLocation ?r ?l)"
_REACHABLE = "(or (not (openable ?r)) (opened ?r))"
_PREDICATES = (
    "atLocation ?a - agent ?l - location",
    "receptacleAtLocation ?r - receptacle ?l - location",
    "objectAtLocation ?o - object ?l - location",
    "openable ?r - receptacle",
    "opened ?r - receptacle",
    "inReceptacle ?o - object ?r - receptacle",
    "isReceptacleObject ?o - object",
    "inReceptacleObject ?i - object ?o - object",
    "checked ?x - object",
    "receptacleType ?r - receptacle ?t - rtype",
    "objectType ?o - object ?t - otype",
    "canContain ?rt - rtype ?ot - otype",
    "holds ?a - agent ?o - object",
    "holdsAny ?a - agent",
    *(
        f"{name} ?o - object"
        for name in (
            *("pickupable", "cleanable", "heatable", "coolable", "toggleable", "sliceable"),
            *("isClean", "isHot", "isCool", "isToggled", "isSliced"),
        )
    ),
)
_WITH = "?a - agent ?l - location ?r - receptacle"
# Each action: name, parameters, precondition, effect, command, feedback in both dialects ("put", "move").
# `checked` exists so that an action that only looks has an effect; the translator drops actions without one.
_ACTIONS: tuple[tuple[str, str, str, str, str | tuple[str, str], str | tuple[str, str]], ...] = (
    ("look", "?a - agent ?l - location", "(atLocation ?a ?l)", "(checked ?l)", "look", "#look.feedback#"),
    ("inventory", "?a - agent", "", "(checked ?a)", "inventory", "#carrying#"),
    ("examineReceptacle", "?a - agent ?r - receptacle", f"(exists (?l - location) (and {_AT}))", "(checked ?r)",
     "examine {r}", "#contents#"),
    ("examineObject", "?a - agent ?o - object", "(holds ?a ?o)", "(checked ?o)", "examine {o}", "#condition#"),
    ("GotoLocation", "?a - agent ?lStart - location ?lEnd - location ?r - receptacle",
     "(atLocation ?a ?lStart) (receptacleAtLocation ?r ?lEnd)",
     "(not (atLocation ?a ?lStart)) (atLocation ?a ?lEnd)",
     "go to [{r.name | receptacleatlocation(r:receptacle, lend:location)}]",
     ("You arrive at {lend.name}. #contents#", "You arrive at {r.name}. #contents#")),
    ("OpenObject", _WITH, f"(openable ?r) {_AT} (not (opened ?r))", "(opened ?r) (checked ?r)",
     "open {r}", "You open the {r.name}. #contents#"),
    ("CloseObject", _WITH, f"(openable ?r) {_AT} (opened ?r)", "(not (opened ?r))",
     "close {r}", "You close the {r.name}."),
    ("PickupObject", f"{_WITH} ?o - object",
     f"(pickupable ?o) {_AT} (inReceptacle ?o ?r) (not (holdsAny ?a)) {_REACHABLE}",
     "(not (inReceptacle ?o ?r)) (not (objectAtLocation ?o ?l)) (holds ?a ?o) (holdsAny ?a)",
     "take {o} from {r}", "You pick up the {o.name} from the {r.name}."),
    ("PutObject", f"{_WITH} ?o - object ?ot - otype ?rt - rtype",
     f"(holds ?a ?o) {_AT} {_REACHABLE} (objectType ?o ?ot) (receptacleType ?r ?rt) (canContain ?rt ?ot)",
     "(inReceptacle ?o ?r) (objectAtLocation ?o ?l) (not (holds ?a ?o)) (not (holdsAny ?a))",
     ("put {o} in/on {r}", "move {o} to {r}"),
     ("You put the {o.name} in/on the {r.name}.", "You move the {o.name} to the {r.name}.")),
    ("CleanObject", f"{_WITH} ?o - object", f"(cleanable ?o) (receptacleType ?r SinkBasinType) {_AT} (holds ?a ?o)",
     "(isClean ?o)", "clean {o} with {r}", "You clean the {o.name} using the {r.name}."),
    ("HeatObject", f"{_WITH} ?o - object", f"(heatable ?o) (receptacleType ?r MicrowaveType) {_AT} (holds ?a ?o)",
     "(isHot ?o) (not (isCool ?o))", "heat {o} with {r}", "You heat the {o.name} using the {r.name}."),
    ("CoolObject", f"{_WITH} ?o - object", f"(coolable ?o) (receptacleType ?r FridgeType) {_AT} (holds ?a ?o)",
     "(isCool ?o) (not (isHot ?o))", "cool {o} with {r}", "You cool the {o.name} using the {r.name}."),
    ("ToggleObject", f"{_WITH} ?o - object", f"(toggleable ?o) {_AT} (inReceptacle ?o ?r)",
     "(isToggled ?o) (checked ?o)", "use {o}", "You turn on the {o.name}."),
    ("SliceObject", "?a - agent ?l - location ?co - object ?ko - object",
     "(sliceable ?co) (or (objectType ?ko KnifeType) (objectType ?ko ButterKnifeType)) (atLocation ?a ?l)"
     " (objectAtLocation ?co ?l) (holds ?a ?ko)",
     "(isSliced ?co)", "slice {co} with {ko}", "You sliced the {co.name} with the {ko.name}."),
)  # fmt: skip
# To the letter as upstream, where one line is not aligned.
_HELP = """
Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""
_NAMED_TYPES = {"rtype": ("Fridge", "Microwave", "SinkBasin"), "otype": ("ButterKnife", "Knife")}
"""Types that the domain names; they must exist in every problem."""


@cache
def domain(dialect: str) -> str:
    """The PDDL domain."""
    predicates = "\n  ".join(f"({p})" for p in _PREDICATES)
    actions = [action[:4] for action in _ACTIONS]
    if dialect == "move":
        actions.append(("help", "?a - agent", "", "(checked ?a)"))
    blocks = "\n".join(
        f" (:action {name}\n  :parameters ({parameters})\n  :precondition {f'(and {pre})' if pre else '()'}\n"
        f"  :effect (and {effect}))"
        for name, parameters, pre, effect in actions
    )
    return (
        "(define (domain alfred)\n (:requirements :adl :typing)\n"
        " (:types agent location receptacle object rtype otype)\n"
        f" (:predicates\n  {predicates})\n{blocks}\n)\n"
    )


def _listing(variable: str, condition: str) -> str:
    return f"[{{{variable}.indefinite + ' ' + {variable}.name | {condition}}}]"


def _rules(sentence: str) -> dict[str, list[dict[str, str]]]:
    """The texts that several actions share."""
    inside = _listing("o", "inreceptacle(o:object, r:receptacle)")
    vessel = _listing("o2", "inreceptacleobject(o2:object, o:object)")
    return {
        "intro": [_rule("-= Welcome to TextWorld, ALFRED! =-\n\n#look.feedback#\n\n#task#")],
        "task": [_rule(f"Your task is to: {sentence}.")],
        "carrying": [
            _rule(f"You are carrying: {_listing('o', 'holds(a:agent, o:object)')}.", "holdsany(a:agent)"),
            _rule("You are not carrying anything."),
        ],
        "contents": [
            _rule(f"The {{r.name}} is open. In it, you see {inside}.", "openable(r:receptacle) & opened(r:receptacle)"),
            _rule("The {r.name} is closed.", "openable(r:receptacle)"),
            _rule(f"On the {{r.name}}, you see {inside}."),
        ],
        "condition": [
            _rule(f"This is a normal {{o.name}}. In it, you see {vessel}.", "isreceptacleobject(o:object)"),
            *_conditions(),
            _rule("There's nothing special about {o.name}."),
        ],
    }


def _rule(text: str, condition: str | None = None) -> dict[str, str]:
    return {"rhs": text} if condition is None else {"condition": condition, "rhs": text}


def _conditions() -> list[dict[str, str]]:
    """What `examine` says of a thing that was treated: both treatments before one, sliced before whole."""
    rules = []
    for sliced in (True, False):
        states = [
            (("isclean", "ishot"), "hot and clean"),
            (("isclean", "iscool"), "cool and clean"),
            (("isclean",), "clean"),
            (("ishot",), "hot"),
            (("iscool",), "cool" if sliced else "cold"),
        ]
        if sliced:
            states = [((*marks, "issliced"), f"{words} sliced") for marks, words in states]
        rules += [
            _rule(f"This is a {words} {{o.name}}.", " & ".join(f"{m}(o:object)" for m in marks))
            for marks, words in states
        ]
    rules.append(_rule("This is a sliced {o.name}.", "sliceable(o:object) & issliced(o:object)"))
    return rules


def _look_rules() -> dict[str, list[dict[str, str]]]:
    """What `look` says: in the middle of the room at the start, later at a receptacle."""
    here = "atlocation(a:agent, l:location) & receptacleatlocation(r:receptacle, l:location)"
    fallen = (
        "atlocation(a:agent, l:location) & objectatlocation(o:object, l:location)"
        " & receptacleatlocation(r:receptacle, l:location) & not_inreceptacle(o:object, r:receptacle)"
    )
    there = "receptacleatlocation(r:receptacle, l:location)"
    return {
        "look.feedback": [
            _rule("#facing#. Next to it, you see #beside#.", here),
            _rule("You are in the middle of a room. Looking quickly around you, you see #places#."),
        ],
        "facing": [_rule(f"You are facing the [{{r.name | {here}}}]")],
        "beside": [_rule(f"[{{#overview(o)# | {fallen}}}]", fallen), _rule("nothing")],
        "places": [_rule(f"[{{#overview(r)# | {there}}}]", there), _rule("nothing")],
        "overview(o)": [_rule("{o.indefinite} {o.name}")],
        "overview(r)": [_rule("{r.indefinite} {r.name or r.id}")],
        "list_empty": [_rule("nothing")],
        "list_separator": [_rule(", ")],
        "list_last_separator": [_rule(", and ")],
    }


def grammar(sentence: str, dialect: str) -> str:
    """The text grammar of a game: the goal sentence lives in it."""
    texts, actions = _grammar(dialect)
    return f'grammar :: """\n{json.dumps(_rules(sentence) | texts, indent=1)}\n""";\n\n{actions}'


@cache
def _grammar(dialect: str) -> tuple[dict[str, list[dict[str, str]]], str]:
    texts: dict[str, list[dict[str, str]]] = {}
    actions = []
    rows = [(name, command, feedback) for name, _, _, _, command, feedback in _ACTIONS]
    if dialect == "move":
        rows.append(("help", "help", _HELP))
    for name, *two in rows:
        command, feedback = (text if isinstance(text, str) else text[dialect == "move"] for text in two)
        symbol = feedback.strip("#")
        if feedback != f"#{symbol}#":
            symbol = f"{name}.feedback"
            texts[symbol] = [_rule(feedback)]
        own = f' grammar :: """\n{json.dumps(_look_rules(), indent=1)}\n""";\n' if name == "look" else ""
        actions.append(f'action {name} {{\n template :: "{command}";\n feedback :: "#{symbol}#";\n{own}}}\n')
    return texts, "\n".join(actions)


def goal(scene: Scene) -> str:
    """The PDDL goal, in the shape of its task type."""
    rule = TASKS[scene.task_type]
    kind, place = f"{scene.target}Type", f"{scene.destination}Type"
    if scene.destination == LAMP:
        return (
            f"(and (exists (?ot - object ?r - receptacle ?a - agent ?l - location) (and (objectType ?ot {place})"
            " (toggleable ?ot) (isToggled ?ot) (receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?ot ?r)))"
            f" (exists (?o - object ?a - agent) (and (objectType ?o {kind}) (holds ?a ?o))))"
        )
    extra = f" ({rule.needs} ?o) ({rule.mark} ?o)" if rule.mark else ""
    if rule.count == 2:
        extra = f" (exists (?o2 - object) (and (not (= ?o ?o2)) (objectType ?o2 {kind}) (inReceptacle ?o2 ?r)))"
    return (
        f"(exists (?r - receptacle) (exists (?o - object) (and (objectType ?o {kind}) (receptacleType ?r {place})"
        f" (inReceptacle ?o ?r){extra})))"
    )


def problem(scene: Scene, name: str) -> str:
    """The PDDL problem: everything in the room, and the goal."""
    room, measured = scene.room, tables()
    rtypes = sorted(room.receptacle_types)
    otypes = sorted({t.kind for t in scene.things})
    facts = [f"(atLocation agent1 {room.locations[-1]})"]
    for r in room.receptacles:
        facts.append(f"(receptacleType {r.id} {r.kind}Type)")
        facts.append(f"(receptacleAtLocation {r.id} {room.locations[r.location]})")
        if r.openable:
            facts.append(f"(openable {r.id})")
    for r in rtypes:
        holds = measured.can_contain.get(r, ())
        facts += [f"(canContain {r}Type {o}Type)" for o in otypes if o in holds]
    things = measured.rooms[room.kind]["things"]
    for thing in scene.things:
        facts.append(f"(objectType {thing.id} {thing.kind}Type)")
        facts += [f"({attribute} {thing.id})" for attribute in sorted(measured.attributes.get(thing.kind, ()))]
        if things[thing.kind]["portable"]:
            facts.append(f"(pickupable {thing.id})")
        if thing.kind in (LAMP, "FloorLamp"):
            facts.append(f"(toggleable {thing.id})")
        facts += [f"(inReceptacle {thing.id} {r.id})" for r in thing.places]
        if thing.places:
            facts.append(f"(objectAtLocation {thing.id} {room.locations[thing.places[0].location]})")
        if thing.cooled:
            facts.append(f"(isCool {thing.id})")
        if thing.inside:
            facts.append(f"(inReceptacleObject {thing.id} {thing.inside})")
    objects = [
        ("agent", ["agent1"]),
        ("rtype", sorted(f"{r}Type" for r in {*rtypes, *_NAMED_TYPES["rtype"]})),
        ("otype", sorted(f"{o}Type" for o in {*otypes, *_NAMED_TYPES["otype"]})),
        ("receptacle", [r.id for r in room.receptacles]),
        ("object", [t.id for t in scene.things]),
        ("location", list(room.locations)),
    ]
    return (
        f"(define (problem {name})\n(:domain alfred)\n(:objects\n"
        + "".join(f"{x} - {kind}\n" for kind, xs in objects for x in xs)
        + ")\n(:init\n"
        + "\n".join(facts)
        + f"\n)\n(:goal {goal(scene)})\n)\n"
    )


def game_file(scene: Scene, name: str, dialect: str) -> JsonObject:
    """The content of `game.tw-pddl`, without a walkthrough."""
    return {
        "pddl_domain": domain(dialect),
        "grammar": grammar(scene.sentence, dialect),
        "pddl_problem": problem(scene, name),
        "solvable": True,
        "walkthrough": [],
    }


def traj_file(scene: Scene, trial: str, seed: str) -> JsonObject:
    """The content of `traj_data.json`, as far as ALFWorld's text games read it."""
    lamp = scene.destination == LAMP
    return {
        "task_id": trial,
        "task_type": scene.task_type,
        "pddl_params": {
            "mrecep_target": "",
            "object_sliced": False,
            "object_target": scene.target,
            "parent_target": "" if lamp else scene.destination,
            "toggle_target": scene.destination if lamp else "",
        },
        "scene": {"floor_plan": f"FloorPlan{scene.room.scene}", "scene_num": scene.room.scene, "random_seed": seed},
        "turk_annotations": {"anns": []},
    }


def folder(scene: Scene, trial: str) -> str:
    """The game's folder below its split, in the official form."""
    return f"{scene.task_type}-{scene.target}-None-{scene.destination}-{scene.room.scene}/{trial}"
