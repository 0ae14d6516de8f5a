"""Our own ALFWorld engine: the same texts, commands and wins as the real one, thousands of times faster.

The rules are those of ALFWorld's `alfred.pddl` (14 actions, nothing hidden or random) and the texts those of its
`alfred.twl2`, as TextWorld's PddlEnv plays them. Where the two together behave oddly, this engine does too:

* `examine` takes a thing only when it is in hand (a comma in the domain's `exists` disables the other case);
* there is no `go to` for a place at the agent's own location, and everything at one location is in reach at once;
* `look` before the first `go to` sees nothing;
* clean, heat and cool need no open appliance, `use` needs no free hand and always turns on;
* a thing listed in two receptacles stays in the other one when it is taken;
* after a thing is taken and put down elsewhere at the same location, `look` lists it as lying next to the place.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary, proxy

from leap_worlds.alfworld.engine import Reply
from leap_worlds.alfworld.game import APPLIANCES, Game, State, load_game

NOTHING_HAPPENS = "Nothing happens."
_WELCOME = "-= Welcome to TextWorld, ALFRED! =-"
_KNIVES = frozenset({"knife", "butterknife"})


_Op = tuple[str, str, str]
"""What a command means: the verb, the place and the thing."""


class _Tables:
    """What of a game never changes, laid out for stepping. One per game, shared by its engines.

    Attributes:
        ops: What each command that was ever said means.
        rank: Place of each thing in the order of the ids.
        here, go, examine: Receptacles at each location, and commands there, sorted.
        treaters, knives: Receptacles that clean, heat and cool; things that slice.
    """

    def __init__(self, game: Game) -> None:
        self._game = proxy(game)  # the tables live as long as the game; held by them, it would live for ever
        self._said: dict[_Op, str] = {}
        self.ops: dict[str, _Op] = {}
        self.rank = {thing: i for i, thing in enumerate(game.objects)}
        self.here: dict[str, tuple[str, ...]] = {}
        for receptacle, location in game.location.items():
            self.here[location] = (*self.here.get(location, ()), receptacle)
        self.go = {
            location: tuple(sorted(self.command("go to", r) for r, at in game.location.items() if at != location))
            for location in {*self.here, game.initial.location}
        }
        self.examine = {at: tuple(sorted(self.command("examine", r) for r in rs)) for at, rs in self.here.items()}
        cleaning = game.cleaning_types
        self.treaters = {
            verb: {r for r in game.location if game.types[r] in (cleaning if verb == "clean" else {appliance})}
            for verb, appliance in APPLIANCES.items()
        }
        self.knives = {thing for thing in game.objects if game.types.get(thing) in _KNIVES}
        for plain in ("inventory", "look") + (("help",) if game.help_text is not None else ()):
            self.command(plain)

    def command(self, verb: str, place: str = "", thing: str = "") -> str:
        """Forms a command and notes what it means."""
        op = (verb, place, thing)
        if (command := self._said.get(op)) is not None:
            return command
        if verb == "take":
            command = f"take {thing} from {place}"
        elif verb == "put":
            command = self._game.put_command(thing, place)
        elif verb in APPLIANCES or verb == "slice":
            command = f"{verb} {thing} with {place}"
        else:
            command = f"{verb} {thing or place}" if thing or place else verb
        self.ops[command] = op
        self._said[op] = command
        return command


_TABLES: WeakKeyDictionary[Game, _Tables] = WeakKeyDictionary()


class NativeEngine:
    """Plays one episode of one game. Interface: `leap_worlds.alfworld.engine.Engine`, plus `restore`.

    Engines of the same game share only read-mostly tables, so thousands can play side by side in one process.

    Args:
        game: A parsed game, or the path of a `game.tw-pddl` file.
    """

    def __init__(self, game: Game | str | Path) -> None:
        self.game: Game = game if isinstance(game, Game) else load_game(game)
        tables = _TABLES.get(self.game)
        if tables is None:
            tables = _TABLES[self.game] = _Tables(self.game)
        self._tables = tables
        self._enter(self.game.initial)

    def start(self) -> Reply:
        """The welcome line, the room and the task sentence."""
        # The intro's queries are unbound, unlike the `look` action's: it always names every place.
        room = self._facing() if self.state.location in self._tables.here else self._room(self.game.location)
        return self._reply(f"{_WELCOME}\n\n{room}\n\nYour task is to: {self.game.task}")

    def step(self, command: str) -> Reply:
        """Gives a command; one that is not admissible at this moment changes nothing."""
        command = command.strip()
        admissible = self._admissible
        i = bisect_left(admissible, command)
        if i == len(admissible) or admissible[i] != command:
            return self._reply(NOTHING_HAPPENS)
        return self._reply(self._act(*self._tables.ops[command]))

    def restore(self, state: State) -> Reply:
        """Goes back to a state of this game. The reply holds what can be done there, and an empty observation."""
        self._enter(state)
        return self._reply("")

    def _reply(self, observation: str) -> Reply:
        return Reply(observation, self._admissible, self._won, 1.0 if self._won else 0.0)

    def _enter(self, state: State) -> None:
        self.state = state
        self._won = self.game.won(state)
        self._admissible = self._commands()

    def _commands(self) -> tuple[str, ...]:
        # Commands are sorted as strings. Those that begin with another verb sort apart, so it is enough to sort a few.
        game, state, tables = self.game, self.state, self._tables
        location, holding, opened = state.location, state.holding, state.opened
        say = tables.command
        here = tables.here.get(location, ())
        examine = tables.examine.get(location, ())
        before: list[str] = []  # clean, close, cool
        after: list[str] = []  # heat, help, inventory, look, move, open, put, slice, take, use
        if holding is not None:
            examine = list(examine)
            insort(examine, say("examine", thing=holding))
            for verb, able in (("clean", game.cleanable), ("cool", game.coolable), ("heat", game.heatable)):
                if holding in able:
                    fit = [say(verb, r, holding) for r in here if r in tables.treaters[verb]]
                    (after if verb == "heat" else before).extend(fit)
            if holding in tables.knives:
                after += [say("slice", holding, o) for o, at in state.lying if at == location and o in game.sliceable]
        for receptacle in here:
            inside = state.contents[receptacle]
            if receptacle in game.openable:
                if receptacle in opened:
                    before.append(say("close", receptacle))
                else:
                    after.append(say("open", receptacle))
            if receptacle not in game.openable or receptacle in opened:
                if holding is None:
                    after += [say("take", receptacle, o) for o in inside if o in game.pickupable]
                elif game.accepts(receptacle, holding):
                    after.append(say("put", receptacle, holding))
            if not game.toggleable.isdisjoint(inside):
                after += [say("use", thing=o) for o in inside if o in game.toggleable]
        after += ("inventory", "look")
        if game.help_text is not None:
            after.append("help")
        before.sort()
        # Two receptacles at one location may hold the same lamp; then `use` would be listed twice.
        return (*before, *examine, *tables.go[location], *sorted(set(after)))

    def _change(self, **changes: object) -> None:
        self._enter(replace(self.state, **changes))  # type: ignore[arg-type]

    def _room(self, receptacles: Iterable[str]) -> str:
        seen = _listing([f"a {r}" for r in receptacles])
        return f"You are in the middle of a room. Looking quickly around you, you see {seen}."

    def _facing(self) -> str:
        state = self.state
        here = self._tables.here[state.location]
        rank = self._tables.rank
        lying = sorted((o for o, at in state.lying if at == state.location and o in rank), key=rank.__getitem__)
        loose = [f"a {o}" for o in lying for r in here if (o, r) in state.removed]
        return f"You are facing the {_listing(here)}. Next to it, you see {_listing(loose)}."

    def _act(self, verb: str, place: str, thing: str) -> str:
        """Carries out a command that is admissible, and returns what it shows."""
        game, state = self.game, self.state
        match verb:
            case "go to":
                location = game.location[place]
                self._change(location=location)
                return f"You arrive at {location if game.dialect == 'put' else place}. {self._describe_place(place)}"
            case "examine":
                return self._describe_thing(thing) if thing else self._describe_place(place)
            case "look":
                return self._facing() if state.location in self._tables.here else self._room(())
            case "inventory":
                holding = state.holding
                return "You are not carrying anything." if holding is None else f"You are carrying: a {holding}."
            case "help":
                return game.help_text or ""
            case "open":
                self._change(opened=state.opened | {place})
                return f"You open the {place}. {self._describe_place(place)}"
            case "close":
                self._change(opened=state.opened - {place})
                return f"You close the {place}."
            case "take":
                self._change(
                    holding=thing,
                    contents={**state.contents, place: tuple(o for o in state.contents[place] if o != thing)},
                    lying=state.lying - {(thing, state.location)},
                    removed=state.removed | {(thing, place)},
                )
                return f"You pick up the {thing} from the {place}."
            case "put":
                inside = tuple(sorted({*state.contents[place], thing}, key=self._tables.rank.__getitem__))
                self._change(
                    holding=None,
                    contents={**state.contents, place: inside},
                    lying=state.lying | {(thing, state.location)},
                    removed=state.removed - {(thing, place)},
                )
                put, to = ("put", "in/on") if game.dialect == "put" else ("move", "to")
                return f"You {put} the {thing} {to} the {place}."
            case "use":
                self._change(toggled=state.toggled | {thing})
                return f"You turn on the {thing}."
            case "slice":
                self._change(sliced=state.sliced | {thing})
                return f"You sliced the {thing} with the {place}."
            case "clean":
                self._change(clean=state.clean | {thing})
            case "heat":
                self._change(hot=state.hot | {thing}, cool=state.cool - {thing})
            case _:
                self._change(cool=state.cool | {thing}, hot=state.hot - {thing})
        return f"You {verb} the {thing} using the {place}."

    def _describe_place(self, place: str) -> str:
        if place in self.game.openable:
            if place not in self.state.opened:
                return f"The {place} is closed."
            return f"The {place} is open. In it, you see {self._contents(place)}."
        return f"On the {place}, you see {self._contents(place)}."

    def _contents(self, place: str) -> str:
        return _listing([f"a {o}" for o in self.state.contents[place]])

    def _describe_thing(self, thing: str) -> str:
        state, game = self.state, self.game
        if thing in game.vessels:
            inside = _listing([f"a {o}" for o in game.inside.get(thing, ())])
            return f"This is a normal {thing}. In it, you see {inside}."
        clean, sliced = thing in state.clean, thing in state.sliced
        warmth = "hot" if thing in state.hot else "cool" if thing in state.cool else ""
        if not sliced and warmth == "cool" and not clean:
            return f"This is a cold {thing}."
        if words := " and ".join(word for word in (warmth, "clean" if clean else "") if word):
            return f"This is a {words} {'sliced ' if sliced else ''}{thing}."
        if thing in game.toggleable and thing in state.toggled:
            return f"This {thing} is on."
        if thing in game.sliceable and sliced:
            return f"This is a sliced {thing}."
        return f"There's nothing special about {thing}."


def _listing(items: Iterable[str]) -> str:
    """A list as the grammar writes it: `nothing`, `a b`, or `a b, a c, and a d`."""
    items = tuple(items)
    if len(items) < 2:
        return items[0] if items else "nothing"
    return f"{', '.join(items[:-1])}, and {items[-1]}"
